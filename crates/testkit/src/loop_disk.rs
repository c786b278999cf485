//! A file system of a certain kind, for what only some can do.
//!
//! It lies in a sparse file that is mounted as a loop device, which only real root may do: tests that use it
//! are ignored by default together with those on the real VirtualBox.
//!
//! Since the device is a file, its power can be cut: what a file system has sent to the device is in that file,
//! all else is in the kernel's memory only. And its sectors can go bad.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::mounted::Mounted;

/// XFS takes no less than 300 MB.
const SIZE_BYTES: u64 = 512 << 20;

/// What btrfs has a checksum of.
pub const SECTOR_BYTES: usize = 4096;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    // Before the device that it lies on.
    mounted: Mounted,
    device: Device,
    kind: String,
    options: String,
}

/// The file that a file system lies in, and a copy of one.
#[derive(Debug)]
pub struct Device(TempDir);

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
        let device = Device::new();
        let created = File::create(device.path()).and_then(|file| file.set_len(size_bytes));
        created.expect("room for a sparse file");
        make(kind, &device.path());
        let options = format!("loop,{options}");
        let options = options.trim_end_matches(',').to_owned();
        Self {
            mounted: Mounted::new(&words(kind, &options, &device.path()), folder),
            device,
            kind: kind.to_owned(),
            options,
        }
    }

    /// What is on the device at this moment.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device.copied()
    }

    /// Mounts a copy of another device in place of this one.
    ///
    /// # Panics
    /// When a file is open, and when the other one cannot be mounted.
    pub fn exchange(&mut self, other: &Device) {
        let device = other.copied();
        let path = device.path();
        let words = words(&self.kind, &self.options, &path);
        self.mounted.exchange(&words);
        self.device = device;
    }

    /// Cuts the power at the worst moment, and mounts what is left: the bytes that were written to files are
    /// there, but of what the file system says about files, times among it, only what was flushed.
    ///
    /// # Panics
    /// When a file is open.
    pub fn cut_power(&mut self) {
        let mut find = Command::new("find");
        find.arg(self.path());
        find.args(["-type", "f", "-exec", "xfs_io", "-r"]);
        // Sends written bytes to the device, and nothing else, and waits.
        find.args(["-c", "sync_range -w 0 0", "-c", "sync_range -a 0 0"]);
        find.args(["{}", ";"]);
        run(find);
        let left = self.device();
        self.exchange(&left);
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }
}

impl Device {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("device")
    }

    /// Writes to each sector that holds these bytes the opposite of them; done with those it is as before. Where
    /// the file system keeps checksums of data, as btrfs does, reading the file fails with `EIO` meanwhile.
    ///
    /// # Panics
    /// When no sector holds them.
    pub fn invert(&self, sector: &[u8; SECTOR_BYTES]) {
        let opposite = sector.map(|byte| !byte);
        let mut device = File::options();
        let device = device.read(true).write(true).open(self.path());
        let device = device.expect("the device");
        let length_bytes = device.metadata().expect("the device").len();
        let mut inverted = 0;
        for offset_bytes in (0..length_bytes).step_by(SECTOR_BYTES) {
            let mut found = [0; SECTOR_BYTES];
            let read = device.read_exact_at(&mut found, offset_bytes);
            read.expect("a readable device");
            if found == *sector {
                let written = device.write_all_at(&opposite, offset_bytes);
                written.expect("a writable device");
                inverted += 1;
            }
        }
        assert!(inverted > 0, "no sector holds these bytes");
    }

    fn copied(&self) -> Self {
        let copy = Self::new();
        let mut cp = Command::new("cp");
        cp.arg("--sparse=always").args([self.path(), copy.path()]);
        run(cp);
        copy
    }
}

/// The words for `mount`.
fn words<'a>(kind: &'a str, options: &'a str, device: &'a Path) -> [&'a OsStr; 5] {
    let [of_kind, of_options] = ["-t", "-o"].map(OsStr::new);
    [
        of_kind,
        kind.as_ref(),
        of_options,
        options.as_ref(),
        device.as_os_str(),
    ]
}

fn make(kind: &str, device: &Path) {
    let mut make = Command::new(format!("mkfs.{kind}"));
    make.arg("-q").arg(device);
    run(make);
}

fn run(mut command: Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.output();
    let output = output.expect("it starts; scripts/setup-tests installs it");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
}
