//! Peak resident size for disks of different virtual size that hold the same.

use std::path::Path;

use vrs_testkit::SampleDisk;

use crate::scene::Scene;

/// Peak resident sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Peaks {
    /// Of taking the first snapshot.
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
}

/// Measures both disks, each used by as much.
#[must_use]
pub fn compare(
    vrs: &Path,
    (small, large): (SampleDisk, SampleDisk),
    used_mebibytes: u64,
) -> Comparison {
    Comparison {
        small: peaks(vrs, small, used_mebibytes),
        large: peaks(vrs, large, used_mebibytes),
    }
}

fn peaks(vrs: &Path, disk: SampleDisk, used_mebibytes: u64) -> Peaks {
    let mut scene = Scene::new(vrs, disk, used_mebibytes);
    let take_bytes = scene.take().peak_bytes();
    scene.change(7);
    let restore_bytes = scene.restore("bench@latest").peak_bytes();
    Peaks {
        take_bytes,
        restore_bytes,
    }
}

impl Comparison {
    /// Whether the large disk needs at most a fifth more.
    #[must_use]
    pub fn holds(&self) -> bool {
        let within = |small: u64, large: u64| large <= small + small / 5;
        within(self.small.take_bytes, self.large.take_bytes)
            && within(self.small.restore_bytes, self.large.restore_bytes)
    }
}
