//! Writes past the page cache: what is restored or stored is more than anybody will read of it soon, and
//! copying it there takes as long as decrypting it.
//!
//! It is tried, and done in the usual way wherever it is not possible. Nothing is promised before the file is
//! flushed, as ever.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::platform;

/// What every file system that can do without a copy asks of places in memory and in files, or less.
const ALIGNMENT: usize = 4096;
/// A stream is written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// A buffer from which storage can take bytes without a copy. It keeps its memory, which is as much as the
/// most that was asked for.
pub(crate) struct AlignedBuffer(Vec<u8>);

impl AlignedBuffer {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// So many bytes, in which anything may be.
    pub(crate) fn room(&mut self, length_bytes: usize) -> &mut [u8] {
        let needed = length_bytes.saturating_add(ALIGNMENT);
        if self.0.len() < needed {
            // Nothing of what is in it needs to be moved.
            self.0 = vec![0; needed];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        let room = start..start.saturating_add(length_bytes);
        self.0.get_mut(room).unwrap_or_default()
    }
}

/// Another way to write to a file.
pub(crate) struct DirectFile {
    file: File,
    is_refused: AtomicBool,
}

impl DirectFile {
    /// For a file that is open, if its file system has another way.
    pub(crate) fn beside(file: &File, path: &Path) -> Option<Self> {
        let direct = platform::open_direct(path).ok()?;
        let inode = |file: &File| file.metadata().map(|found| platform::stamp(&found).inode);
        let is_same = inode(file).ok()? == inode(&direct).ok()?;
        is_same.then_some(Self {
            file: direct,
            is_refused: AtomicBool::new(false),
        })
    }

    /// Writes bytes, if it can be done with them. When it returns false they have to be written in the usual
    /// way.
    fn write(&self, content: &[u8], offset: u64) -> io::Result<bool> {
        if !is_aligned(content, offset) || self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match platform::write_all_at(&self.file, content, offset) {
            // A file system that opens files in this way, and then wants other alignments.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }
}

/// Writes bytes to a file past the page cache, where that is possible, or else in the usual way. Returns whether it
/// was possible.
pub(crate) fn write_all_at(
    file: &File,
    direct: Option<&DirectFile>,
    bytes: &[u8],
    offset: u64,
) -> io::Result<bool> {
    let is_written = direct.map_or(Ok(false), |direct| direct.write(bytes, offset))?;
    if !is_written {
        platform::write_all_at(file, bytes, offset)?;
    }
    Ok(is_written)
}

fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let is_multiple = |number: u64| number.is_multiple_of(ALIGNMENT as u64);
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
        && is_multiple(bytes.len() as u64)
        && is_multiple(offset)
}

/// Fills a new file from its start. Memory: one piece.
pub(crate) struct DirectStream<'a> {
    file: &'a File,
    path: &'a Path,
    /// From the first whole piece on.
    direct: Option<DirectFile>,
    piece: AlignedBuffer,
    filled: usize,
    offset: u64,
}

impl<'a> DirectStream<'a> {
    pub(crate) const fn new(file: &'a File, path: &'a Path) -> Self {
        Self {
            file,
            path,
            direct: None,
            piece: AlignedBuffer::new(),
            filled: 0,
            offset: 0,
        }
    }
}

impl Write for DirectStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.piece.room(PIECE_BYTES);
        let room = room.get_mut(self.filled..).unwrap_or_default();
        let taken = bytes.len().min(room.len());
        let (room, bytes) = (room.get_mut(..taken), bytes.get(..taken));
        if let (Some(room), Some(bytes)) = (room, bytes) {
            room.copy_from_slice(bytes);
        }
        self.filled = self.filled.saturating_add(taken);
        if self.filled == PIECE_BYTES {
            if self.offset == 0 {
                self.direct = DirectFile::beside(self.file, self.path);
            }
            self.flush()?;
        }
        Ok(taken)
    }

    /// Hands over what it has. What follows is written in the usual way, unless that was a whole piece.
    fn flush(&mut self) -> io::Result<()> {
        let piece = self.piece.room(self.filled);
        write_all_at(self.file, self.direct.as_ref(), piece, self.offset)?;
        self.offset = self.offset.saturating_add(self.filled as u64);
        self.filled = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_aligned_and_as_long_as_asked_for() {
        let mut buffer = AlignedBuffer::new();
        for length_bytes in [0, 1, 8192, 100, 1 << 20, 4096] {
            let room = buffer.room(length_bytes);
            assert_eq!(room.len(), length_bytes);
            assert_eq!(room.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(is_aligned(room, 8192), length_bytes % ALIGNMENT == 0);
            assert!(!is_aligned(room, 512) || length_bytes == 0);
        }
        assert!(!is_aligned(&buffer.room(8192)[1..4097], 0));
    }

    #[test]
    fn a_stream_arrives_whole_however_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let bytes: Vec<u8> = (0..PIECE_BYTES * 5 / 2)
            .map(|at| (at / 3 % 251) as u8)
            .collect();
        for at_once in [777, 4096, PIECE_BYTES, bytes.len()] {
            let file = File::create(&path).unwrap();
            let mut stream = DirectStream::new(&file, &path);
            for part in bytes.chunks(at_once) {
                stream.write_all(part).unwrap();
            }
            stream.flush().unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_file_of_that_name_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vdi");
        let file = File::create(&path).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        assert!(DirectFile::beside(&file, &path).is_none());
        std::fs::write(&path, "another").unwrap();
        assert!(DirectFile::beside(&file, &path).is_none());
    }
}
