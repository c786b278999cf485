//! A file system that is full soon, for tests of full disks.
//!
//! It is a tmpfs, which only root may mount (or root of a name space, as under `rig/run`): tests
//! that use it are ignored by default together with those on the real VirtualBox.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs of limited size; unmounted when dropped.
#[derive(Debug)]
pub struct TinyDisk {
    folder: TempDir,
    /// Where else it is mounted.
    elsewhere: Option<PathBuf>,
}

impl TinyDisk {
    /// Mounts a file system that holds `size_bytes`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(size_bytes: u64) -> Self {
        Self::mount_at(tempfile::tempdir().expect("a temporary folder"), size_bytes)
    }

    /// As [`TinyDisk::mount`], in a new folder in `folder`, and for the programs whose root
    /// directory is `root` at the same path.
    pub(crate) fn mount_seen_from(folder: &Path, root: &Path, size_bytes: u64) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
        let mut disk = Self::mount_at(folder, size_bytes);
        let inside = disk.path().strip_prefix("/").expect("an absolute path");
        let elsewhere = root.join(inside);
        mount(&["--bind".as_ref(), disk.path().as_os_str()], &elsewhere);
        disk.elsewhere = Some(elsewhere);
        disk
    }

    fn mount_at(folder: TempDir, size_bytes: u64) -> Self {
        let size = format!("size={size_bytes}");
        let tmpfs = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(OsStr::new);
        mount(&tmpfs, folder.path());
        Self {
            folder,
            elsewhere: None,
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

pub(crate) fn mount(what: &[&OsStr], folder: &Path) {
    let mut mount = Command::new("mount");
    let output = mount.args(what).arg(folder).output().expect("mount starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cannot mount {what:?} (this needs root; rig/run gives it): {complaint}"
    );
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily, because a failed test may still hold files open; the folder underneath is empty
        // in any case.
        for folder in self.elsewhere.as_deref().into_iter().chain([self.path()]) {
            let _ = Command::new("umount").arg("--lazy").arg(folder).status();
        }
    }
}
