//! What reading costs, counted in bytes of memory and calls of the operating system: hostile
//! headers must be cheap to refuse, and healthy images cheap to read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use allocation_counter::AllocationInfo;
use support::{MIB, RawHeader, create, create_child, disk, noise, write};
use vrs_vdisk::{
    BlockEntry, BlockMap, Error, Finding, HeaderFault, MapReport, VdiHeader, VdiImage, VdiVariant,
};

const KIB: u64 = 1 << 10;

/// What `action` took, in memory at most at one time and in reads of files.
struct Cost {
    peak_bytes: u64,
    reads: u64,
}

fn cost(action: impl FnOnce()) -> Cost {
    let mut reads = 0;
    let info: AllocationInfo = allocation_counter::measure(|| {
        let before = reads_so_far();
        action();
        reads = reads_so_far() - before;
    });
    Cost {
        peak_bytes: info.bytes_max,
        reads: reads - reads_of_counting(),
    }
}

/// Reads by this thread, as Linux counts them.
fn reads_so_far() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("syscr: "))
        .unwrap();
    line.parse().unwrap()
}

fn reads_of_counting() -> u64 {
    let before = reads_so_far();
    reads_so_far() - before
}

/// A header that claims 2^32 - 1 blocks in a file of `len_bytes`, which is one big hole.
fn boastful(folder: &Path, name: &str, raw: &mut RawHeader, len_bytes: u64) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, &raw.0).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(len_bytes)
        .unwrap();
    path
}

#[test]
fn four_billion_blocks_are_refused_within_kilobytes_and_a_few_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut v0 = RawHeader::v0();
    v0.set_u32(364, u32::MAX)
        .set_u64(352, u64::from(u32::MAX) * MIB);
    let mut v1 = RawHeader::v1();
    v1.set_u32(384, u32::MAX)
        .set_u64(368, u64::from(u32::MAX) * MIB);
    let mut v1_far = RawHeader(v1.0.clone());
    v1_far.set_u32(344, u32::MAX);
    let images = [
        boastful(folder.path(), "short-v0.vdi", &mut v0, 4 * MIB),
        boastful(folder.path(), "long-v0.vdi", &mut v0, 20 * KIB * MIB),
        boastful(folder.path(), "short-v1.vdi", &mut v1, 4 * MIB),
        boastful(folder.path(), "long-v1.vdi", &mut v1_far, 20 * KIB * MIB),
    ];
    for image in images {
        let mut result = None;
        let cost = cost(|| result = Some(VdiImage::open(&image)));
        assert!(
            matches!(result, Some(Err(Error::Header { .. }))),
            "{}",
            image.display()
        );
        assert!(cost.peak_bytes < 16 * KIB, "{} bytes", cost.peak_bytes);
        assert!(cost.reads <= 4, "{} reads", cost.reads);
    }
}

#[test]
fn a_file_that_could_hold_the_map_does_not_make_it_be_loaded() {
    let mut raw = RawHeader::v0();
    raw.set_u32(364, (1 << 26) + 1).set_u64(352, MIB);
    let fault = VdiHeader::parse(&raw.0, u64::MAX).unwrap_err();
    assert_eq!(
        fault,
        HeaderFault::TooManyBlocks {
            blocks: (1 << 26) + 1,
            most: 1 << 26
        }
    );
}

#[test]
fn a_block_map_takes_four_bytes_a_block_and_few_reads() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = 200 * KIB;
    let image = create(
        folder.path(),
        "200GiB.vdi",
        VdiVariant::Dynamic,
        blocks * MIB,
    );
    let cost = cost(|| {
        assert_eq!(
            u64::from(VdiImage::open(&image).unwrap().block_map().len()),
            blocks
        )
    });
    assert!(
        cost.peak_bytes < 4 * blocks + 80 * KIB,
        "{} bytes",
        cost.peak_bytes
    );
    assert!(
        cost.reads <= 2 + (4 * blocks).div_ceil(64 * KIB),
        "{} reads",
        cost.reads
    );
}

