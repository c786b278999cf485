//! A whole file: whatever it is, opening, reading and listing it never panics; if it may be written,
//! what is written is read back, and the rest of the disk stays as it was.

#![no_main]

use std::io::Write;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vrs_vdisk::{Chain, GuestDisk, VdiImage, VdiWriter};

/// Larger disks and blocks only take time.
const MOST_BYTES: u64 = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let path = file.path();
    let Ok(image) = VdiImage::open(path) else {
        return;
    };
    let is_small = image.header().capacity_bytes <= MOST_BYTES;
    if !is_small || u64::from(image.header().block_size_bytes) > MOST_BYTES {
        return;
    }
    let candidates = [path.to_path_buf()];
    let Ok(chain) = Chain::resolve(path, &candidates) else {
        return;
    };
    let Some(before) = contents(&chain) else {
        return;
    };
    let sum: u64 = open(&chain)
        .extents()
        .map(|extent| extent.length_bytes)
        .sum();
    assert_eq!(sum, image.header().capacity_bytes);
    change(path, &chain, before);
});

fn open(chain: &Chain) -> GuestDisk {
    GuestDisk::open(chain).expect("it was opened before")
}

fn contents(chain: &Chain) -> Option<Vec<u8>> {
    let disk = open(chain);
    let mut bytes = vec![0xee; disk.capacity_bytes() as usize];
    disk.read_at(0, &mut bytes).ok().map(|()| bytes)
}

/// Overwrites the middle third of a disk that held `expected`.
fn change(path: &Path, chain: &Chain, mut expected: Vec<u8>) {
    let Ok(mut writer) = VdiWriter::open(path) else {
        return;
    };
    let third = expected.len() / 3;
    let new = vec![0xa5; third];
    writer
        .write_at(third as u64, &new)
        .expect("a sound image can be written");
    expected[third..2 * third].copy_from_slice(&new);
    assert!(
        contents(chain).as_ref() == Some(&expected),
        "the disk reads as written"
    );
}
