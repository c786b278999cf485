//! What one look says about one thing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::verdict::{self, Stopping, checks};

checks! {
    /// What is looked at. The names are stable: `--force` takes them.
    pub enum VerdictName {
        /// VirtualBox can load the saved state here.
        SavedState = "saved-state",
        /// The extension packs that the settings need are here.
        ExtensionPack = "extension-pack",
        /// The host's interfaces that adapters are bridged to are here.
        Network = "network",
        /// USB devices are those that the filters mean.
        Usb = "usb",
        /// The host's folders that the guest sees are here.
        SharedFolder = "shared-folder",
    }
}

/// How much of the machine goes on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is well.
    Ok,
    /// It may not work, or not as before.
    Risky,
    /// VirtualBox will not resume it; it can boot from its disks.
    ColdBootOnly,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ok => "ok",
            Self::Risky => "risky",
            Self::ColdBootOnly => "cold boot only",
        })
    }
}

/// What was found about one thing.
pub type Verdict = verdict::Verdict<VerdictName, Level>;

impl Stopping for Level {
    const STOPS: Self = Self::ColdBootOnly;
    const FORCED: Self = Self::Risky;
}

impl Verdict {
    pub(super) fn risky(
        name: VerdictName,
        subject: &str,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, subject, Level::Risky, reason, advice)
    }

    pub(super) fn cold_boot_only(
        name: VerdictName,
        subject: &str,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, subject, Level::ColdBootOnly, reason, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_itself() {
        for name in VerdictName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{name}\""));
        }
        assert_eq!("luck".parse::<VerdictName>(), Err(()));
    }
}