#[test]
fn blocks_that_lie_together_are_read_together() {
    let folder = tempfile::tempdir().unwrap();
    let base = create(folder.path(), "base.vdi", VdiVariant::Dynamic, 64 * MIB);
    write(&base, 0, &noise(1, 32 * MIB as usize));
    let leaf = create_child(folder.path(), "leaf.vdi", &base);
    let disk = disk(&leaf);
    let mut bytes = vec![0; 64 * MIB as usize];
    let contiguous = cost(|| disk.read_at(0, &mut bytes).unwrap());
    assert_eq!(
        contiguous.reads, 1,
        "32 blocks in one read, 32 free ones in none"
    );
    assert!(
        contiguous.peak_bytes < KIB,
        "{} bytes",
        contiguous.peak_bytes
    );
    write(&leaf, 8 * MIB, &noise(2, 2 * MIB as usize));
    let disk = support::disk(&leaf);
    let interrupted = cost(|| disk.read_at(0, &mut bytes).unwrap());
    assert_eq!(interrupted.reads, 3, "base, leaf, base");
}

#[test]
fn listing_extents_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let image = create(
        folder.path(),
        "fixed.vdi",
        VdiVariant::Fixed,
        64 * KIB * MIB,
    );
    let disk = disk(&image);
    let cost = cost(|| assert_eq!(disk.extents().count(), 1));
    assert!(cost.peak_bytes < KIB && cost.reads == 0);
}

/// A map for `header` whose entries all point to the same place.
fn all_alike(header: &VdiHeader, stored: u32, file_len_bytes: u64) -> BlockMap {
    let bytes: Vec<u8> = (0..header.blocks)
        .flat_map(|_| stored.to_le_bytes())
        .collect();
    BlockMap::parse(header, &bytes, file_len_bytes)
}

#[test]
fn duplicate_and_outlying_entries_are_counted_and_the_first_hundred_listed() {
    let mut raw = RawHeader::v0();
    raw.set_u32(364, 1000)
        .set_u32(368, 1000)
        .set_u64(352, 1000 * MIB);
    let file_len_bytes = 420 + 4000 + 10 * MIB;
    let header = VdiHeader::parse(&raw.0, file_len_bytes).unwrap();
    let report = all_alike(&header, 9, file_len_bytes).check();
    assert_eq!(
        (report.findings_total, report.findings.len()),
        (999, MapReport::MOST_LISTED)
    );
    let first = Finding::Duplicate {
        first_block: 0,
        second_block: 1,
        stored: 9,
    };
    assert_eq!(report.findings[0], first);
    let report = all_alike(&header, 10, file_len_bytes).check();
    assert_eq!(
        report.findings[0],
        Finding::OutsideFile {
            block: 0,
            stored: 10
        }
    );
    assert_eq!(report.findings_total, 1000 + 999);
    assert_eq!(report.allocated_blocks, 1000);
}

#[test]
fn free_and_zero_are_told_apart() {
    let raw = RawHeader::v1();
    let header = VdiHeader::parse(&raw.0, 3 * MIB).unwrap();
    let entries: Vec<u8> = [!0_u32, !1, 0, 1]
        .iter()
        .flat_map(|raw| raw.to_le_bytes())
        .collect();
    let map = BlockMap::parse(&header, &entries, 3 * MIB);
    let (stored, beyond) = (BlockEntry::Allocated(0), BlockEntry::Allocated(1));
    assert!(
        map.entries()
            .eq([BlockEntry::Free, BlockEntry::Zero, stored, beyond])
    );
    let report = map.check();
    assert_eq!(
        (
            report.free_blocks,
            report.zero_blocks,
            report.allocated_blocks
        ),
        (1, 1, 2)
    );
    let expected = Finding::BeyondAllocated {
        block: 2,
        stored: 0,
        allocated_blocks: 0,
    };
    assert_eq!(
        report.findings,
        [
            expected,
            Finding::BeyondAllocated {
                block: 3,
                stored: 1,
                allocated_blocks: 0
            }
        ]
    );
}
