//! Machines of the real VirtualBox in a borg repository, and ones that the original script stored there.

use std::process::Command;

use vrs_testkit::{REPOSITORY_PASSWORD, Rig, RigMachine, RigMachineKind};

use crate::observed::Observed;
use crate::online::{counting, goes_on};
use crate::vrs::Vrs;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_with_virtualbox_snapshots_comes_back_from_borg() {
    let kind = RigMachineKind::named("VirtualBox snapshots with a branch");
    let rig = Rig::start();
    let machine = (kind.create)(&rig);
    let vrs = Vrs::on_borg(&rig);
    let id = machine.id().to_string();
    let first = Observed::reread(&machine);
    vrs.take(&id, "first");
    Observed::of(&machine).is(&first, "taking a snapshot changes nothing");
    machine.run_guest();
    machine.take_virtualbox_snapshot("later");
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&first, "after the restore");
    vrs.run(["check", "--read-data"]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_goes_on_from_borg_and_from_what_the_script_stored() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::on_borg(&rig);
    let id = machine.id().to_string();
    vrs.run(["take", &id, "--memory", "--name", "first"]);
    goes_on(&machine, "taken");
    store_as_the_script(&vrs, &machine);
    machine.power_off();
    for wanted in ["web@first", "web@latest"] {
        // The script's archive is the latest.
        vrs.run(["restore", wanted, "--yes"]);
        assert_eq!(machine.state(), "saved", "{wanted}");
        let snapshots = machine.virtualbox_snapshots();
        assert!(
            snapshots.contains("does not have any"),
            "{wanted}: {snapshots}"
        );
        let captured = machine.last_round().unwrap();
        machine.start_counting();
        let counts = machine.counts().unwrap();
        assert!(
            counts.go_on_from(captured),
            "{wanted}: {counts:?} from {captured}"
        );
        machine.power_off();
    }
}

/// A live VirtualBox snapshot, the folder, and the VirtualBox snapshot is deleted.
fn store_as_the_script(vrs: &Vrs<'_>, machine: &RigMachine<'_>) {
    machine.call("snapshot", &["take", "vrs-temp", "--live"]);
    let repository = vrs.repository();
    let repository = repository.to_str().unwrap().strip_prefix("borg:").unwrap();
    let output = Command::new("borg")
        .args([
            "create",
            &format!("{repository}::web-2026-11-26T21:00-online"),
        ])
        .arg(machine.folder())
        .envs(vrs.folders())
        .env("BORG_PASSPHRASE", REPOSITORY_PASSWORD)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // 1: a file of the running machine changed, which is no part of what is frozen.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{stderr}");
    machine.call("snapshot", &["delete", "vrs-temp"]);
}
