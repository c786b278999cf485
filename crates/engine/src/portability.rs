//! Whether what is restored can go on on this computer: told before any data moves.
//!
//! Guarantees: nothing is changed here, and of a stored saved state only its two ends, the headers of
//! its units and the guest's processor are read. Where there is nothing to say the list is empty.
//! Not guaranteed: that a saved state without a verdict resumes. Not compared are: its devices' data
//! and the versions of its units, which are VirtualBox's own (its version stands for them); what of a
//! processor `processor` does not name; the host's chip set, graphics and sound; parallel and serial
//! ports and host-only or internal networks. An extension pack is looked for only where the settings
//! tell that one is needed: for the remote display and for encrypted disks; a saved state names none.
//!
//! How VirtualBox judges is from its source (`SSM.cpp`, `CPUMR3CpuId.cpp`).

mod devices;
mod processor;
mod saved_state;
mod stored;
mod verdict;

use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::SnapshotStore;
use vrs_virtualbox::MachineSettings;

pub use self::verdict::{Level, Verdict, VerdictName};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::{HostRecord, Manifest};
use crate::restore::RestoreIntent;

/// What is restored, and where to.
pub(crate) struct Move<'a> {
    pub(crate) host: &'a Host,
    pub(crate) store: &'a dyn SnapshotStore,
    pub(crate) snapshot: &'a SnapshotId,
    pub(crate) manifest: &'a Manifest,
    pub(crate) intent: &'a RestoreIntent,
}

impl Move<'_> {
    /// Everything that is not `ok`.
    pub(crate) fn examine(&self, force: &[VerdictName]) -> Result<Vec<Verdict>> {
        let settings = MachineSettings::parse(&self.intent.settings, &self.intent.settings_file)?;
        let verdicts = [
            saved_state::verdicts(self, &settings)?,
            devices::verdicts(self, &settings),
        ];
        let forced = |verdict: Verdict| verdict.unless_forced(force);
        Ok(verdicts.concat().into_iter().map(forced).collect())
    }

    /// Whether the snapshot was taken on this computer, as far as its name and processor tell.
    fn is_same_computer(&self) -> bool {
        let without_virtualbox = |record: HostRecord| HostRecord {
            virtualbox: None,
            ..record
        };
        without_virtualbox(self.host.record()) == without_virtualbox(self.manifest.host.clone())
    }
}

/// The worst of all.
#[must_use]
pub fn level(verdicts: &[Verdict]) -> Level {
    let levels = verdicts.iter().map(|verdict| verdict.level);
    levels.max().unwrap_or(Level::Ok)
}

/// Fails if the machine could only boot here, and is not restored so; warns of the rest.
pub fn refuse_or_warn(name: &str, verdicts: &[Verdict], progress: &dyn Progress) -> Result<()> {
    refuse(name, verdicts)?;
    for verdict in verdicts {
        progress.warn(&verdict.to_string());
    }
    Ok(())
}

/// Fails if the machine could only boot here, and is not restored so.
pub fn refuse(name: &str, verdicts: &[Verdict]) -> Result<()> {
    let refusals = verdicts
        .iter()
        .filter(|verdict| verdict.level == Level::ColdBootOnly);
    let refusals: Vec<_> = refusals.cloned().collect();
    if refusals.is_empty() {
        return Ok(());
    }
    Err(Error::NotPortable {
        name: name.to_owned(),
        refusals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::forced_names;

    fn cold_boot_only() -> Verdict {
        let found = "it is of another vendor";
        Verdict::cold_boot_only(VerdictName::SavedState, "processor", found, "go back")
    }

    #[test]
    fn the_refusal_says_what_can_be_done() {
        insta::assert_snapshot!(
            refuse("web", &[cold_boot_only()]).unwrap_err(),
            @"machine 'web' cannot go on here where it was: saved-state: processor: it is of another vendor; go back; `--cold` leaves its memory out, so that it boots from its disks; `--force saved-state` tries it all the same"
        );
    }

    #[test]
    fn what_is_forced_does_not_refuse() {
        let forced = cold_boot_only().unless_forced(&[VerdictName::SavedState]);
        assert_eq!(level(std::slice::from_ref(&forced)), Level::Risky);
        refuse("web", &[forced]).unwrap();
        let other = cold_boot_only().unless_forced(&[VerdictName::Network]);
        assert!(refuse("web", &[other]).is_err());
    }

    #[test]
    fn an_unknown_verdict_cannot_be_forced() {
        insta::assert_snapshot!(
            forced_names::<VerdictName>(&["luck".to_owned()]).unwrap_err(),
            @"no verdict is called 'luck'; there are: saved-state, extension-pack, network, usb, shared-folder"
        );
    }
}
