//! A disk that cannot be read: the kernel itself says so, of a file system that keeps checksums.

use std::fs;
use std::process::Command;

use vrs_testkit::{LoopDisk, SECTOR_BYTES, SampleDisk, SampleMachine};

use crate::environment::{Environment, MIB, settings};
use crate::faults::{content, is_sound};

#[test]
#[ignore = "mounts file systems, as root"]
fn a_take_names_what_cannot_be_read_and_succeeds_once_it_can_be() {
    let environment = Environment::with_repository();
    let mut volume = LoopDisk::mount_with_room("btrfs", "", 128 * MIB as u64);
    let disk = SampleDisk::dynamic(16 * MIB as u64);
    let machine = SampleMachine::builder(volume.path(), "web").disk(disk);
    let mut machine = machine.build();
    machine.fill(0, 0, 14 * MIB, 7);
    let (disk, before) = (machine.chain(0)[0].clone(), content(&machine));
    let sector = &fs::read(&disk).unwrap()[10 * MIB..][..SECTOR_BYTES];
    let sector: [u8; SECTOR_BYTES] = sector.try_into().unwrap();

    invert(&mut volume, &sector);
    assert!(fs::read(&disk).is_err());
    let told = environment.fails(&["take", &settings(&machine)]);
    let told = told.replace(disk.to_str().unwrap(), "DISK");
    // The offset is that of the stretch that was read at once.
    insta::assert_snapshot!(told, @r"
    1
    error: cannot read DISK at offset 10485760; check the disk and the file's permissions, then try again
      caused by: Input/output error (os error 5)
    ");
    let listed = environment.json(&["list"]);
    assert_eq!(listed["snapshots"], serde_json::json!([]));
    assert!(is_sound(&environment));

    invert(&mut volume, &sector.map(|byte| !byte));
    assert!(content(&machine) == before);
    environment.succeeds(&["take", &settings(&machine)]);
    assert!(is_sound(&environment));
    machine.fill(0, 9 * MIB as u64, 2 * MIB, 8);
    assert!(content(&machine) != before);
    environment.succeeds(&["restore", "web@latest", "--yes"]);
    assert!(content(&machine) == before);
}

/// Mounts what is on the volume, but for one sector.
fn invert(volume: &mut LoopDisk, sector: &[u8; SECTOR_BYTES]) {
    let sync = Command::new("sync").arg("-f").arg(volume.path()).status();
    assert!(sync.unwrap().success());
    let device = volume.device();
    device.invert(sector);
    volume.exchange(&device);
}
