//! What differs between operating systems.
//!
//! Holes are found and punched on Linux; elsewhere everything counts as data and zeros are written.
//! Inode, owner and change time exist on Unix; elsewhere they are 0, and the modification time
//! stands in for the change time.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::store::FileStamp;

/// Owner and permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FileStamp {
    /// The present stamp of the file that `path` leads to.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(stamp(&std::fs::metadata(path)?))
    }
}

/// The stamp in some metadata.
pub fn stamp(metadata: &Metadata) -> FileStamp {
    let mtime_ns = metadata.modified().map_or(0, nanoseconds);
    let (inode, ctime_ns) = inode_and_ctime(metadata, mtime_ns);
    FileStamp {
        size_bytes: metadata.len(),
        inode,
        mtime_ns,
        ctime_ns,
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    let signed =
        |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => signed(before.duration()).saturating_neg(),
    }
}

/// Makes the names in a folder durable, where the file system can do that.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Network file systems often cannot, and then need not.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Opens a file for reading and writing, never through a symbolic link: one that exists, or a new
/// one.
pub fn open_target(path: &Path, is_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(is_new);
    no_follow(&mut options).open(path)
}

/// Gives the buffer the length of a range and fills it as far as the file goes. Returns the number of bytes that
/// were read; none for a hole, of which all are zeros.
pub(crate) fn read_range(
    file: &File,
    range: &Range<u64>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    let length_bytes = range.end.saturating_sub(range.start);
    // What is in it is read over.
    buffer.resize(usize::try_from(length_bytes).unwrap_or(usize::MAX), 0);
    if is_hole(file, range.start, length_bytes) {
        buffer.fill(0);
        return Ok(None);
    }
    read_full_at(file, buffer, range.start).map(Some)
}

/// Fills the buffer as far as the file goes. Returns the number of bytes.
pub fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    read_full(buffer, |rest, filled| {
        read_at(file, rest, offset.saturating_add(filled as u64))
    })
}

