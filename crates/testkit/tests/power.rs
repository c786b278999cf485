//! What a disk has left when its power is cut.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};

use vrs_testkit::LoopDisk;

/// Else a test with it would show nothing.
#[test]
#[ignore = "mounts file systems, as root"]
fn bytes_are_left_without_the_time_at_which_they_were_written() {
    let mut disk = LoopDisk::mount("ext4", "commit=3600");
    let path = disk.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"flushed").unwrap();
    file.sync_all().unwrap();
    let flushed = file.metadata().unwrap().modified().unwrap();
    loop {
        file.rewind().unwrap();
        file.write_all(b"written").unwrap();
        if file.metadata().unwrap().modified().unwrap() != flushed {
            break;
        }
    }
    drop(file);
    disk.cut_power();
    assert_eq!(fs::read(&path).unwrap(), b"written");
    let left = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(left, flushed);
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_device_can_be_had_back() {
    let mut disk = LoopDisk::mount("ext4", "");
    let path = disk.path().join("file");
    File::create(&path).unwrap().sync_all().unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    let device = disk.device();
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        disk.exchange(&device);
        fs::remove_file(&path).unwrap();
    }
}
