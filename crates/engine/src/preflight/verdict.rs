//! What one check says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::verdict::{self, Stopping, checks};

checks! {
    /// A check. The names are stable: `--force` takes them.
    pub enum VerdictName {
        /// The machine is in a state in which it can be captured.
        MachineState = "machine-state",
        /// No other program has the machine locked.
        SessionLock = "session-lock",
        /// No transient VirtualBox snapshot is left of an earlier capture.
        StraySnapshot = "stray-snapshot",
        /// VirtualBox allows one more VirtualBox snapshot.
        SnapshotDepth = "snapshot-depth",
        /// Saving the state is not disabled for the machine.
        SaveStateDisabled = "save-state-disabled",
        /// VirtualBox does not lose zeros that are written to a differencing image.
        ZeroBlocks = "zero-blocks",
        /// The disk stands still while it is read.
        DiskKind = "disk-kind",
        /// The disk's contents are stored.
        DiskNotStored = "disk-not-stored",
        /// What is merged has no other child.
        OtherChildren = "other-children",
        /// Images can be read.
        MediaAccess = "media-access",
        /// Nothing is encrypted.
        Encryption = "encryption",
        /// The firmware's variables and the TPM's secrets are there.
        Nvram = "nvram",
        /// There is room for the capture and for merging.
        FreeSpace = "free-space",
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is well.
    Ok,
    /// The capture is made; something about it is worth knowing.
    Warning,
    /// The capture is not made, unless the verdict is forced.
    Refused,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Refused => "refused",
        })
    }
}

/// What one check says about one thing.
pub type Verdict = verdict::Verdict<VerdictName, Level>;

impl Stopping for Level {
    const STOPS: Self = Self::Refused;
    const FORCED: Self = Self::Warning;
}

impl Verdict {
    pub(super) fn ok(name: VerdictName, subject: &str, reason: impl Into<String>) -> Self {
        Self::new(name, subject, Level::Ok, reason, "")
    }

    pub(super) fn warning(
        name: VerdictName,
        subject: &str,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, subject, Level::Warning, reason, advice)
    }

    pub(super) fn refused(
        name: VerdictName,
        subject: &str,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, subject, Level::Refused, reason, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_check() {
        for name in VerdictName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{name}\""));
        }
        assert_eq!("luck".parse::<VerdictName>(), Err(()));
    }

    #[test]
    fn only_refusals_of_that_name_are_forced() {
        let refused = Verdict::refused(VerdictName::Nvram, "web", "gone", "put it back");
        let untouched = refused.clone().unless_forced(&[VerdictName::FreeSpace]);
        assert_eq!(untouched, refused);
        let forced = refused.unless_forced(&[VerdictName::Nvram]);
        assert_eq!(forced.level, Level::Warning);
        assert_eq!(forced.to_string(), "nvram: web: gone (forced); put it back");
    }
}
