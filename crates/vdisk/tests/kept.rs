//! What merges into an image leave as it was: all of that is named, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{child_of, disk, noise};
use vrs_vdisk::{
    BlockEntry, MergeFault, VdiCreate, VdiHead, VdiHeader, VdiImage, VdiUuids, VdiVariant,
    VdiWriter, kept_ranges, set_uuids,
};

const BLOCK_BYTES: u64 = 128 << 10;
const BLOCKS: u64 = 16;
/// The last block is cut.
const CAPACITY: u64 = BLOCKS * BLOCK_BYTES - 512;

#[derive(Debug, Clone)]
struct Write {
    offset: u64,
    length: u64,
    /// None writes zeros.
    seed: Option<u64>,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let blocks = (0..BLOCKS - 1, 1..4_u64)
        .prop_map(|(block, blocks)| (block * BLOCK_BYTES, blocks * BLOCK_BYTES));
    let place = prop_oneof![blocks, (0..CAPACITY, 1..3000_u64)];
    let write = (place, any::<Option<u64>>()).prop_map(|((offset, length), seed)| Write {
        offset,
        length: length.min(CAPACITY - offset),
        seed,
    });
    prop::collection::vec(write, 0..5)
}

fn create(folder: &Path, name: &str, variant: VdiVariant, capacity_bytes: u64) -> PathBuf {
    let path = folder.join(name);
    let create = VdiCreate {
        block_size_bytes: BLOCK_BYTES as u32,
        ..VdiCreate::new(variant, capacity_bytes)
    };
    VdiWriter::create(&path, create).unwrap().finish().unwrap();
    path
}

fn on(folder: &Path, name: &str, parent: &Path) -> PathBuf {
    let variant = child_of(&VdiHeader::read(parent).unwrap());
    create(folder, name, variant, CAPACITY)
}

