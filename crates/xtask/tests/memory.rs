//! The short form of the benchmark: memory does not grow with the virtual size of a disk.
#![cfg(unix)]
#![allow(missing_docs)]

use vrs_testkit::SampleDisk;
use vrs_xtask::memory::{Disks, Rest};
use vrs_xtask::scene::build_vrs;

const GIB: u64 = 1 << 30;

#[test]
fn a_large_disk_needs_hardly_more_memory_than_a_small_one() {
    let vrs = build_vrs("dev");
    let sparse = Disks {
        kind: SampleDisk::dynamic,
        small_bytes: 4 * GIB,
        large_bytes: 64 * GIB,
        used_mebibytes: 80,
        rest: Rest::Empty,
    };
    let full = Disks {
        kind: SampleDisk::fixed,
        small_bytes: GIB / 4,
        large_bytes: GIB + GIB / 2,
        rest: Rest::Full,
        ..sparse
    };
    for disks in [sparse, full] {
        let peaks = disks.compare(&vrs);
        assert!(peaks.holds(), "{disks:?}: {peaks:?}");
    }
}
