//! Machines that run: `startvm`, `controlvm`, `discardstate`.
//!
//! Between two calls nothing happens in the guest but what a test has it write. As with the real
//! one, a pause, save, reset or power-off during a live VirtualBox snapshot freezes it for good.

use std::fs;

use super::answer::{
    Answer, CONSOLE, Failure, INVALID_OBJECT_STATE, INVALID_VM_STATE, MACHINE, PROGRESS,
    SESSION_MACHINE, VM_ERROR,
};
use super::machine::Machine;
use super::registry::Registry;
use super::saved_state;
use super::virtual_machine::locked;

const FIND_TO_CONTROL: &str = "\"FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())\" at line 363 of file VBoxManageControlVM.cpp";
const FIND_TO_START: &str = "\"FindMachine(Bstr(pszVM).raw(), machine.asOutParam())\" at line 907 of file VBoxManageMisc.cpp";
const PAUSE: &str = "\"Pause()\" at line 388 of file VBoxManageControlVM.cpp";
const RESUME: &str = "\"Resume()\" at line 393 of file VBoxManageControlVM.cpp";
const SAVE: &str =
    "\"SaveState(progress.asOutParam())\" at line 639 of file VBoxManageControlVM.cpp";
const FIND_TO_DISCARD: &str = "\"FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())\" at line 1283 of file VBoxManageMisc.cpp";
const LOCK_TO_DISCARD: &str =
    "\"LockMachine(a->session, LockType_Write)\" at line 1287 of file VBoxManageMisc.cpp";
const DISCARD: &str = "\"DiscardSavedState(true )\" at line 1292 of file VBoxManageMisc.cpp";

/// `controlvm MACHINE pause|resume|savestate|poweroff|reset`
pub(super) fn control(registry: &mut Registry, name: &str, action: &str) -> Answer {
    let machine = match registry.find(name) {
        Err(failure) => return failure.answer(FIND_TO_CONTROL),
        Ok(machine) => machine,
    };
    if !machine.is_running() {
        return Answer::error(&[&format!("Machine '{name}' is not currently running.")]);
    }
    if machine.is_in_transition() && action != "resume" {
        machine.is_frozen = true;
    }
    match action {
        "pause" => pause(machine),
        "resume" => resume(machine),
        "savestate" => save(machine),
        "poweroff" => {
            machine.set_state("poweroff");
            Answer::progress()
        }
        _ => Answer::silent(),
    }
}

fn pause(machine: &mut Machine) -> Answer {
    match machine.state.as_str() {
        "paused" => refused(
            "Already paused".to_owned(),
            INVALID_VM_STATE,
            CONSOLE,
            PAUSE,
        ),
        "running" if machine.is_frozen => cannot_suspend().answer(PAUSE),
        "running" => {
            machine.set_state("paused");
            Answer::silent()
        }
        _ => Answer::silent(),
    }
}

fn resume(machine: &mut Machine) -> Answer {
    if machine.state == "paused" {
        machine.set_state("running");
        return Answer::silent();
    }
    let text = format!(
        "Cannot resume the machine as it is not paused (machine state: {})",
        machine.api_state()
    );
    refused(text, INVALID_VM_STATE, CONSOLE, RESUME)
}

fn save(machine: &mut Machine) -> Answer {
    if !["running", "paused"].contains(&machine.state.as_str()) {
        let text = format!(
            "Cannot save the execution state as the machine is not running or paused (machine state: {})",
            machine.api_state()
        );
        return refused(text, INVALID_VM_STATE, SESSION_MACHINE, SAVE);
    }
    if machine.is_frozen {
        return Answer {
            code: 1,
            ..Answer::silent()
        };
    }
    let file = saved_state::write(machine);
    machine.change(|settings| settings.set("stateFile", Some(&file)));
    machine.set_state("saved");
    Answer::progress()
}

/// What a guest that is frozen answers.
pub(super) fn cannot_suspend() -> Failure {
    Failure {
        text: "Could not suspend the machine execution (VERR_VM_INVALID_VM_STATE)".to_owned(),
        code: VM_ERROR,
        component: CONSOLE,
    }
}

fn refused(text: String, code: &'static str, component: &'static str, context: &str) -> Answer {
    Failure {
        text,
        code,
        component,
    }
    .answer(context)
}

/// `startvm MACHINE --type headless`, and `--type emergencystop`
pub(super) fn start(registry: &mut Registry, name: &str, kind: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND_TO_START),
    };
    if kind == "emergencystop" {
        machine.set_state("aborted");
        return Answer::silent();
    }
    if machine.is_running() {
        return locked(&machine.name);
    }
    drop_saved_state(machine);
    machine.set_state("running");
    Answer::prints(format!(
        "Waiting for VM \"{name}\" to power on...\nVM \"{name}\" has been successfully started.\n"
    ))
}

/// `discardstate MACHINE`, which claims success also where it fails.
pub(super) fn discard_state(registry: &mut Registry, name: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND_TO_DISCARD),
    };
    if machine.is_running() {
        let text = format!(
            "The machine '{}' is already locked for a session (or being unlocked)",
            machine.name
        );
        return refused(text, INVALID_OBJECT_STATE, MACHINE, LOCK_TO_DISCARD);
    }
    if machine.saved_state.is_none() {
        let text = format!(
            "Cannot discard the saved state as the machine is not in the Saved or Aborted-Saved state (machine state: {})",
            machine.api_state()
        );
        let answer = refused(text, INVALID_VM_STATE, SESSION_MACHINE, DISCARD);
        return Answer { code: 0, ..answer };
    }
    drop_saved_state(machine);
    machine.change(|settings| settings.set("currentStateModified", None));
    machine.set_state("poweroff");
    Answer::silent()
}

/// The file stays as long as a VirtualBox snapshot has it, too.
fn drop_saved_state(machine: &mut Machine) {
    let Some(file) = machine.saved_state.clone() else {
        return;
    };
    machine.change(|settings| settings.set("stateFile", None));
    if !machine.saved_states().contains(&file) {
        let _ = fs::remove_file(file);
    }
}

/// A command that was interrupted while it took a live VirtualBox snapshot.
pub(super) fn cancelled() -> Answer {
    let answer = Answer::error(&[
        "Failed to take snapshot",
        "Failed to save the machine state to '/m/Snapshots/2026-11-21T04-10-38-810948000Z.sav' (VERR_SSM_CANCELLED)",
        "Details: code NS_ERROR_FAILURE (0x80004005), component ConsoleWrap, interface IConsole",
        "Context: \"RTEXITCODE handleSnapshot(HandlerArg*)\" at line 495 of file VBoxManageSnapshot.cpp",
    ]);
    let percent = PROGRESS.split_inclusive("...").next().unwrap_or_default();
    Answer {
        stderr: format!("{percent}CANCELED\n{}", answer.stderr),
        ..answer
    }
}
