//! One call of the fake: what is asked for, and whether it goes wrong.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::answer::{Answer, FAILURE};
use super::fault::{self, FaultKind};
use super::registry::{self, Registry};
use super::{media, virtual_machine};

/// Where calls are written down.
pub(super) const CALLS: &str = "calls.log";
const VERSION: &str = "7.2.22_Debianr175245\n";

/// Executes the call with these arguments in the fake whose folder is `home`.
#[must_use]
pub fn run(home: &Path, arguments: &[String]) -> Answer {
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
        FaultKind::Replace { from, to } => replace(answer(home, arguments), &from, &to),
    }
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
        "Context: \"LockMachine(a->session, LockType_Shared)\" at line 350 of file VBoxManageSnapshot.cpp",
    ])
}

fn answer(home: &Path, arguments: &[String]) -> Answer {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Registry::change(home, |registry| match words[..] {
        ["--version" | "-v"] => Answer::prints(VERSION.to_owned()),
        ["list", "vms"] => virtual_machine::list(registry, false),
        ["list", "vms", "--long"] => virtual_machine::list_long(registry),
        ["list", "runningvms"] => virtual_machine::list(registry, true),
        ["list", "hdds"] => media::list(registry, false),
        ["list", "hdds", "--long"] | ["list", "--long" | "-l", "hdds"] => {
            media::list(registry, true)
        }
        ["showvminfo", machine, "--machinereadable"] => virtual_machine::show(registry, machine),
        ["showmediuminfo", "disk", medium] => media::show(registry, medium),
        ["registervm", path] => virtual_machine::register(registry, path),
        ["unregistervm", machine] => virtual_machine::unregister(registry, machine),
        ["closemedium", "disk", medium] => media::close(registry, medium, false),
        ["closemedium", "disk", medium, "--delete"] => media::close(registry, medium, true),
        ["controlvm", machine, "poweroff"] => virtual_machine::power_off(registry, machine),
        ["startvm", machine, "--type", kind] => virtual_machine::start(registry, machine, kind),
        ["snapshot", machine, "list", "--machinereadable"] => {
            virtual_machine::virtualbox_snapshots(registry, machine)
        }
        ["internalcommands", "sethduuid", path] => media::set_own_uuid(path, None),
        ["internalcommands", "sethduuid", path, id] => media::set_own_uuid(path, Some(id)),
        ["internalcommands", "sethdparentuuid", path, id] => media::set_parent_uuid(path, id),
        _ => Answer {
            code: 99,
            ..Answer::error(&[&format!("the fake does not know the call {words:?}")])
        },
    })
}
