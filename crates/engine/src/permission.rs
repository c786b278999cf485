//! Which state of a machine allows which verb, and what to do where it does not.
//!
//! | state | take | restore in place |
//! | --- | --- | --- |
//! | powered off, saved, aborted, aborted-saved, teleported | yes | yes |
//! | running, paused | yes, captured | after a power-off, if that is allowed |
//! | stuck | no | after a power-off, if that is allowed |
//! | every transitional state | no | no |
//! | inaccessible | no | yes: it is the cure |
//! | unknown to this version | no | no |
//!
//! Cloning, listing, comparing, deleting and checking do not touch the machine and ask nothing.

use vrs_virtualbox::MachineState;

use crate::capture::CaptureMode;
use crate::error::{Error, Result};
use crate::machine::Machine;

const WAIT: &str = "wait until VirtualBox is done with it";
const LOOK: &str = "`VBoxManage showvminfo` tells what is wrong with it";

/// How a machine has to be made to hold still before it is read: not at all if it is at rest, else
/// as the user wants it. Refuses where that is impossible.
pub(crate) fn to_take(
    machine: &Machine,
    wanted: Option<CaptureMode>,
) -> Result<Option<CaptureMode>> {
    let advice = match &machine.state {
        state if state.is_at_rest() => return Ok(None),
        MachineState::Running | MachineState::Paused => {
            return Ok(Some(wanted.unwrap_or(CaptureMode::Memory)));
        }
        state if state.is_transitional() => WAIT,
        state if state.is_online() => "its guest has stopped for good; power it off first",
        _ => LOOK,
    };
    Err(refused(machine, "taken", advice))
}

/// Whether a machine has to be powered off before its files are rewritten; refuses where it may
/// not or cannot be.
pub(crate) fn to_restore(machine: &Machine, may_power_off: bool) -> Result<bool> {
    let state = &machine.state;
    if state.is_at_rest() || state.is_inaccessible() {
        return Ok(false);
    }
    let advice = match state {
        MachineState::Running | MachineState::Paused | MachineState::Stuck if may_power_off => {
            return Ok(true);
        }
        state if state.is_transitional() => WAIT,
        state if state.is_online() => "power it off first, or allow it with --poweroff",
        _ => LOOK,
    };
    Err(refused(machine, "restored", advice))
}

/// Refuses to change files of a machine that is not at rest and that VirtualBox can read.
pub(crate) fn to_repair(machine: &Machine) -> Result<()> {
    let state = &machine.state;
    if state.is_at_rest() || state.is_inaccessible() {
        return Ok(());
    }
    let advice = if state.is_transitional() {
        WAIT
    } else if state.is_online() {
        "power it off first"
    } else {
        LOOK
    };
    Err(refused(machine, "repaired", advice))
}

fn refused(machine: &Machine, verb: &'static str, advice: &'static str) -> Error {
    Error::WrongState {
        name: machine.name.clone(),
        state: machine.state.clone(),
        verb,
        advice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn machine(state: &str) -> Machine {
        Machine {
            id: uuid::Uuid::from_u128(1).into(),
            name: "web".to_owned(),
            settings_file: "/vms/web/web.vbox".into(),
            state: state.parse().unwrap(),
            registered: true,
        }
    }

    #[rstest]
    fn at_rest_allows_all(
        #[values("poweroff", "saved", "aborted", "aborted-saved", "teleported")] state: &str,
        #[values(true, false)] may_power_off: bool,
    ) {
        assert_eq!(to_take(&machine(state), None).unwrap(), None);
        assert!(!to_restore(&machine(state), may_power_off).unwrap());
    }

    #[rstest]
    fn online_is_captured(#[values("running", "paused")] state: &str) {
        let mode = |wanted| to_take(&machine(state), wanted).unwrap();
        assert_eq!(mode(None), Some(CaptureMode::Memory));
        assert_eq!(
            mode(Some(CaptureMode::DisksOnly)),
            Some(CaptureMode::DisksOnly)
        );
    }

    #[test]
    fn stuck_is_not_taken() {
        assert!(to_take(&machine("gurumeditation"), None).is_err());
    }

    #[rstest]
    fn online_is_restored_only_after_a_power_off(
        #[values("running", "paused", "gurumeditation")] state: &str,
    ) {
        assert!(to_restore(&machine(state), true).unwrap());
        assert!(to_restore(&machine(state), false).is_err());
    }

    #[rstest]
    fn on_the_way_is_waited_for(
        #[values(
            "starting",
            "stopping",
            "saving",
            "restoring",
            "livesnapshotting",
            "onlinesnapshotting",
            "snapshotting",
            "deletingsnapshot",
            "deletingsnapshotlive",
            "deletingsnapshotlivepaused",
            "restoringsnapshot",
            "settingup",
            "teleporting",
            "teleportingpausedvm",
            "teleportingin"
        )]
        state: &str,
    ) {
        for error in [
            to_take(&machine(state), None).unwrap_err(),
            to_restore(&machine(state), true).unwrap_err(),
        ] {
            assert!(
                error
                    .to_string()
                    .ends_with("wait until VirtualBox is done with it"),
                "{error}"
            );
        }
    }

    #[test]
    fn inaccessible_is_cured_by_a_restore() {
        assert!(to_take(&machine("inaccessible"), None).is_err());
        assert!(!to_restore(&machine("inaccessible"), false).unwrap());
    }

    #[test]
    fn an_unknown_state_allows_nothing() {
        assert!(to_take(&machine("dreaming"), None).is_err());
        assert!(to_restore(&machine("dreaming"), true).is_err());
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        insta::assert_snapshot!(
            to_take(&machine("stuck"), None).unwrap_err(),
            @"machine 'web' is gurumeditation, so it cannot be taken now; its guest has stopped for good; power it off first"
        );
        insta::assert_snapshot!(
            to_restore(&machine("paused"), false).unwrap_err(),
            @"machine 'web' is paused, so it cannot be restored now; power it off first, or allow it with --poweroff"
        );
    }
}
