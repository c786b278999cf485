//! One call of the fake: what is asked for, and whether it goes wrong.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::answer::{Answer, FAILURE};
use super::fault::{self, FaultKind};
use super::registry::{self, Registry};
use super::snapshots::{self, Take};
use super::{execution, extra_data, media, snapshot_deletion, snapshot_restoring, virtual_machine};

/// Where calls are written down.
pub(super) const CALLS: &str = "calls.log";
/// Where a process is told to complete a call: after how many milliseconds, in which state.
const LEFT_TO_ME: &str = "FAKE_VBOX_LEFT_TO_ME";
/// Where the fake says that new machines go.
const MACHINES: &str = "VirtualBox VMs";
const VERSION: &str = "7.2.22_Debianr175245\n";

/// Executes the call with these arguments in the fake whose folder is `home`.
#[must_use]
pub fn run(home: &Path, arguments: &[String]) -> Answer {
    if let Ok(left) = env::var(LEFT_TO_ME) {
        return complete(home, arguments, &left);
    }
    let call = arguments.join(" ");
    note(home, &call);
    match fault::strike(home, &call) {
        None => answer(home, arguments),
        Some(kind) => go_wrong(home, arguments, kind),
    }
}

fn note(home: &Path, call: &str) {
    let _lock = registry::lock(home);
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(home.join(CALLS))
        .expect("the log of calls");
    writeln!(log, "{}", call.replace('\n', " ")).expect("room for the log of calls");
}

fn go_wrong(home: &Path, arguments: &[String], kind: FaultKind) -> Answer {
    match kind {
        FaultKind::Hang => loop {
            thread::park();
        },
        FaultKind::DelayMillis(milliseconds) => {
            thread::sleep(Duration::from_millis(milliseconds));
            answer(home, arguments)
        }
        FaultKind::Fail => failure(),
        FaultKind::Locked => virtual_machine::locked("m"),
        FaultKind::Lie => Answer::silent(),
        FaultKind::DoneButFails => {
            answer(home, arguments);
            failure()
        }
        FaultKind::CrashBefore => std::process::abort(),
        FaultKind::CrashAfter => {
            answer(home, arguments);
            std::process::abort()
        }
        FaultKind::Say {
            stdout,
            stderr,
            code,
        } => Answer {
            stdout,
            stderr,
            code,
        },
        FaultKind::MachineDies => Registry::change(home, |registry| {
            snapshots::die_while_taking(registry, machine_of(arguments))
        }),
        FaultKind::ServiceRestarts => {
            Registry::change(home, Registry::read_anew);
            answer(home, arguments)
        }
        FaultKind::Slow {
            state,
            milliseconds,
        } => slowly(home, arguments, &state, milliseconds),
        FaultKind::CrashMeanwhile {
            state,
            milliseconds,
        } => leave_to_another(home, arguments, &state, milliseconds),
        FaultKind::Replace { from, to } => replace(answer(home, arguments), &from, &to),
    }
}

fn machine_of(arguments: &[String]) -> &str {
    arguments.get(1).map_or("", String::as_str)
}

/// Puts the machine that a call is about into another state; tells the one before.
fn put_into_state(home: &Path, arguments: &[String], state: &str) -> String {
    Registry::change(home, |registry| exchange_state(registry, arguments, state))
}

fn exchange_state(registry: &mut Registry, arguments: &[String], state: &str) -> String {
    let machine = registry.find(machine_of(arguments));
    let machine = machine.expect("a registered machine");
    let before = machine.state.clone();
    machine.put_into_state(state);
    before
}

fn slowly(home: &Path, arguments: &[String], state: &str, milliseconds: u64) -> Answer {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).expect("no other handler");
    let before = put_into_state(home, arguments, state);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(milliseconds) {
        if interrupted.load(Ordering::Relaxed) {
            put_into_state(home, arguments, &before);
            return execution::cancelled();
        }
        thread::sleep(Duration::from_millis(10));
    }
    answer_in_state(home, arguments, &before)
}

