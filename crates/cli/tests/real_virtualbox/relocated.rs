//! Restoring a machine that is not where and what it was when the snapshot was taken.

use std::fs;

use vrs_testkit::{Rig, RigMachine};

use crate::machines::branched;
use crate::observed::Observed;
use crate::vrs::Vrs;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_deleted_machine_comes_back() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let before = Observed::reread(&machine);
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    rig.run(["unregistervm", &id, "--delete-all"]);
    assert!(!machine.settings_path().exists());
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&before, "after the restore");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn an_unregistered_machine_whose_files_are_there_comes_back() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let before = Observed::reread(&machine);
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    rig.run(["unregistervm", &id]);
    fs::remove_file(machine.folder().join("disk.vdi")).unwrap();
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&before, "after the restore");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn other_virtualbox_snapshots_give_way() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let before = Observed::reread(&machine);
    let differencing = fs::read_dir(machine.folder().join("Snapshots"))
        .unwrap()
        .count();
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    let second = machine.info("SnapshotUUID-1").unwrap();
    machine.call("snapshot", &["delete", &second]);
    machine.take_virtualbox_snapshot("another");
    machine.run_guest();
    machine.take_virtualbox_snapshot("and another");
    vrs.restore(&id, "first");
    Observed::of(&machine).is(&before, "after the restore");
    let left = fs::read_dir(machine.folder().join("Snapshots")).unwrap();
    assert_eq!(left.count(), differencing);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_renamed_machine_gets_its_name_and_content_back() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let (hashes, snapshots) = (machine.guest_sha256s(), machine.virtualbox_snapshots());
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    machine.modify(&["--name", "renamed"]);
    vrs.restore(&id, "first");
    let restored = RigMachine::registered(&rig, machine.id());
    assert_eq!(restored.info("name"), Some("branched".to_owned()));
    assert_eq!(restored.guest_sha256s(), hashes);
    assert_eq!(restored.virtualbox_snapshots(), snapshots);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_moved_machine_is_restored_where_it_is_now() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let (hashes, snapshots) = (machine.guest_sha256s(), machine.virtualbox_snapshots());
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    let elsewhere = rig.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    machine.call("movevm", &["--folder", elsewhere.to_str().unwrap()]);
    RigMachine::registered(&rig, machine.id()).run_guest();
    vrs.restore(&id, "first");
    let restored = RigMachine::registered(&rig, machine.id());
    assert_eq!(restored.guest_sha256s(), hashes);
    assert_eq!(restored.virtualbox_snapshots(), snapshots);
    assert!(restored.settings_path().starts_with(&elsewhere));
}
