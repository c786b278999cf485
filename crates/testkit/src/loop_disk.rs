//! A file system of a certain kind, for what only some can do.
//!
//! It lies in a sparse file that is mounted as a loop device, which only real root may do: tests that use it
//! are ignored by default together with those on the real VirtualBox.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::mounted::Mounted;

/// XFS takes no less than 300 MB.
const SIZE_BYTES: u64 = 512 << 20;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    // Before the file that it lies in.
    mounted: Mounted,
    _file: TempDir,
}

impl LoopDisk {
    /// Makes and mounts a file system of a kind that `mkfs.KIND` makes: "btrfs", "xfs", "ext4". `options` are
    /// those of the mount.
    ///
    /// # Panics
    /// When it cannot be made or mounted.
    #[must_use]
    pub fn mount(kind: &str, options: &str) -> Self {
        Self::mount_with_room(kind, options, SIZE_BYTES)
    }

    /// As [`LoopDisk::mount`], for so many bytes in all.
    ///
    /// # Panics
    /// When it cannot be made or mounted.
    #[must_use]
    pub fn mount_with_room(kind: &str, options: &str, size_bytes: u64) -> Self {
        Self::mount_in(None, kind, options, size_bytes)
    }

    /// As [`LoopDisk::mount`], in a new folder in `folder`, and for the programs whose root directory is
    /// `root` at the same path.
    pub(crate) fn mount_seen_from(folder: &Path, root: &Path, kind: &str) -> Self {
        let disk = Self::mount_in(Some(folder), kind, "", SIZE_BYTES);
        Self {
            mounted: disk.mounted.seen_from(root),
            ..disk
        }
    }

    fn mount_in(folder: Option<&Path>, kind: &str, options: &str, size_bytes: u64) -> Self {
        let file = tempfile::tempdir().expect("a temporary folder");
        let device = file.path().join("device");
        let created = File::create(&device).and_then(|file| file.set_len(size_bytes));
        created.expect("room for a sparse file");
        make(kind, &device);
        let options = format!("loop,{options}");
        let what = ["-t", kind, "-o", options.trim_end_matches(',')].map(OsStr::new);
        let what: Vec<_> = what.into_iter().chain([device.as_os_str()]).collect();
        Self {
            mounted: Mounted::new(&what, folder),
            _file: file,
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }
}

fn make(kind: &str, device: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut make = Command::new(format!("mkfs.{kind}"));
    make.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = make.arg("-q").arg(device).output();
    let output = output.expect("mkfs starts; scripts/setup-tests installs it");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no {kind}: {complaint}");
}
