//! The short form of the benchmark: memory does not grow with the virtual size of a disk. What a
//! chunk costs is measured in the repository crate, where deriving the key does not hide it.
#![cfg(unix)]
#![allow(missing_docs)]

use vrs_testkit::SampleDisk;
use vrs_xtask::memory::compare;
use vrs_xtask::scene::build_vrs;

const GIB: u64 = 1 << 30;

#[test]
fn a_large_disk_needs_hardly_more_memory_than_a_small_one() {
    let vrs = build_vrs("dev");
    let dynamic = (SampleDisk::dynamic(4 * GIB), SampleDisk::dynamic(64 * GIB));
    let fixed = (SampleDisk::fixed(GIB / 4), SampleDisk::fixed(4 * GIB));
    for disks in [dynamic, fixed] {
        let peaks = compare(&vrs, disks, 16);
        assert!(peaks.holds(), "{peaks:?}");
    }
}