/// Fills the buffer until there is no more. `read` gets what is not filled, and how much is. Returns the number of
/// bytes.
pub(crate) fn read_full(
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut filled: usize = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, filled) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes the whole buffer.
pub fn write_all_at(file: &File, mut buffer: &[u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match write_at(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                buffer = buffer.get(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
mod system {
    use super::{Command, File, Metadata, OpenOptions, Ownership, io};
    use rustix::fs::OFlags;
    use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    pub(super) const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

    pub(super) fn inode_and_ctime(metadata: &Metadata, _mtime_ns: i128) -> (u64, i128) {
        let seconds = i128::from(metadata.ctime()).saturating_mul(1_000_000_000);
        (
            metadata.ino(),
            seconds.saturating_add(metadata.ctime_nsec().into()),
        )
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn write_at(file: &File, buffer: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(buffer, offset)
    }

    pub(super) fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
        options.custom_flags(NO_FOLLOW.bits().cast_signed())
    }

    pub(crate) fn ownership(metadata: &Metadata) -> Ownership {
        Ownership {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
    }

    /// What files get that this process makes.
    pub(crate) fn own_ownership(mode: u32) -> Ownership {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Ownership { mode, uid, gid }
    }

    /// The name of this host.
    pub fn hostname() -> String {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    }

    /// Whether a process of this host is alive. True where that cannot be told.
    pub fn is_running(pid: u32) -> bool {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        pid.is_none_or(|pid| {
            rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
        })
    }

    /// Keeps Ctrl-C, which is for this process, from a program that it starts.
    pub fn keep_from_terminal(command: &mut Command) {
        std::os::unix::process::CommandExt::process_group(command, 0);
    }

    /// Gives a file permission bits.
    pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))
    }
}

#[cfg(windows)]
mod system {
    use super::{Command, File, Metadata, OpenOptions, Ownership, io};
    use std::os::windows::fs::{FileExt, OpenOptionsExt};

    /// `FILE_FLAG_OPEN_REPARSE_POINT`.
    const OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    /// `CREATE_NEW_PROCESS_GROUP`.
    const NEW_PROCESS_GROUP: u32 = 0x0000_0200;

    pub(super) fn inode_and_ctime(_metadata: &Metadata, mtime_ns: i128) -> (u64, i128) {
        (0, mtime_ns)
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn write_at(file: &File, buffer: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(buffer, offset)
    }

    pub(super) fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
        options.custom_flags(OPEN_REPARSE_POINT)
    }

    pub(crate) fn ownership(_metadata: &Metadata) -> Ownership {
        own_ownership(0o600)
    }

    pub(crate) fn own_ownership(mode: u32) -> Ownership {
        Ownership {
            mode,
            uid: 0,
            gid: 0,
        }
    }

    pub fn hostname() -> String {
        String::new()
    }

    pub fn is_running(_pid: u32) -> bool {
        true
    }

    pub fn keep_from_terminal(command: &mut Command) {
        std::os::windows::process::CommandExt::creation_flags(command, NEW_PROCESS_GROUP);
    }

    /// Gives a file permission bits.
    pub fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod parent {
    use super::Command;
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    /// Has a program that is to be started end when the thread that starts it ends, also by being killed.
    pub(crate) fn end_with_starter(command: &mut Command) {
        let starter = getpid();
        let ask = move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // Too late if the starter is gone already.
            if getppid() == Some(starter) {
                return Ok(());
            }
            Err(rustix::io::Errno::SRCH.into())
        };
        #[allow(unsafe_code)]
        // SAFETY: `ask` makes system calls only and neither allocates nor locks.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, ask);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod parent {
    use super::Command;

    /// Not known to be possible here.
    pub(crate) fn end_with_starter(_command: &mut Command) {}
}

pub(crate) use parent::end_with_starter;

#[cfg(target_os = "linux")]
mod direct {
    use super::system::NO_FOLLOW;
    use super::{File, OpenOptions, Path, io};
    use rustix::fs::OFlags;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    /// Opens a file for writes that go past the page cache, never through a symbolic link. Refused where the
    /// system or the file system has pages or blocks of more than `most_bytes`.
    pub(crate) fn open_direct(path: &Path, most_bytes: usize) -> io::Result<File> {
        let flags = (NO_FOLLOW | OFlags::DIRECT).bits().cast_signed();
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        let block_bytes = usize::try_from(file.metadata()?.blksize()).unwrap_or(usize::MAX);
        if block_bytes.max(rustix::param::page_size()) > most_bytes {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(file)
    }
}

#[cfg(not(target_os = "linux"))]
mod direct {
    use super::{File, Path, io};

    /// Not done here.
    pub(crate) fn open_direct(_path: &Path, _most_bytes: usize) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
mod holes {
    use super::{File, io};
    use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
    use rustix::io::{Errno, retry_on_intr};

    /// Whether the range is a hole or lies behind the end. False where that cannot be told.
    pub(crate) fn is_hole(file: &File, offset: u64, length: u64) -> bool {
        match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data >= offset.saturating_add(length),
            Err(Errno::NXIO) => true,
            Err(_) => false,
        }
    }

    /// Has room for a range given to the file, whose content stays. Where that is not possible writing does it.
    pub(crate) fn allocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
        let allocate = || fallocate(file, FallocateFlags::KEEP_SIZE, offset, length);
        match retry_on_intr(allocate) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            allocated => Ok(allocated?),
        }
    }

    /// Turns a range inside the file into a hole. False where that is not possible.
    pub fn punch_hole(file: &File, offset: u64, length: u64) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(file, flags, offset, length)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod holes {
    use super::{File, io};

    pub(crate) fn is_hole(_file: &File, _offset: u64, _length: u64) -> bool {
        false
    }

    pub(crate) fn allocate(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    pub fn punch_hole(_file: &File, _offset: u64, _length: u64) -> io::Result<bool> {
        Ok(false)
    }
}

pub(crate) use direct::open_direct;
pub(crate) use holes::allocate;
use holes::is_hole;
pub use holes::punch_hole;
pub use system::{hostname, is_running, keep_from_terminal, set_mode};
use system::{inode_and_ctime, no_follow, read_at, write_at};
pub(crate) use system::{own_ownership, ownership};
