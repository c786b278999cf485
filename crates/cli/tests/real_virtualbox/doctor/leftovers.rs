//! What was begun and not finished, or looks like it.

use std::fs;

use vrs_testkit::Rig;

use super::ward::Ward;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_a_cut_restore_left_is_shown() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine.write_vdi("SATA", 0, 3, 5);
    let restore = ["restore", &format!("{}@first", ward.id()), "--yes"];
    let journal = ward
        .vrs
        .state()
        .join(format!("journal/{}.journal", ward.id()));
    let is_set_aside =
        || fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"set-aside\""));
    // A restore may be over before it is seen at this step.
    let is_cut = (0..8).any(|_| {
        let mut child = ward.vrs.command(restore).spawn().unwrap();
        while !is_set_aside() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let _ = child.kill();
        child.wait().unwrap();
        !rig.run(["list", "vms"]).contains(&ward.id())
    });
    assert!(is_cut, "every restore ended before it could be killed");
    ward.finds(&["unfinished"]);
    ward.vrs.run(["recover"]);
    ward.finds(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn the_key_of_stateless_snapshots_is_removed_only_with_consent() {
    const KEY: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    rig.run(["setextradata", &ward.id(), KEY, "1"]);
    // VirtualBox snapshots of the running machine are silently without its memory.
    ward.machine.start_guest();
    ward.machine.call("controlvm", &["pause"]);
    ward.machine.take_virtualbox_snapshot("no memory");
    ward.machine.call("controlvm", &["poweroff"]);
    let settings = fs::read_to_string(ward.machine.settings_path()).unwrap();
    assert!(!settings.contains("stateFile"), "{settings}");
    assert_eq!(ward.unallowed(), ["stateless_snapshots"]);
    ward.repair(&[&format!("stateless_snapshots:{}", ward.id())]);
    assert!(
        rig.run(["getextradata", &ward.id(), KEY])
            .contains("No value set")
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_virtualbox_snapshot_that_only_looks_like_ours_is_shown_and_left() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine
        .take_virtualbox_snapshot("vrs transient 1c2b5be6-7f0e-4a7a-8d3c-3f6c5b1f2a10");
    let snapshots = ward.machine.virtualbox_snapshots();
    assert_eq!(ward.unallowed(), ["transient_snapshot"]);
    assert_eq!(ward.machine.virtualbox_snapshots(), snapshots);
}