/// Starts a process that completes the call, and crashes.
fn leave_to_another(home: &Path, arguments: &[String], state: &str, milliseconds: u64) -> ! {
    let before = put_into_state(home, arguments, state);
    let program = env::current_exe().expect("the fake's program");
    let mut other = Command::new(program);
    other
        .args(arguments)
        .env("FAKE_VBOX_HOME", home)
        .env(LEFT_TO_ME, format!("{milliseconds} {before}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    other.spawn().expect("the fake starts");
    std::process::abort()
}

/// Completes a call that another process left to this one.
fn complete(home: &Path, arguments: &[String], left: &str) -> Answer {
    let (milliseconds, state) = left.split_once(' ').expect("a time and a state");
    let milliseconds = milliseconds.parse().expect("a number");
    thread::sleep(Duration::from_millis(milliseconds));
    answer_in_state(home, arguments, state)
}

fn replace(answer: Answer, from: &str, to: &str) -> Answer {
    Answer {
        stdout: answer.stdout.replace(from, to),
        stderr: answer.stderr.replace(from, to),
        ..answer
    }
}

fn failure() -> Answer {
    Answer::error(&[
        &format!("Code {FAILURE} - Operation failed (extended info not available)"),
        &format!("Context: {}", snapshots::LOCK),
    ])
}

fn answer(home: &Path, arguments: &[String]) -> Answer {
    Registry::change(home, |registry| answer_of(registry, home, arguments))
}

/// Answers a call for which the machine was in another state. Nobody sees it in between.
fn answer_in_state(home: &Path, arguments: &[String], state: &str) -> Answer {
    Registry::change(home, |registry| {
        exchange_state(registry, arguments, state);
        answer_of(registry, home, arguments)
    })
}

fn answer_of(registry: &mut Registry, home: &Path, arguments: &[String]) -> Answer {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--version" | "-v"] => Answer::prints(VERSION.to_owned()),
        ["list", "vms"] => virtual_machine::list(registry, false),
        ["list", "vms", "--long"] => virtual_machine::list_long(registry),
        ["list", "runningvms"] => virtual_machine::list(registry, true),
        ["list", "bridgedifs"] => Answer::prints("Name:            fake0\n\n".to_owned()),
        ["list", "systemproperties"] => Answer::prints(format!(
            "Default machine folder:          {}\n",
            home.join(MACHINES).display()
        )),
        ["list", "extpacks"] => Answer::prints("Extension Packs: 0\n".to_owned()),
        ["list", "hdds"] => media::list(registry, false),
        ["list", "hdds", "--long"] | ["list", "--long" | "-l", "hdds"] => {
            media::list(registry, true)
        }
        ["snapshot", machine, ..] if registry.is_inaccessible(machine) => {
            virtual_machine::limited(snapshots::LOCK)
        }
        ["showvminfo", machine, "--machinereadable"] => virtual_machine::show(registry, machine),
        ["showmediuminfo", "disk", medium] => media::show(registry, medium),
        ["registervm", path] => virtual_machine::register(registry, path),
        ["unregistervm", machine] => virtual_machine::unregister(registry, machine),
        ["closemedium", "disk", medium] => media::close(registry, medium, false),
        ["closemedium", "disk", medium, "--delete"] => media::close(registry, medium, true),
        [
            "controlvm",
            machine,
            action @ ("pause" | "resume" | "savestate" | "poweroff" | "reset"),
        ] => execution::control(registry, machine, action),
        ["startvm", machine, "--type", kind] => execution::start(registry, machine, kind),
        ["discardstate", machine] => execution::discard_state(registry, machine),
        ["getextradata", machine, key] => extra_data::get(registry, machine, key),
        ["setextradata", machine, key] => extra_data::set(registry, machine, key, ""),
        ["setextradata", machine, key, value] => extra_data::set(registry, machine, key, value),
        ["snapshot", machine, "list", "--machinereadable"] => snapshots::list(registry, machine),
        ["snapshot", machine, "take", name, ref options @ ..]
            if let Some(take) = Take::parse(name, options) =>
        {
            snapshots::take(registry, machine, take)
        }
        ["snapshot", machine, "delete", snapshot] => {
            snapshot_deletion::delete(registry, machine, snapshot)
        }
        ["snapshot", machine, "restore", snapshot] => {
            snapshot_restoring::restore(registry, machine, snapshot)
        }
        ["internalcommands", "sethduuid", path] => media::set_own_uuid(path, None),
        ["internalcommands", "sethduuid", path, id] => media::set_own_uuid(path, Some(id)),
        ["internalcommands", "sethdparentuuid", path, id] => media::set_parent_uuid(path, id),
        _ => Answer {
            code: 99,
            ..Answer::error(&[&format!("the fake does not know the call {words:?}")])
        },
    }
}
