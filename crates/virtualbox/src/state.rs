//! What a machine is doing, by the names that `VBoxManage showvminfo --machinereadable` uses.
//!
//! Guarantees: a name that this version does not know is kept and is neither at rest nor online,
//! so nothing that needs one of the two goes ahead on a guess.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// State of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MachineState {
    /// Powered off.
    PoweredOff,
    /// Powered off with its memory in a saved state.
    Saved,
    /// Moved to another host by teleportation.
    Teleported,
    /// Its process ended without powering it off.
    Aborted,
    /// Its process ended while it was being restored from a saved state, which is still there.
    AbortedSaved,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// Stopped by a fatal error inside ("guru meditation").
    Stuck,
    /// Being teleported away while running.
    Teleporting,
    /// A live VirtualBox snapshot is being taken.
    LiveSnapshotting,
    /// Starting from power-off.
    Starting,
    /// Powering off.
    Stopping,
    /// Writing its saved state.
    Saving,
    /// Starting from a saved state.
    Restoring,
    /// Being teleported away while paused.
    TeleportingPaused,
    /// Arriving by teleportation.
    TeleportingIn,
    /// A VirtualBox snapshot is being deleted while the machine runs.
    DeletingSnapshotLive,
    /// A VirtualBox snapshot is being deleted while the machine is paused.
    DeletingSnapshotPaused,
    /// A VirtualBox snapshot is being taken of a running or paused machine.
    OnlineSnapshotting,
    /// A VirtualBox snapshot is being restored.
    RestoringSnapshot,
    /// A VirtualBox snapshot is being deleted.
    DeletingSnapshot,
    /// A lengthy change of its settings is going on.
    SettingUp,
    /// A VirtualBox snapshot of the powered-off machine is being taken.
    Snapshotting,
    /// Registered, but VirtualBox cannot read its settings or lacks the password for them.
    Inaccessible,
    /// A name that this version does not know.
    Unknown(String),
}

/// `VBoxManage`'s names. Source: outputs of 7.2.22; those not seen there are from the list in its
/// manual.
const NAMES: &[(&str, MachineState)] = &[
    ("poweroff", MachineState::PoweredOff),
    ("saved", MachineState::Saved),
    ("teleported", MachineState::Teleported),
    ("aborted", MachineState::Aborted),
    ("aborted-saved", MachineState::AbortedSaved),
    ("running", MachineState::Running),
    ("paused", MachineState::Paused),
    ("gurumeditation", MachineState::Stuck),
    ("teleporting", MachineState::Teleporting),
    ("livesnapshotting", MachineState::LiveSnapshotting),
    ("starting", MachineState::Starting),
    ("stopping", MachineState::Stopping),
    ("saving", MachineState::Saving),
    ("restoring", MachineState::Restoring),
    ("teleportingpausedvm", MachineState::TeleportingPaused),
    ("teleportingin", MachineState::TeleportingIn),
    ("deletingsnapshotlive", MachineState::DeletingSnapshotLive),
    (
        "deletingsnapshotlivepaused",
        MachineState::DeletingSnapshotPaused,
    ),
    ("onlinesnapshotting", MachineState::OnlineSnapshotting),
    ("restoringsnapshot", MachineState::RestoringSnapshot),
    ("deletingsnapshot", MachineState::DeletingSnapshot),
    ("settingup", MachineState::SettingUp),
    ("snapshotting", MachineState::Snapshotting),
    ("inaccessible", MachineState::Inaccessible),
    // Another name of "gurumeditation"; the first of two is the one that is shown.
    ("stuck", MachineState::Stuck),
];

impl MachineState {
    /// Whether no VirtualBox process changes the machine's files: it is off, saved or aborted.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(
            self,
            Self::PoweredOff | Self::Saved | Self::Teleported | Self::Aborted | Self::AbortedSaved
        )
    }

    /// Whether the guest would begin with its boot: it is off or aborted, and no state of it is saved.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::PoweredOff | Self::Aborted)
    }

    /// Whether the machine has a process that holds its disks open.
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stuck) || self.is_online_transition()
    }

    /// Whether VirtualBox is on the way from one state to another.
    #[must_use]
    pub fn is_transitional(&self) -> bool {
        self.is_online_transition()
            || matches!(
                self,
                Self::RestoringSnapshot
                    | Self::DeletingSnapshot
                    | Self::SettingUp
                    | Self::Snapshotting
            )
    }

    /// Whether VirtualBox is deleting a VirtualBox snapshot, which may take very long.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        matches!(
            self,
            Self::DeletingSnapshot | Self::DeletingSnapshotLive | Self::DeletingSnapshotPaused
        )
    }

    /// Whether VirtualBox cannot read the machine's settings.
    #[must_use]
    pub fn is_inaccessible(&self) -> bool {
        *self == Self::Inaccessible
    }

    fn is_online_transition(&self) -> bool {
        matches!(
            self,
            Self::Teleporting
                | Self::LiveSnapshotting
                | Self::Starting
                | Self::Stopping
                | Self::Saving
                | Self::Restoring
                | Self::TeleportingPaused
                | Self::TeleportingIn
                | Self::DeletingSnapshotLive
                | Self::DeletingSnapshotPaused
                | Self::OnlineSnapshotting
        )
    }
}

impl FromStr for MachineState {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        Ok(known.map_or_else(
            || Self::Unknown(name.to_owned()),
            |(_, state)| state.clone(),
        ))
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().find(|(_, state)| state == self);
        match (known, self) {
            (Some((name, _)), _) => formatter.write_str(name),
            (None, Self::Unknown(name)) => formatter.write_str(name),
            (None, _) => formatter.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_that_leads_back_to_it() {
        for (name, state) in NAMES {
            assert_eq!(name.parse::<MachineState>().unwrap(), *state);
            let shown = state.to_string();
            assert_eq!(shown.parse::<MachineState>().unwrap(), *state);
        }
    }

    #[test]
    fn no_state_is_both_at_rest_and_something_else() {
        for (name, state) in NAMES {
            let active = state.is_online() || state.is_transitional() || state.is_inaccessible();
            assert_ne!(state.is_at_rest(), active, "{name}");
        }
    }

    #[test]
    fn unknown_state_allows_nothing() {
        let state: MachineState = "melting".parse().unwrap();
        assert_eq!(state.to_string(), "melting");
        assert!(!state.is_at_rest() && !state.is_online() && !state.is_transitional());
    }
}
