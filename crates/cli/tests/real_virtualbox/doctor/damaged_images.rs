//! Images whose bytes are wrong.

use std::fs;

use vrs_testkit::{Rig, random_bytes, sha256};

use super::ward::{Ward, overwrite};
use crate::machines::plain;
use crate::vrs::Vrs;

/// Where the block map of VirtualBox's images begins.
const MAP_OFFSET: u64 = 1 << 20;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_header_comes_from_the_repository_and_costs_nothing() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    // The disk grows after the snapshot.
    ward.machine.write_vdi("SATA", 0, 3, 5);
    let before = ward.guest_sha256s();
    overwrite(&ward.disk(), 0, &random_bytes(1, 512));
    ward.does_not_start("VERR_VD_VDI_INVALID_HEADER");
    ward.finds(&["image_damaged"]);
    let told = ward.repair(&[]);
    assert!(told.contains("nothing is lost"), "{told}");
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_block_map_comes_from_the_repository() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let before = ward.guest_sha256s();
    for (garbage, what) in [(random_bytes(2, 512), "noise"), (vec![0; 16], "zeros")] {
        overwrite(&ward.disk(), MAP_OFFSET, &garbage);
        // VirtualBox does not look at the map; reading the disk fails or gives other bytes.
        let raw = rig.folder().join(format!("{what}.raw"));
        let disk = ward.disk();
        let arguments = [
            "clonemedium",
            "disk",
            disk.to_str().unwrap(),
            raw.to_str().unwrap(),
            "--format",
            "RAW",
        ];
        let read = rig.output(arguments);
        let bytes = fs::read(&raw).unwrap_or_default();
        assert!(
            !read.status.success() || sha256(&bytes) != before[0].1,
            "{what}"
        );
        if read.status.success() {
            rig.run(["closemedium", "disk", raw.to_str().unwrap(), "--delete"]);
        }
        ward.finds(&["image_damaged"]);
        ward.repair(&[]);
        assert_eq!(ward.guest_sha256s(), before, "{what}");
    }
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn blocks_that_cannot_be_placed_are_given_up_only_with_consent() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let first = ward.guest_sha256s();
    ward.machine.write_vdi("SATA", 0, 3, 5);
    overwrite(&ward.disk(), MAP_OFFSET, &random_bytes(3, 512));
    let damaged = fs::read(ward.disk()).unwrap();
    let complaint = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(complaint.status.code(), Some(4));
    let told = String::from_utf8(complaint.stdout).unwrap();
    assert!(
        told.contains("1 block that the guest wrote since cannot be placed"),
        "{told}"
    );
    assert!(
        fs::read(ward.disk()).unwrap() == damaged,
        "nothing was done"
    );
    let medium = ward.machine.attached("SATA", 0).unwrap();
    ward.repair(&[&format!("image_damaged:{medium}")]);
    assert_eq!(ward.guest_sha256s(), first);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_count_of_blocks_that_is_too_low_needs_no_repository() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let (before, whole) = (ward.guest_sha256s(), fs::read(ward.disk()).unwrap());
    // VirtualBox would put the next new block over an old one.
    overwrite(&ward.disk(), 388, &[0; 4]);
    let mut command = ward.vrs.command(["doctor", "--repair", "--yes"]);
    let output = command.env_remove("VRS_REPOSITORY").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("only the count of stored blocks is wrong"),
        "{told}"
    );
    assert!(fs::read(ward.disk()).unwrap() == whole);
    assert_eq!(ward.guest_sha256s(), before);
    ward.finds(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_wrong_parent_in_a_header_is_put_right_by_the_registry() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let vrs = Vrs::new(&rig);
    let ward = Ward {
        rig: &rig,
        machine,
        vrs,
    };
    let before = ward.guest_sha256s();
    overwrite(
        &ward.machine.attached_path("SATA", 0),
        424,
        &random_bytes(4, 16),
    );
    // As soon as anybody looks at the images, VirtualBox refuses the machine.
    assert!(rig.run(["list", "hdds", "--long"]).contains("inaccessible"));
    ward.does_not_start("Parent UUID");
    ward.finds(&["parent_mismatch"]);
    ward.repair(&[]);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_file_that_virtualbox_does_not_open_is_shown() {
    let rig = Rig::start();
    let ward = Ward::of(&rig, {
        let machine = plain(&rig, "web");
        machine.add_disk(1, "data.vmdk", "VMDK", "Standard");
        machine
    });
    overwrite(
        &ward.machine.folder().join("data.vmdk"),
        0,
        &random_bytes(5, 512),
    );
    ward.does_not_start("");
    assert_eq!(ward.unallowed(), ["image_inaccessible"]);
}
