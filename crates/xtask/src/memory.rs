//! Peak resident size for a small and a large disk.

use std::path::Path;

use vrs_testkit::SampleDisk;

use crate::scene::{CHUNK_BYTES, Home, Scene};

/// Peak resident sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Peaks {
    /// Of taking the first snapshot, the lowest of some.
    pub take_bytes: u64,
    /// Of restoring it over a changed disk.
    pub restore_bytes: u64,
}

/// Peaks for a small and a large disk.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Of the small disk.
    pub small: Peaks,
    /// Of the large disk.
    pub large: Peaks,
    /// That the large disk has beyond those of the small one.
    pub more_chunks: u64,
}

/// What the index may take for each chunk.
const INDEX_BYTES: u64 = 48;

/// So many first snapshots are measured.
const TAKES: usize = 3;

/// A small and a large disk.
#[derive(Debug, Clone, Copy)]
pub struct Disks {
    /// Makes a disk of so many bytes.
    pub kind: fn(u64) -> SampleDisk,
    /// Virtual size of the small one.
    pub small_bytes: u64,
    /// Virtual size of the large one.
    pub large_bytes: u64,
    /// Each holds so many mebibytes of files.
    pub used_mebibytes: u64,
    /// What else is on them.
    pub rest: Rest,
}

/// What is on a disk besides files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Empty,
    /// The whole disk is in use, and no chunk is like another.
    Full,
}

impl Disks {
    /// Measures both.
    #[must_use]
    pub fn compare(&self, vrs: &Path) -> Comparison {
        let more_bytes = match self.rest {
            Rest::Empty => 0,
            Rest::Full => self.large_bytes - self.small_bytes,
        };
        Comparison {
            small: self.peaks(vrs, self.small_bytes),
            large: self.peaks(vrs, self.large_bytes),
            more_chunks: more_bytes / CHUNK_BYTES,
        }
    }

    fn peaks(&self, vrs: &Path, bytes: u64) -> Peaks {
        let sprinkled_bytes = match self.rest {
            Rest::Empty => 0,
            Rest::Full => bytes - (self.used_mebibytes << 20),
        };
        let disk = (self.kind)(bytes);
        let mut scene = Scene::sprinkled(vrs, None, disk, sprinkled_bytes, self.used_mebibytes);
        // The lowest, because threads that happen to send at the same moment hold a pack each.
        let takes = (0..TAKES).map(|_| {
            scene.empty_repository(Home::Main);
            scene.take(Home::Main).peak_bytes()
        });
        let take_bytes = takes.min().expect("at least one");
        scene.change(7);
        let restore_bytes = scene.restore(Home::Main, "bench@latest").peak_bytes();
        Peaks {
            take_bytes,
            restore_bytes,
        }
    }
}

impl Comparison {
    /// Whether the large disk needs at most a fifth more beside the index of its chunks.
    #[must_use]
    pub fn holds(&self) -> bool {
        let index_bytes = self.more_chunks * INDEX_BYTES;
        let within = |small: u64, large: u64| large <= small + small / 5 + index_bytes;
        within(self.small.take_bytes, self.large.take_bytes)
            && within(self.small.restore_bytes, self.large.restore_bytes)
    }
}
