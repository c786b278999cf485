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

/// A header as bytes, to be spoiled field by field.
pub struct RawHeader(pub Vec<u8>);

impl RawHeader {
    /// A dynamic 4 MiB image of version 1.1 with blocks of 1 MiB, block map at 512, data at 1024.
    pub fn v1() -> Self {
        let mut header = Self(vec![0; 512]);
        header
            .set_u32(64, 0xbeda_107f)
            .set_u32(68, 0x0001_0001)
            .set_u32(72, 400)
            .set_u32(76, 1);
        header
            .set_u32(340, 512)
            .set_u32(344, 1024)
            .set_u32(360, 512);
        header
            .set_u64(368, 4 * MIB)
            .set_u32(376, 1 << 20)
            .set_u32(384, 4);
        header.set_uuid(392, uuid(1)).set_uuid(408, uuid(2));
        header
    }

    /// The same disk with the header of version 0.2, behind which map and data follow directly.
    pub fn v0() -> Self {
        let mut header = Self(vec![0; 512]);
        header
            .set_u32(64, 0xbeda_107f)
            .set_u32(68, 2)
            .set_u32(72, 1);
        header
            .set_u64(352, 4 * MIB)
            .set_u32(360, 1 << 20)
            .set_u32(364, 4);
        header.set_uuid(372, uuid(1)).set_uuid(388, uuid(2));
        header
    }

    pub fn set_u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn set_u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn set_uuid(&mut self, at: usize, value: Uuid) -> &mut Self {
        self.0[at..at + 16].copy_from_slice(&value.to_bytes_le());
        self
    }

    /// The file that the header begins, with this block map and data at `data_offset`.
    pub fn file(&self, map_offset: usize, map: &[u32], data_offset: usize, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.truncate(map_offset);
        bytes.extend(map.iter().flat_map(|entry| entry.to_le_bytes()));
        bytes.resize(bytes.len().max(data_offset), 0);
        bytes.extend(data);
        bytes
    }
}
