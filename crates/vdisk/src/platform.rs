//! The file operations that differ between operating systems: positional reads and writes, which
//! several threads may issue on one file at once, and making a rename durable.

use std::fs::File;
use std::io;
use std::path::Path;

/// Fills `buffer` from `offset_bytes` of `file`.
#[cfg(unix)]
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset_bytes)
}

/// Writes all of `bytes` at `offset_bytes` of `file`.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset_bytes)
}

/// Fills `buffer` from `offset_bytes` of `file`.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset_bytes: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        let count = match file.seek_read(buffer, offset_bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        buffer = buffer.get_mut(count..).unwrap_or_default();
        offset_bytes = offset_bytes.saturating_add(count as u64);
    }
    Ok(())
}

/// Writes all of `bytes` at `offset_bytes` of `file`.
#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset_bytes: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let count = match file.seek_write(bytes, offset_bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes = bytes.get(count..).unwrap_or_default();
        offset_bytes = offset_bytes.saturating_add(count as u64);
    }
    Ok(())
}

/// The position is shared by all users of a file here, so that they take turns.
#[cfg(not(any(unix, windows)))]
static POSITION: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Fills `buffer` from `offset_bytes` of `file`.
#[cfg(not(any(unix, windows)))]
pub fn read_exact_at(mut file: &File, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let _turn = POSITION.lock();
    file.seek(SeekFrom::Start(offset_bytes))?;
    file.read_exact(buffer)
}

/// Writes all of `bytes` at `offset_bytes` of `file`.
#[cfg(not(any(unix, windows)))]
pub fn write_all_at(mut file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    let _turn = POSITION.lock();
    file.seek(SeekFrom::Start(offset_bytes))?;
    file.write_all(bytes)
}

/// Makes the name of `file` durable, after it was created or renamed.
#[cfg(unix)]
pub fn sync_name(file: &Path) -> io::Result<()> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Folders cannot be flushed here; the file system does so in its own time.
#[cfg(not(unix))]
pub fn sync_name(_file: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether `path` is a device of the host.
#[cfg(unix)]
pub fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = path.metadata().map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_block_device() || kind.is_char_device())
}

/// Whether `path` is a device of the host, which is only told by its name here.
#[cfg(not(unix))]
pub fn is_device(_path: &Path) -> bool {
    false
}
