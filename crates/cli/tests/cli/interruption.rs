//! Ctrl-C, and what a killed restore leaves.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, SampleMachine};

use crate::environment::{Environment, MIB, settings};

/// Starts `vrs --json` and waits until it is in the phase `name`.
fn start(environment: &Environment, arguments: &[&str], name: &str) -> Child {
    start_command(environment.command(arguments), name)
}

fn start_command(mut command: Command, name: &str) -> Child {
    let mut child = command
        .arg("--json")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stderr.take().unwrap()).lines();
    let wanted = format!(r#"{{"type":"phase","name":"{name}""#);
    let found = events.any(|line| line.unwrap().starts_with(&wanted));
    assert!(found, "there was no phase {name}");
    // Read on, or the child would stop at a full pipe.
    std::thread::spawn(move || events.for_each(drop));
    child
}

pub fn send(signal: &str, child: &Child) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill {signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn ctrl_c_stops_a_take_and_the_next_one_goes_on() {
    let environment = Environment::with_repository();
    let machine = environment.machine("web", 64 * MIB);
    let mut child = start(&environment, &["take", &settings(&machine)], "reading");
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(environment.succeeds(&["list"]), "0 snapshots\n");
    environment.succeeds(&["take", &settings(&machine)]);
}

/// A machine that runs in a VirtualBox.
struct Running {
    environment: Environment,
    virtualbox: FakeVBoxManage,
    machine: SampleMachine,
}

impl Running {
    fn new() -> Self {
        let environment = Environment::with_repository();
        let machine = environment.machine("web", 64 * MIB);
        let virtualbox = FakeVBoxManage::new();
        virtualbox.register(&machine.settings_path());
        virtualbox.run(["startvm", "web", "--type", "headless"]);
        Self {
            environment,
            virtualbox,
            machine,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.command(arguments);
        command.env("VRS_VBOXMANAGE", self.virtualbox.program());
        command
    }

    /// As if nothing had been done to it.
    #[track_caller]
    fn goes_on(&self) {
        assert_eq!(self.virtualbox.state(self.machine.id()), "running");
        let listed = self
            .virtualbox
            .output(["snapshot", "web", "list", "--machinereadable"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("does not have any snapshots"), "{listed}");
    }
}

#[test]
fn ctrl_c_lets_a_running_machine_go() {
    let running = Running::new();
    let mut child = start_command(running.command(&["take", "web"]), "reading");
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    running.goes_on();
    let run = |arguments: &[&str]| running.environment.finish(running.command(arguments));
    assert_eq!(run(&["recover"]).stdout, "nothing is owed\n");
    assert_eq!(run(&["list"]).stdout, "0 snapshots\n");
}

/// VirtualBox goes on with the merge meanwhile.
#[test]
fn a_second_ctrl_c_leaves_a_journal() {
    let running = Running::new();
    let slow = FaultKind::Slow {
        state: "deletingsnapshotlive".to_owned(),
        milliseconds: 10_000,
    };
    let merge = format!("snapshot {} delete", running.machine.id());
    running.virtualbox.inject(&Fault::once(&merge, slow));
    let mut child = start_command(running.command(&["take", "web"]), "merging");
    while running.virtualbox.state(running.machine.id()) != "deletingsnapshotlive" {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before the merge"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // Two of them may come as one.
    while child.try_wait().unwrap().is_none() {
        send("-INT", &child);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run = |arguments: &[&str]| running.environment.finish(running.command(arguments));
    assert!(run(&["recover", "--dry-run"]).stdout.contains("web"));
    let recovered = run(&["recover"]);
    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    running.goes_on();
}

/// A machine with the snapshots `first` and `second`, the restore of the first of which was killed,
/// and the disk it had then.
fn with_killed_restore() -> (Environment, SampleMachine, Vec<u8>) {
    const DISK_BYTES: usize = 32 * MIB;
    let environment = Environment::with_repository();
    let mut machine = environment.machine("web", DISK_BYTES);
    environment.succeeds(&["take", &settings(&machine), "--name", "first"]);
    let wanted = machine.guest_bytes(0);
    machine.fill(0, 0, DISK_BYTES, 1);
    environment.succeeds(&["take", &settings(&machine), "--name", "second"]);
    let mut child = start(
        &environment,
        &["restore", "web@first", "--yes"],
        "restoring",
    );
    send("-KILL", &child);
    child.wait().unwrap();
    (environment, machine, wanted)
}

#[test]
fn a_killed_restore_is_owed_until_it_is_recovered() {
    let (environment, machine, wanted) = with_killed_restore();
    let list = environment.run(&["list"]);
    assert_eq!(list.code, 0);
    insta::assert_snapshot!(list.stderr, @"note: restoring machine 'web' was interrupted; run `vrs recover`");
    insta::assert_snapshot!(environment.run(&["restore", "web@second", "--yes"]).failure(), @r"
    4
    note: restoring machine 'web' was interrupted; run `vrs recover`
    error: restoring machine 'web' was interrupted; run `vrs recover` to finish it first
    hint: `vrs recover --dry-run` shows what is owed
    ");
    let owed = environment.json(&["recover", "--dry-run"]);
    assert_eq!(owed["operations"][0]["status"], "owed");

    // The journal knows the repository.
    let mut recover = environment.command(&["recover", "web"]);
    recover.env_remove("VRS_REPOSITORY");
    let recovered = environment.finish(recover);
    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    assert!(
        recovered.stdout.ends_with(": finished\n"),
        "{}",
        recovered.stdout
    );
    assert_eq!(machine.guest_bytes(0), wanted);
    assert_eq!(environment.succeeds(&["recover"]), "nothing is owed\n");
    environment.succeeds(&["take", &settings(&machine)]);
}

#[test]
fn the_same_restore_finishes_a_killed_one() {
    let (environment, machine, wanted) = with_killed_restore();
    let run = environment.run(&["restore", "web@first", "--yes"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.ends_with(": finished\n"), "{}", run.stdout);
    assert_eq!(machine.guest_bytes(0), wanted);
    assert_eq!(environment.succeeds(&["recover"]), "nothing is owed\n");
}
