//! Sample machines are what they claim to be: their images are read by qemu-img, their guests'
//! bytes follow a simple model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use vrs_testkit::{SampleDisk, SampleMachine, random_bytes};

const MIB: u64 = 1 << 20;

fn qemu_bytes(image: &Path) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new().unwrap();
    let mut convert = Command::new("qemu-img");
    convert
        .args(["convert", "-f", "vdi", "-O", "raw"])
        .args([image, raw.path()]);
    assert!(convert.status().unwrap().success());
    fs::read(raw.path()).unwrap()
}

#[test]
fn qemu_reads_what_the_guest_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = SampleMachine::builder(folder.path(), "m")
        .disk(SampleDisk::dynamic(5 * MIB + 512))
        .disk(SampleDisk::fixed(3 * MIB).at("odd name ü.vdi"))
        .build();
    machine.fill(0, 2 * MIB - 100, 200, 1);
    machine.fill(1, 17, 1000, 2);
    for disk in 0..2 {
        assert_eq!(
            qemu_bytes(&machine.chain(disk)[0]),
            machine.guest_bytes(disk)
        );
    }
    assert_eq!(
        &machine.guest_bytes(0)[2 * MIB as usize - 100..][..200],
        random_bytes(1, 200)
    );
    let mut check = Command::new("qemu-img");
    assert!(
        check
            .arg("check")
            .arg(&machine.chain(0)[0])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn growth_and_compaction_keep_the_guests_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = SampleMachine::builder(folder.path(), "m")
        .disk(SampleDisk::dynamic(6 * MIB))
        .build();
    machine.fill(0, 0, 6 * MIB as usize, 1);
    machine.write(0, MIB, &vec![0; 2 * MIB as usize]);
    let before = machine.guest_bytes(0);
    let length = || fs::metadata(&machine.chain(0)[0]).unwrap().len();
    let full_length = length();
    machine.clone().compact(0);
    assert_eq!(full_length - length(), 2 * MIB);
    assert_eq!(machine.guest_bytes(0), before);
    assert_eq!(qemu_bytes(&machine.chain(0)[0]), before);
    machine.grow(0, 8 * MIB);
    assert_eq!(machine.guest_bytes(0)[..before.len()], before);
    assert_eq!(qemu_bytes(&machine.chain(0)[0]).len() as u64, 8 * MIB);
}

#[test]
fn virtualbox_snapshots_branch_restore_and_merge() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = SampleMachine::builder(folder.path(), "m")
        .disk(SampleDisk::dynamic(4 * MIB))
        .nvram(1000)
        .build();
    machine.fill(0, 0, 1000, 1);
    let at_first = machine.guest_bytes(0);
    let first = machine.take_virtualbox_snapshot("first");
    machine.fill(0, 3 * MIB, 1000, 2);
    let at_second = machine.guest_bytes(0);
    let second = machine.take_virtualbox_snapshot("second");
    machine.save_state(b"state");
    machine.restore_virtualbox_snapshot(first);
    assert_eq!(machine.guest_bytes(0), at_first);
    machine.restore_virtualbox_snapshot(second);
    assert_eq!(machine.guest_bytes(0), at_second);
    assert_eq!(machine.chain(0).len(), 3);
    machine.delete_virtualbox_snapshot(first);
    assert_eq!(machine.guest_bytes(0), at_second);
    assert_eq!(machine.chain(0).len(), 2);
    let files: Vec<_> = machine.files();
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
}

#[test]
fn a_disk_may_lie_elsewhere_and_come_from_a_raw_image() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::write(&raw, random_bytes(3, 2_560_000)).unwrap();
    let outside = folder.path().join("elsewhere/o.vdi");
    let machine = SampleMachine::builder(folder.path(), "-quo\"te\n")
        .disk(SampleDisk::from_raw(&raw).at(&outside))
        .build();
    assert_eq!(machine.folder().file_name().unwrap(), "_quo_te_");
    assert_eq!(machine.chain(0), [outside]);
    assert_eq!(machine.guest_bytes(0), fs::read(&raw).unwrap());
}

#[test]
fn settings_are_well_formed_and_round_trip_odd_names() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a \"b\" <c> & 'd' ünï 日本\n";
    let mut machine = SampleMachine::builder(folder.path(), name)
        .disk(SampleDisk::dynamic(MIB))
        .build();
    machine.take_virtualbox_snapshot(name);
    let text = fs::read_to_string(machine.settings_path()).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    let named = |tag: &str| {
        document
            .descendants()
            .find(|node| node.has_tag_name(("http://www.virtualbox.org/", tag)))
            .unwrap()
    };
    assert_eq!(named("Machine").attribute("name"), Some(name));
    assert_eq!(named("Snapshot").attribute("name"), Some(name));
    assert_eq!(
        named("Machine").attribute("uuid"),
        Some(&*format!("{{{}}}", machine.id()))
    );
}
