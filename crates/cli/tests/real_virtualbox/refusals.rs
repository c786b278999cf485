//! What vrs does not do, and that nothing is changed then.

use vrs_testkit::Rig;

use crate::machines::{branched, plain};
use crate::observed::Observed;
use crate::vrs::Vrs;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_is_not_restored_unless_told() {
    let rig = Rig::start();
    let machine = plain(&rig, "m");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let before = Observed::reread(&machine);
    vrs.take(&id, "first");
    machine.start_guest();
    let complaint = vrs.fail(5, ["restore", &format!("{id}@first"), "--yes"]);
    assert!(complaint.contains("--poweroff"), "{complaint}");
    assert_eq!(machine.state(), "running");
    vrs.run(["restore", &format!("{id}@first"), "--yes", "--poweroff"]);
    Observed::of(&machine).is(&before, "after the restore");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_base_image_of_a_linked_clone_is_not_changed_under_it() {
    let rig = Rig::start();
    let original = plain(&rig, "original");
    let vrs = Vrs::new(&rig);
    let id = original.id().to_string();
    vrs.take(&id, "first");
    original.run_guest();
    let snapshot = original.take_virtualbox_snapshot("base");
    let clone = original.linked_clone(snapshot, "linked");
    let (before, clone_before) = (Observed::reread(&original), Observed::reread(&clone));
    let complaint = vrs.fail(1, ["restore", &format!("{id}@first"), "--yes"]);
    assert!(
        complaint.contains("linked") && complaint.contains("vrs clone"),
        "{complaint}"
    );
    Observed::of(&original).is(&before, "the original");
    Observed::of(&clone).is(&clone_before, "the linked clone");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_dry_run_changes_nothing() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    machine.run_guest();
    let before = Observed::reread(&machine);
    vrs.run(["take", &id, "--dry-run"]);
    vrs.run(["restore", &format!("{id}@first"), "--dry-run"]);
    vrs.run(["clone", &format!("{id}@first"), "--name", "x", "--dry-run"]);
    Observed::of(&machine).is(&before, "after the dry runs");
    assert_eq!(rig.run(["list", "vms"]).lines().count(), 1);
    assert_eq!(vrs.run(["list"]).matches("first").count(), 1);
}
