//! Whether a machine can be captured without hurting it: looked at before anything is changed.
//!
//! Guarantees: nothing is changed here. Every check that applies gives a [`Verdict`], also where all
//! is well; a refusal says what to do instead. Not guaranteed: that what was true stays true; the
//! capture watches free space by [`low_water_bytes`] and looks again at what it did.
//!
//! Facts about VirtualBox are from its source and from trials with 7.2.22 and running guests, which
//! `tests/real_preflight.rs` repeats.

mod disk;
mod disks;
mod facts;
mod machine;
mod media;
mod nvram;
#[cfg(test)]
mod scene;
mod space;
mod verdict;

use vrs_progress::Progress;

pub use self::disk::skipped_media;
use self::facts::Facts;
pub(crate) use self::machine::LAST_WITH_ZERO_BLOCK_BUG;
pub use self::space::low_water_bytes;
pub use self::verdict::{Level, Verdict, VerdictName};
use crate::capture::CaptureMode;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::verdict::forced_names;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightRequest {
    /// How the machine is captured if it is not at rest.
    pub mode: CaptureMode,
    /// Disks to leave out, each named as [`skipped_media`] says.
    pub skip_disks: Vec<String>,
    /// Names of verdicts that shall not stop the capture.
    pub force: Vec<String>,
}

/// Looks at everything that could make a capture fail, hurt the machine, or store less than it
/// seems to.
pub fn examine(
    host: &Host,
    machine: &Machine,
    inventory: &Inventory,
    request: &PreflightRequest,
) -> Result<Vec<Verdict>> {
    let forced = forced_names(&request.force)?;
    let facts = Facts::gather(host, machine, inventory, request)?;
    let verdicts = judge(&facts).into_iter();
    Ok(verdicts
        .map(|verdict| verdict.unless_forced(&forced))
        .collect())
}

/// Looks at what of a machine at rest is stored otherwise than it seems. Nothing is done to such a
/// machine, so nothing can hurt it.
#[must_use]
pub fn examine_at_rest(machine: &Machine, inventory: &Inventory) -> Vec<Verdict> {
    media::encryption(machine.folder(), &inventory.settings)
}

/// The verdict on a machine whose settings VirtualBox encrypted, if that is the error. It cannot be
/// forced: nothing tells which files the machine has.
pub(crate) fn encrypted_settings(error: &vrs_virtualbox::Error) -> Option<Verdict> {
    let vrs_virtualbox::Error::Encrypted { path, machine } = error else {
        return None;
    };
    let machine = machine.map_or_else(|| "MACHINE".to_owned(), |machine| machine.to_string());
    let subject = path.as_ref().map(|path| path.display().to_string());
    Some(Verdict::refused(
        VerdictName::Encryption,
        subject.as_deref().unwrap_or(&machine),
        "VirtualBox encrypted the machine's settings, so that vrs cannot tell which files it has",
        format!(
            "decrypt it with `VBoxManage encryptvm {machine} setencryption --old-password FILE`"
        ),
    ))
}

/// Fails with all refusals, if there are any; warns of the rest.
pub fn refuse_or_warn(
    machine: &Machine,
    verdicts: &[Verdict],
    progress: &dyn Progress,
) -> Result<()> {
    let of_level = |level| {
        verdicts
            .iter()
            .filter(move |verdict| verdict.level == level)
    };
    if of_level(Level::Refused).next().is_some() {
        return Err(Error::PreflightRefused {
            name: machine.name.clone(),
            refusals: of_level(Level::Refused).cloned().collect(),
        });
    }
    for verdict in of_level(Level::Warning) {
        progress.warn(&verdict.to_string());
    }
    Ok(())
}

fn judge(facts: &Facts<'_>) -> Vec<Verdict> {
    [
        machine::verdicts(facts),
        disks::verdicts(facts),
        media::verdicts(facts),
        nvram::verdicts(facts),
        space::verdicts(facts),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_verdict_cannot_be_forced() {
        let error =
            forced_names::<VerdictName>(&["free-space".to_owned(), "luck".to_owned()]).unwrap_err();
        insta::assert_snapshot!(error, @"no verdict is called 'luck'; there are: machine-state, session-lock, stray-snapshot, snapshot-depth, save-state-disabled, zero-blocks, disk-kind, disk-not-stored, other-children, media-access, encryption, nvram, free-space");
    }
}
