//! Machines that VirtualBox knows: by name, in every state, registered again afterwards. The tests
//! in `real_virtualbox` do the same with the real one.

use std::process::Command;

use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, SampleMachine};

use crate::environment::{Environment, MIB, Run};
use crate::json::documented;

/// An environment with a VirtualBox that has the machine "web".
pub struct Computer {
    pub environment: Environment,
    pub virtualbox: FakeVBoxManage,
    pub machine: SampleMachine,
}

impl Computer {
    pub fn new() -> Self {
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

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.command(arguments);
        command.env("VRS_VBOXMANAGE", self.virtualbox.program());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.environment.finish(self.command(arguments))
    }

    #[track_caller]
    pub fn succeeds(&self, arguments: &[&str]) -> String {
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
    machines[].last_snapshot.pinned: boolean
    machines[].last_snapshot.size_bytes: number
    machines[].last_snapshot.tags: array
    machines[].last_snapshot.time: string
    machines[].name: string
    machines[].settings_file: string
    machines[].state: string
    moved: array
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
fn a_running_machine_is_taken_and_not_restored_unless_it_may_be_powered_off() {
    let computer = Computer::new();
    computer.succeeds(&["take", "web"]);
    computer
        .virtualbox
        .set_state(computer.machine.id(), "running");
    for mode in ["--memory", "--live", "--disks-only", "--savestate"] {
        let taken = computer.succeeds(&["take", "web", mode]);
        assert!(taken.contains("\n  captured "), "{taken}");
        let shown = computer
            .virtualbox
            .run(["showvminfo", "web", "--machinereadable"]);
        assert!(shown.contains("VMState=\"running\""), "{mode}");
    }
    insta::assert_snapshot!(computer.run(&["restore", "web@latest", "--yes"]).failure(), @r"
    5
    error: machine 'web' is running, so it cannot be restored now; power it off first, or allow it with --poweroff
    ");
    computer.succeeds(&["restore", "web@latest", "--yes", "--poweroff"]);
}

#[test]
fn an_encrypted_machine_has_a_verdict_instead_of_a_plan() {
    let computer = Computer::new();
    let id = computer.machine.id().to_string();
    let settings = format!(
        r#"<VirtualBox version="1.19-linux"><MachineEncrypted uuid="{{{id}}}" keyId="x" keyStore="eA==">eA==</MachineEncrypted></VirtualBox>"#
    );
    std::fs::write(computer.machine.settings_path(), settings).unwrap();
    let named = id.as_str();
    let file = computer.machine.settings_path();
    let refused = |wanted: &str| {
        let run = computer.run(&["take", wanted, "--dry-run"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        run.stdout.replace(named, "ID")
    };
    let table = refused("web");
    let words: Vec<_> = table.split_whitespace().collect();
    insta::assert_snapshot!(words.join(" "), @"Verdict Of Level Reason encryption FOLDER/machines/web/web.vbox refused VirtualBox encrypted the machine's settings, so that vrs cannot tell which files it has; decrypt it with `VBoxManage encryptvm ID setencryption --old-password FILE`");
    // Once VirtualBox forgot the password, it cannot read the machine either.
    computer
        .virtualbox
        .set_state(computer.machine.id(), "inaccessible");
    assert_eq!(refused(named), table);
    assert_eq!(refused(file.to_str().unwrap()), table);
    let json = computer.run(&["take", named, "--dry-run", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let machine = &json["machines"][0];
    assert_eq!(machine["status"], "failed", "{json}");
    assert_eq!(machine["verdicts"][0]["name"], "encryption", "{json}");
}

#[test]
fn an_encrypted_image_is_warned_of_whether_its_machine_runs_or_not() {
    let computer = Computer::new();
    let path = computer.machine.settings_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let key = r#" type="Normal"><Property name="CRYPT/KeyId" value="x"/></HardDisk>"#;
    let encrypted = text.replacen(r#" type="Normal"/>"#, key, 1);
    assert_ne!(encrypted, text);
    std::fs::write(&path, encrypted).unwrap();
    for state in ["poweroff", "running"] {
        computer.virtualbox.set_state(computer.machine.id(), state);
        let planned = computer.succeeds(&["take", "web", "--dry-run"]);
        let row = planned.lines().find(|line| line.starts_with("encryption"));
        assert!(row.is_some_and(|row| row.contains("warning")), "{planned}");
    }
    computer
        .virtualbox
        .set_state(computer.machine.id(), "poweroff");
    let run = computer.run(&["take", "web"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("keep its password"), "{}", run.stderr);
}

#[test]
fn an_older_virtualbox_that_forgets_zeros_is_warned_of() {
    let computer = Computer::new();
    computer
        .virtualbox
        .set_state(computer.machine.id(), "running");
    let older = FaultKind::Say {
        stdout: "7.0.14r161095\n".to_owned(),
        stderr: String::new(),
        code: 0,
    };
    computer.virtualbox.inject(&Fault::once("--version", older));
    let planned = computer.succeeds(&["take", "web", "--dry-run"]);
    let row = planned.lines().find(|line| line.starts_with("zero-blocks"));
    assert!(
        row.is_some_and(|row| row.contains("7.0.14") && row.contains("warning")),
        "{planned}"
    );
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
    let mut told = String::new();
    for (verb, kind) in faults {
        let what = format!("{verb}: {kind:?}");
        computer.machine.fill(0, 0, MIB, 1);
        computer.virtualbox.inject(&Fault::once(verb, kind));
        let struck = computer.run(&["restore", "web@latest", "--yes"]);
        let is_owed = struck.stderr.contains("run `vrs recover`");
        told += &format!(
            "{what}: {}{}\n",
            struck.code,
            if is_owed { ", owed" } else { "" }
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
    insta::assert_snapshot!(told, @r"
    unregistervm: Fail: 0
    unregistervm: Lie: 1
    unregistervm: CrashBefore: 1
    unregistervm: CrashAfter: 1, owed
    unregistervm: DoneButFails: 1, owed
    unregistervm: Locked: 0
    registervm: Fail: 0
    registervm: Lie: 1, owed
    registervm: CrashBefore: 1, owed
    registervm: CrashAfter: 1, owed
    registervm: DoneButFails: 1, owed
    registervm: Locked: 0
    ");
}

#[test]
fn a_clone_that_cannot_be_finished_can_be_given_up() {
    let computer = Computer::new();
    computer.succeeds(&["take", "web"]);
    let before = computer.listed();
    let fault = Fault::once("registervm", FaultKind::Lie).times(100);
    computer.virtualbox.inject(&fault);
    let clone = computer.run(&["clone", "web@latest", "--name", "two"]);
    assert_eq!(clone.code, 1, "{}", clone.stderr);
    insta::assert_snapshot!(computer.run(&["list"]).stderr, @"note: cloning machine 'two' was interrupted; run `vrs recover`, or `vrs recover --undo` to give it up");
    assert_eq!(computer.run(&["recover"]).code, 4);
    let undo = |options: &[&str]| {
        let mut command = computer.command(&["recover", "--undo"]);
        // Neither the repository nor its password is needed.
        command.env_remove("VRS_REPOSITORY");
        command.env_remove("VRS_PASSWORD").args(options);
        let run = computer.environment.finish(command);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        run.stdout
    };
    let planned = serde_json::from_str(&undo(&["--dry-run", "--json"])).unwrap();
    insta::assert_snapshot!(documented(&planned), @r#"
    operations: array
    operations[].begun: string
    operations[].machine_id: string
    operations[].repository: string
    operations[].status: "owed"
    operations[].title: string
    operations[].undo.put_back: array
    operations[].undo.register: null
    operations[].undo.remove: array
    operations[].undo.remove[]: string
    operations[].undo.unregister: boolean
    type: "recover"
    "#);
    let told = undo(&["--dry-run"]).replace("to be undone", "undone");
    let files = computer.environment.path().join("machines/two");
    assert!(files.is_dir() && told.contains("  remove: FOLDER/machines/two/two.vbox\n"));
    assert_eq!(undo(&[]), told);
    assert!(!files.exists());
    assert_eq!(computer.listed(), before);
    assert_eq!(computer.succeeds(&["recover"]), "nothing is owed\n");
}

/// A VBoxManage that hangs is ended, wherever it does; the next run puts things right.
#[test]
fn a_virtualbox_that_hangs_is_not_waited_for_for_ever() {
    let mut computer = Computer::new();
    computer.environment.write(
        &computer.environment.config_file(),
        "vboxmanage_patience_seconds = 2\n",
    );
    computer.succeeds(&["take", "web"]);
    let before = (computer.machine.guest_bytes(0), computer.listed());
    let restore = ["restore", "web@latest", "--yes"];
    let mut told = String::new();
    for verb in [
        "list vms",
        "showvminfo",
        "list hdds",
        "unregistervm",
        "registervm",
    ] {
        computer.machine.fill(0, 0, MIB, 1);
        computer
            .virtualbox
            .inject(&Fault::once(verb, FaultKind::Hang));
        let hung = computer.run(&restore);
        told += &format!("{verb}: {}", hung.failure());
        let next = computer.run(&restore);
        assert_eq!(next.code, 0, "{verb}: {}", next.stderr);
        let after = (computer.machine.guest_bytes(0), computer.listed());
        assert!(after == before, "{verb}");
        computer.succeeds(&["recover"]);
    }
    let id = computer.machine.id().to_string();
    insta::assert_snapshot!(told.replace(&id, "ID"), @r"
    list vms: 1
    error: VBoxManage list vms did nothing for 2 seconds and was ended; look at the state of the machine in VirtualBox, then try again
    showvminfo: 1
    error: VBoxManage showvminfo ID --machinereadable did nothing for 2 seconds and was ended; look at the state of the machine in VirtualBox, then try again
    list hdds: 1
    error: VBoxManage list hdds --long did nothing for 2 seconds and was ended; look at the state of the machine in VirtualBox, then try again
    unregistervm: 1
    error: VBoxManage unregistervm ID did nothing for 2 seconds and was ended; look at the state of the machine in VirtualBox, then try again
    registervm: 1
    note: restoring machine 'web' was interrupted; run `vrs recover`
    error: VBoxManage registervm FOLDER/machines/web/web.vbox did nothing for 2 seconds and was ended; look at the state of the machine in VirtualBox, then try again
    ");
}
