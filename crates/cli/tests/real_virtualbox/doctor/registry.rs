//! What VirtualBox's registry has too much, or twice.

use std::fs;

use vrs_testkit::{Rig, RigMachine};
use vrs_vdisk::VdiHeader;

use super::ward::Ward;
use crate::machines::plain;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn registry_entries_without_a_file_are_closed() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let folder = rig.folder().join("loose disks");
    fs::create_dir(&folder).unwrap();
    let create = |name: &str, more: &[&str]| {
        let path = folder.join(name);
        let file = path.to_str().unwrap();
        let create = ["createmedium", "disk", "--filename", file];
        rig.run(create.iter().chain(more));
        path
    };
    let base = create("base.vdi", &["--size", "4"]);
    let child = create("child.vdi", &["--diffparent", base.to_str().unwrap()]);
    ward.finds(&[]);
    fs::remove_file(&child).unwrap();
    fs::remove_file(&base).unwrap();
    assert_eq!(
        rig.run(["list", "hdds", "--long"])
            .matches("inaccessible")
            .count(),
        2
    );
    ward.finds(&["entry_without_file", "entry_without_file"]);
    // Perhaps the disk that it is on is not mounted.
    fs::remove_dir(&folder).unwrap();
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    fs::create_dir(&folder).unwrap();
    ward.repair(&[]);
    assert!(!rig.run(["list", "hdds"]).contains("loose disks"));
    rig.reread();
    assert!(!rig.run(["list", "hdds"]).contains("loose disks"));
}

/// Settings as VirtualBox leaves them when the machine's process dies with new images.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_virtualbox_left_with_new_images_is_opened_again() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let before = ward.guest_sha256s();
    let settings = fs::read_to_string(ward.machine.settings_path()).unwrap();
    let left_over = ward.machine.folder().join("Snapshots/left over.vdi");
    let attach = [
        "storageattach",
        &ward.id(),
        "--storagectl",
        "SATA",
        "--port",
        "0",
    ];
    rig.run(attach.iter().chain(&["--medium", "none"]));
    let (file, disk) = (left_over.to_str().unwrap(), ward.disk());
    let create = ["createmedium", "disk", "--filename", file, "--diffparent"];
    rig.run(create.iter().chain(&[disk.to_str().unwrap()]));
    let id = VdiHeader::read(&left_over).unwrap().uuids.creation;
    let base = r#"location="disk.vdi" format="VDI" type="Normal""#;
    let child = format!(r#"<HardDisk uuid="{{{id}}}" location="{file}" format="VDI"/>"#);
    let broken = settings.replace(&format!("{base}/>"), &format!("{base}>{child}</HardDisk>"));
    assert_ne!(broken, settings);
    fs::write(ward.machine.settings_path(), broken).unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["images_left_over"]);
    ward.repair(&[]);
    assert!(!left_over.exists());
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
    rig.reread();
    ward.finds(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_stray_differencing_image_is_taken_out_of_the_way_only_with_consent() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    let snapshot = machine.take_virtualbox_snapshot("one").to_string();
    let ward = Ward::of(&rig, machine);
    let before = ward.guest_sha256s();
    let (stray, base) = (
        ward.machine.folder().join("Snapshots/stray.vdi"),
        ward.disk(),
    );
    rig.run([
        "createmedium",
        "disk",
        "--filename",
        stray.to_str().unwrap(),
        "--diffparent",
        base.to_str().unwrap(),
    ]);
    let complaint = ward.refused(&["snapshot", &ward.id(), "delete", &snapshot]);
    assert!(complaint.contains("more than one child"), "{complaint}");
    ward.finds(&["stray_image"]);
    assert_eq!(
        ward.vrs
            .output(["doctor", "--repair", "--yes"])
            .status
            .code(),
        Some(4)
    );
    ward.finds(&["stray_image"]);
    let listed = rig.run(["list", "hdds"]);
    let entry = listed
        .split("\n\n")
        .find(|entry| entry.contains("stray.vdi"))
        .unwrap();
    let id = &entry[entry.find("UUID:").unwrap() + 16..][..36];
    ward.vrs
        .fail(2, ["doctor", "--repair", "--yes", "--allow", &ward.id()]);
    ward.vrs.output([
        "doctor",
        "--repair",
        "--yes",
        "--allow",
        &format!("stray_image:{id}"),
    ]);
    let files = fs::read_dir(stray.parent().unwrap()).unwrap();
    let mut names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names.any(|name| name.starts_with("stray.vdi.stray-")),
        "the file is the user's to remove"
    );
    ward.finds(&[]);
    rig.run(["snapshot", &ward.id(), "delete", &snapshot]);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn two_machines_with_one_image_are_shown() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let other = plain(&rig, "copy");
    let id_of = |machine: &RigMachine<'_>| machine.attached("SATA", 0).unwrap().to_string();
    let settings = fs::read_to_string(other.settings_path()).unwrap();
    let settings = settings.replace(&id_of(&other), &id_of(&ward.machine));
    fs::write(other.settings_path(), settings).unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["entries_conflict", "image_replaced", "machine_inaccessible"]);
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("web.vbox") && told.contains("copy.vbox"),
        "{told}"
    );
}
