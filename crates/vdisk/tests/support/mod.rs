//! What the tests of this crate share: images on disk, and `qemu-img`.

#![allow(dead_code, reason = "no test needs all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;
use vrs_vdisk::{Chain, GuestDisk, VdiCreate, VdiHeader, VdiVariant, VdiWriter};

pub const MIB: u64 = 1 << 20;

/// An image in `folder` with blocks of 1 MiB; its UUID.
pub fn create(folder: &Path, name: &str, variant: VdiVariant, capacity_bytes: u64) -> PathBuf {
    let path = folder.join(name);
    VdiWriter::create(&path, VdiCreate::new(variant, capacity_bytes))
        .unwrap()
        .finish()
        .unwrap();
    path
}

/// An empty differencing image on `parent` with the same size.
pub fn create_child(folder: &Path, name: &str, parent: &Path) -> PathBuf {
    let header = VdiHeader::read(parent).unwrap();
    create(folder, name, child_of(&header), header.capacity_bytes)
}

pub fn child_of(parent: &VdiHeader) -> VdiVariant {
    VdiVariant::Differencing {
        parent: parent.uuids.creation,
        parent_modification: parent.uuids.modification,
    }
}

pub fn write(path: &Path, offset_bytes: u64, bytes: &[u8]) {
    let mut writer = VdiWriter::open(path).unwrap();
    writer.write_at(offset_bytes, bytes).unwrap();
    writer.finish().unwrap();
}

/// The disk whose leaf is `leaf`.
pub fn disk(leaf: &Path) -> GuestDisk {
    GuestDisk::open(&Chain::resolve(leaf, &[]).unwrap()).unwrap()
}

pub fn contents(disk: &GuestDisk) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(disk.capacity_bytes()).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

pub fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x1000_0000_0000_4000_8000_0000_0000_0000 + number)
}

/// Bytes without pages of zeros that differ for each `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Runs `qemu-img`, which must succeed, and returns what it prints.
pub fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img is missing; install qemu-utils");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {stdout}{stderr}"
    );
    stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
