//! Machines that VirtualBox knows: by name, in every state, registered again afterwards. The tests
//! in `real_virtualbox` do the same with the real one.

use std::process::Command;

use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, SampleMachine};

use crate::environment::{Environment, MIB, Run};
use crate::json::documented;

/// An environment with a VirtualBox that has the machine "web".
struct Computer {
    environment: Environment,
    virtualbox: FakeVBoxManage,
    machine: SampleMachine,
}

impl Computer {
    fn new() -> Self {
        let environment = Environment::with_repository();
        let virtualbox = FakeVBoxManage::new();
        let machine = environment.machine("web", 2 * MIB);
        virtualbox.register(&machine.settings_path());
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

    fn run(&self, arguments: &[&str]) -> Run {
        self.environment.finish(self.command(arguments))
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    }

    fn listed(&self) -> String {
        self.virtualbox.run(["list", "vms"])
    }
}

#[test]
fn machines_are_listed_with_their_last_snapshot() {
    let computer = Computer::new();
    computer.succeeds(&["take", "web", "--name", "clean"]);
    let vms = computer.succeeds(&["vms"]);
    assert!(
        vms.starts_with("Machine  State     Last snapshot") && vms.contains(" (clean)  FOLDER"),
        "{vms}"
    );
    let json = serde_json::from_str(&computer.succeeds(&["vms", "--json"])).unwrap();
    insta::assert_snapshot!(documented(&json), @r#"
    machines: array
    machines[].id: string
    machines[].last_snapshot.added_bytes: number
    machines[].last_snapshot.description: null
    machines[].last_snapshot.hostname: string
    machines[].last_snapshot.id: string
    machines[].last_snapshot.machine_id: string
    machines[].last_snapshot.machine_name: string
    machines[].last_snapshot.name: string
    machines[].last_snapshot.size_bytes: number
    machines[].last_snapshot.tags: array
    machines[].last_snapshot.time: string
    machines[].name: string
    machines[].settings_file: string
    machines[].state: string
    type: "machines"
    "#);
}

#[test]
fn a_machine_is_restored_and_registered_again() {
    let mut computer = Computer::new();
    computer.succeeds(&["take", "--all"]);
    let before = (computer.machine.guest_bytes(0), computer.listed());
    computer.machine.fill(0, 0, MIB, 1);
    computer.succeeds(&["restore", "web@latest", "--yes"]);
    assert_eq!((computer.machine.guest_bytes(0), computer.listed()), before);
    computer.succeeds(&["clone", "web@latest", "--name", "two"]);
    assert_eq!(computer.listed().lines().count(), 2);
}

#[test]
fn a_running_machine_is_left_alone_unless_it_may_be_powered_off() {
    let computer = Computer::new();
    computer.succeeds(&["take", "web"]);
    computer
        .virtualbox
        .set_state(computer.machine.id(), "running");
    insta::assert_snapshot!(computer.run(&["take", "web"]).failure(), @r"
    1
    error: machine 'web' is running, so it cannot be taken now; power it off or save its state first
    ");
    insta::assert_snapshot!(computer.run(&["restore", "web@latest", "--yes"]).failure(), @r"
    1
    error: machine 'web' is running, so it cannot be restored now; power it off first, or allow it with --poweroff
    ");
    computer.succeeds(&["restore", "web@latest", "--yes", "--poweroff"]);
}

#[test]
fn what_virtualbox_said_is_shown_on_request() {
    let computer = Computer::new();
    computer.succeeds(&["take", "web"]);
    let fault = Fault::once("unregistervm", FaultKind::Fail).times(100);
    computer.virtualbox.inject(&fault);
    let run = computer.run(&["restore", "web@latest", "--yes", "-v"]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(run.stderr.contains("\n  VirtualBox: "), "{}", run.stderr);
}

/// Each is over with the run that it strikes; the next one finishes what is owed.
#[test]
fn what_goes_wrong_inside_virtualbox_is_told_and_mended_by_the_next_run() {
    let mut computer = Computer::new();
    computer.succeeds(&["take", "web"]);
    let before = (computer.machine.guest_bytes(0), computer.listed());
    let faults = [
        ("unregistervm", FaultKind::Fail),
        ("unregistervm", FaultKind::Lie),
        ("unregistervm", FaultKind::CrashBefore),
        ("unregistervm", FaultKind::CrashAfter),
        ("unregistervm", FaultKind::DoneButFails),
        ("unregistervm", FaultKind::Locked),
        ("registervm", FaultKind::Fail),
        ("registervm", FaultKind::Lie),
        ("registervm", FaultKind::CrashBefore),
        ("registervm", FaultKind::CrashAfter),
        ("registervm", FaultKind::DoneButFails),
        ("registervm", FaultKind::Locked),
    ];
    for (verb, kind) in faults {
        let what = format!("{verb}: {kind:?}");
        computer.machine.fill(0, 0, MIB, 1);
        computer.virtualbox.inject(&Fault::once(verb, kind));
        let struck = computer.run(&["restore", "web@latest", "--yes"]);
        assert!(
            [0, 1, 3, 4, 5].contains(&struck.code),
            "{what}: {}",
            struck.stderr
        );
        assert_eq!(
            [0, 3].contains(&struck.code),
            !struck.stderr.contains("error: "),
            "{what}"
        );
        let next = computer.run(&["restore", "web@latest", "--yes"]);
        assert_eq!(next.code, 0, "{what}: {}{}", struck.stderr, next.stderr);
        assert!(
            (computer.machine.guest_bytes(0), computer.listed()) == before,
            "{what}"
        );
        computer.succeeds(&["recover"]);
    }
}
