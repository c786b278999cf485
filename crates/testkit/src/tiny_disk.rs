//! A file system that is full soon, for tests of full disks.
//!
//! It is a tmpfs, which only root may mount (or root of a name space, as under `rig/run`): tests
//! that use it are ignored by default together with those on the real VirtualBox.

use std::ffi::OsStr;
use std::path::Path;

use crate::mounted::Mounted;

/// A mounted tmpfs of limited size; unmounted when dropped.
#[derive(Debug)]
pub struct TinyDisk(Mounted);

impl TinyDisk {
    /// Mounts a file system that holds `size_bytes`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(size_bytes: u64) -> Self {
        Self(mounted(None, size_bytes))
    }

    /// As [`TinyDisk::mount`], in a new folder in `folder`, and for the programs whose root
    /// directory is `root` at the same path.
    pub(crate) fn mount_seen_from(folder: &Path, root: &Path, size_bytes: u64) -> Self {
        Self(mounted(Some(folder), size_bytes).seen_from(root))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

fn mounted(folder: Option<&Path>, size_bytes: u64) -> Mounted {
    let size = format!("size={size_bytes}");
    Mounted::new(
        &["-t", "tmpfs", "-o", &size, "tmpfs"].map(OsStr::new),
        folder,
    )
}
