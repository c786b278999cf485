//! Clones of files that share their data until one of the two is written to, and where a file's data lies.
//!
//! Guarantees: [`clone_file`] makes a file with the bytes of the original at one moment, of its owner only.
//! [`Extents`] gives what the file system answers, in order, nothing added. Not guaranteed: that the answer
//! still holds when it arrives. On btrfs and XFS only; elsewhere both fail as not supported.

#![cfg_attr(
    target_os = "linux",
    allow(unsafe_code, reason = "no safe crate asks for extents")
)]

use std::fs::File;
use std::io;
use std::path::Path;

/// A piece of a file and where its data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    /// Of the piece in the file.
    pub(crate) length_bytes: u64,
    /// On the volume.
    pub(crate) physical: u64,
    /// Whether `physical` is the place of just these bytes, written and laid down as they are. It is not
    /// for what is compressed, encrypted, packed among metadata, not yet written or not yet placed.
    pub(crate) is_plain: bool,
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{Extents, clone_file, is_possible};

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Extents, clone_file, is_possible};

#[cfg(target_os = "linux")]
mod linux {
    use super::{Extent, File, Path, io};
    use rustix::ioctl;

    /// `BTRFS_SUPER_MAGIC` and `XFS_SUPER_MAGIC` of `linux/magic.h`.
    const KNOWN: [u32; 2] = [0x9123_683E, 0x5846_5342];

    /// Fails for a file on a file system whose places are not known to be of the whole volume and of nothing
    /// else: SMB tells the file's own offsets, bcachefs those of one of several devices.
    fn require_known(file: &File) -> io::Result<()> {
        let kind = rustix::fs::fstatfs(file)?.f_type;
        let is_known = KNOWN
            .iter()
            .any(|known| i128::from(*known) == i128::from(kind));
        is_known.then_some(()).ok_or_else(|| {
            let reason = "it is neither on btrfs nor on XFS";
            io::Error::new(io::ErrorKind::Unsupported, reason)
        })
    }

    /// Whether a file is on a file system where clones can be made and compared.
    pub(crate) fn is_possible(file: &Path) -> bool {
        File::open(file).is_ok_and(|file| require_known(&file).is_ok())
    }

    /// Makes `to`, which must not exist, a clone of `from`.
    pub(crate) fn clone_file(from: &Path, to: &Path) -> io::Result<()> {
        let source = File::open(from)?;
        require_known(&source)?;
        let mut options = File::options();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let target = options.open(to)?;
        let cloned = rustix::fs::ioctl_ficlone(&target, &source).map_err(io::Error::from);
        if let Err(error) = cloned.and_then(|()| target.sync_all()) {
            let _ = std::fs::remove_file(to);
            return Err(error);
        }
        Ok(())
    }

    /// How many extents are asked for at once.
    const BATCH: usize = 512;

    /// `struct fiemap_extent` of `linux/fiemap.h`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct RawExtent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved64: [u64; 2],
        flags: u32,
        reserved: [u32; 3],
    }

    /// `struct fiemap`, without the extents.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Header {
        start: u64,
        length: u64,
        flags: u32,
        mapped_extents: u32,
        extent_count: u32,
        reserved: u32,
    }

    #[repr(C)]
    struct Request {
        header: Header,
        extents: [RawExtent; BATCH],
    }

    const FIEMAP: ioctl::Opcode = ioctl::opcode::read_write::<Header>(b'f', 11);
    /// Write what is still in memory first.
    const FLAG_SYNC: u32 = 0x1;
    const EXTENT_LAST: u32 = 0x1;
    const EXTENT_SHARED: u32 = 0x2000;

    /// The extents of a file, in order; what lies between them are holes.
    pub(crate) struct Extents<'a> {
        file: &'a File,
        batch: std::vec::IntoIter<RawExtent>,
        /// From where to ask on, until the last one was seen.
        next: Option<u64>,
    }

    impl<'a> Extents<'a> {
        pub(crate) fn of(file: &'a File) -> io::Result<Self> {
            require_known(file)?;
            Ok(Self {
                file,
                batch: Vec::new().into_iter(),
                next: Some(0),
            })
        }

        fn ask(&mut self, start: u64) -> io::Result<()> {
            let mut request = Box::new(Request {
                header: Header {
                    start,
                    length: u64::MAX.saturating_sub(start),
                    flags: FLAG_SYNC,
                    extent_count: BATCH as u32,
                    ..Header::default()
                },
                extents: [RawExtent::default(); BATCH],
            });
            // SAFETY: the opcode takes a pointer to a `Header` that is followed by `extent_count` extents,
            // which `Request` is, and writes there only. Every bit pattern is a valid `Request`.
            unsafe {
                let updater = ioctl::Updater::<FIEMAP, Request>::new(&mut request);
                ioctl::ioctl(self.file, updater)?;
            }
            let mapped = usize::try_from(request.header.mapped_extents).unwrap_or(BATCH);
            let extents: Vec<_> = request.extents.into_iter().take(mapped).collect();
            let last = extents
                .last()
                .filter(|last| last.flags & EXTENT_LAST == 0)
                .map(|last| last.logical.saturating_add(last.length));
            if last.is_some_and(|end| end <= start) {
                return Err(io::Error::other("extents without end"));
            }
            self.next = last;
            self.batch = extents.into_iter();
            Ok(())
        }
    }

    impl Iterator for Extents<'_> {
        type Item = io::Result<Extent>;

        fn next(&mut self) -> Option<Self::Item> {
            loop {
                if let Some(raw) = self.batch.next() {
                    return Some(Ok(Extent {
                        start: raw.logical,
                        length_bytes: raw.length,
                        physical: raw.physical,
                        // What a flag of the future means is not known: it is no good.
                        is_plain: raw.flags & !(EXTENT_LAST | EXTENT_SHARED) == 0,
                    }));
                }
                let start = self.next.take()?;
                if let Err(error) = self.ask(start) {
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Extent, File, Path, io};

    /// Not known here.
    pub(crate) const fn is_possible(_: &Path) -> bool {
        false
    }

    /// Not known here.
    pub(crate) fn clone_file(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not known here.
    pub(crate) struct Extents(std::convert::Infallible);

    impl Extents {
        pub(crate) fn of(_: &File) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Iterator for Extents {
        type Item = io::Result<Extent>;

        fn next(&mut self) -> Option<Self::Item> {
            match self.0 {}
        }
    }
}