fn write_all(image: &Path, parent: Option<&Path>, writes: &[Write]) {
    let mut writer = VdiWriter::open(image).unwrap();
    if let Some(parent) = parent {
        writer = writer.with_parent(disk(parent));
    }
    for write in writes {
        let length = write.length as usize;
        let bytes = write
            .seed
            .map_or(vec![0; length], |seed| noise(seed, length));
        writer.write_at(write.offset, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn merge(child: &Path, into: &Path) {
    let image = VdiImage::open(child).unwrap();
    let mut writer = VdiWriter::open(into).unwrap();
    for block in 0..image.block_map().len() {
        let offset = u64::from(block) * BLOCK_BYTES;
        let mut bytes = vec![0; BLOCK_BYTES.min(CAPACITY - offset) as usize];
        if image.read_block(block, &mut bytes).unwrap() != BlockEntry::Free {
            writer.write_at(offset, &bytes).unwrap();
        }
    }
    writer.finish().unwrap();
    fs::remove_file(child).unwrap();
}

fn put_on(child: &Path, parent: &Path) {
    let uuids = VdiHeader::read(child).unwrap().uuids;
    let parent = VdiHeader::read(parent).unwrap().uuids.creation;
    set_uuids(child, &VdiUuids { parent, ..uuids }).unwrap();
}

fn head(image: &Path) -> VdiHead {
    VdiHead::of_image(image).unwrap()
}

/// Blocks in the image before that nothing merged has.
fn left_alone(before: &VdiHead, merged: &[VdiHead]) -> u64 {
    let is_left = |block: &u32| {
        let is_free = |head: &VdiHead| head.block_map().entry(*block) == BlockEntry::Free;
        let entry = before.block_map().entry(*block);
        matches!(entry, BlockEntry::Allocated(_)) && merged.iter().all(is_free)
    };
    (0..before.block_map().len()).filter(is_left).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_merges_leave_alone_is_named_and_nothing_else(
        is_fixed in any::<bool>(),
        is_seen_on_the_image in any::<bool>(),
        first in writes(),
        layers in prop::collection::vec(writes(), 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let variant = if is_fixed { VdiVariant::Fixed } else { VdiVariant::Dynamic };
        let base = create(folder.path(), "base.vdi", variant, CAPACITY);
        write_all(&base, None, &first);
        let (before, old_bytes) = (head(&base), fs::read(&base).unwrap());
        let mut chain = vec![base.clone()];
        for (number, writes) in layers.iter().enumerate() {
            let parent = chain.last().unwrap();
            let child = on(folder.path(), &format!("{number}.vdi"), parent);
            write_all(&child, Some(parent), writes);
            chain.push(child);
        }
        let mut merged = Vec::new();
        for (number, child) in chain.iter().enumerate().skip(1) {
            // A head may be read before what is below it went away, or after.
            let early = head(child);
            put_on(child, &base);
            merged.push(if is_seen_on_the_image || number == 1 { head(child) } else { early });
            merge(child, &base);
        }
        let (after, new_bytes) = (head(&base), fs::read(&base).unwrap());
        let kept = kept_ranges(&before, &merged, &after).unwrap();
        let mut kept_bytes = 0;
        let mut last_end = after.header().data_offset_bytes;
        for (index, range) in kept.iter().enumerate() {
            prop_assert!(range.start > last_end || index == 0 && range.start == last_end);
            let place = range.start as usize..range.end as usize;
            prop_assert!(old_bytes[place.clone()] == new_bytes[place]);
            (kept_bytes, last_end) = (kept_bytes + range.end - range.start, range.end);
        }
        prop_assert_eq!(kept_bytes, left_alone(&before, &merged) * BLOCK_BYTES);
    }
}

#[test]
fn blocks_that_moved_are_not_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let write = |image: &Path, blocks: &[u64]| {
        let write = |block: &u64| Write {
            offset: block * BLOCK_BYTES,
            length: BLOCK_BYTES,
            seed: Some(*block),
        };
        write_all(image, None, &blocks.iter().map(write).collect::<Vec<_>>());
    };
    let base = create(path, "base.vdi", VdiVariant::Dynamic, CAPACITY);
    write(&base, &[3, 5, 7, 9]);
    let before = head(&base);
    fs::remove_file(&base).unwrap();
    let other = create(path, "base.vdi", VdiVariant::Dynamic, CAPACITY);
    set_uuids(&other, &before.header().uuids).unwrap();
    write(&other, &[3, 7, 5, 9]);
    let data = before.header().data_offset_bytes;
    let kept = kept_ranges(&before, &[], &head(&other)).unwrap();
    let expected = [0, 3].map(|place| data + place * BLOCK_BYTES..data + (place + 1) * BLOCK_BYTES);
    assert_eq!(kept, expected);
}

#[test]
fn nothing_is_said_about_what_does_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let base = create(path, "base.vdi", VdiVariant::Dynamic, CAPACITY);
    let before = head(&base);
    let stranger = create(path, "stranger.vdi", VdiVariant::Dynamic, CAPACITY);
    let fault = |merged: &[&Path], after: &Path| {
        let merged: Vec<_> = merged.iter().map(|image| head(image)).collect();
        kept_ranges(&before, &merged, &head(after)).unwrap_err()
    };
    assert_eq!(fault(&[], &stranger), MergeFault::AnotherImage);
    let child_of_stranger = on(path, "its child.vdi", &stranger);
    for merged in [&base, &stranger, &child_of_stranger] {
        assert_eq!(fault(&[merged], &base), MergeFault::NotOnIt);
    }
    let larger = create(
        path,
        "larger.vdi",
        child_of(before.header()),
        CAPACITY + (1 << 20),
    );
    assert_eq!(fault(&[&larger], &base), MergeFault::NotOnIt);
    let resized = create(
        path,
        "resized.vdi",
        VdiVariant::Dynamic,
        CAPACITY + (1 << 20),
    );
    set_uuids(&resized, &before.header().uuids).unwrap();
    assert_eq!(fault(&[], &resized), MergeFault::LaidOutOtherwise);
}

#[test]
fn a_damaged_map_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = create(folder.path(), "base.vdi", VdiVariant::Fixed, CAPACITY);
    let whole = head(&base);
    let mut bytes = fs::read(&base).unwrap();
    let map = whole.header().block_map_offset_bytes as usize;
    bytes.copy_within(map..map + 4, map + 8);
    fs::write(&base, bytes).unwrap();
    let damaged = head(&base);
    for (before, after) in [(&whole, &damaged), (&damaged, &whole)] {
        let fault = kept_ranges(before, &[], after).unwrap_err();
        assert_eq!(fault, MergeFault::DamagedMap);
    }
}
