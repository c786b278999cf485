//! Images whose file is gone.

use std::fs;

use vrs_testkit::Rig;

use super::ward::Ward;
use crate::machines::plain;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_link_of_a_chain_comes_from_the_repository() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    machine.take_virtualbox_snapshot("two");
    let link = machine.attached_path("SATA", 0);
    let ward = Ward::of(&rig, machine);
    let middle = fs::read_dir(ward.machine.folder().join("Snapshots")).unwrap();
    let mut middle = middle
        .map(|entry| entry.unwrap().path())
        .filter(|path| *path != link);
    let middle = middle.next().unwrap();
    ward.runs();
    let before = ward.guest_sha256s();
    fs::remove_file(&middle).unwrap();
    let complaint = ward.refused(&["snapshot", &ward.id(), "take", "three"]);
    assert!(complaint.contains("VERR_FILE_NOT_FOUND"), "{complaint}");
    ward.finds(&["image_missing"]);
    let told = ward.repair(&[]);
    assert!(told.contains("nothing is lost"), "{told}");
    assert_eq!(ward.guest_sha256s(), before);
    ward.machine.take_virtualbox_snapshot("three");
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_image_that_was_written_to_comes_back_as_it_was_stored() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let ward = Ward::of(&rig, machine);
    let stored = ward.guest_sha256s();
    let leaf = ward.machine.attached_path("SATA", 0);
    ward.machine.write_vdi("SATA", 0, 3, 5);
    fs::remove_file(&leaf).unwrap();
    ward.does_not_start("");
    let told = ward.repair(&[]);
    assert!(
        told.contains("what the guest wrote to it later is lost"),
        "{told}"
    );
    assert_eq!(ward.guest_sha256s(), stored);
    // One that others are based on by now fits them no more, so it is not put there unasked.
    ward.machine.take_virtualbox_snapshot("two");
    ward.runs();
    fs::remove_file(&leaf).unwrap();
    let told = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(told.status.code(), Some(4));
    assert!(!leaf.exists());
    let medium = leaf.file_stem().unwrap().to_str().unwrap();
    ward.repair(&[&format!(
        "image_missing:{}",
        medium.trim_matches(['{', '}'])
    )]);
    ward.runs();
}
