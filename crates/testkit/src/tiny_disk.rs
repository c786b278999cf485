//! A file system that is full soon, for tests of full disks.
//!
//! It is a tmpfs, which only root may mount (or root of a name space, as under `rig/run`): tests
//! that use it are ignored by default together with those on the real VirtualBox.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs of limited size; unmounted when dropped.
#[derive(Debug)]
pub struct TinyDisk {
    folder: TempDir,
}

impl TinyDisk {
    /// Mounts a file system that holds `size_bytes`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(size_bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("mount starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cannot mount a tmpfs (this needs root; rig/run gives it): {complaint}"
        );
        Self { folder }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily, because a failed test may still hold files open; the folder underneath is empty
        // in any case.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
    }
}
