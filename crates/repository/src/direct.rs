//! Writes past the page cache: what is restored or stored is more than anybody will read of it soon, and
//! copying it there takes as long as decrypting it.
//!
//! It is tried, and done in the usual way wherever it is not possible. Nothing is promised before the file is
//! flushed, as ever.
//!
//! Parts of a run that are not whole pages go through the page cache. While that happens nobody can write past it, and
//! it waits until nobody does, so that some megabytes of such parts are kept back and then written at once
//! ([`DirectFile::settle`]).
//!
//! The page cache may hold several pages of a file as one. While one thread writes to a part of those through the cache,
//! what another thread writes to the rest past it can be hidden by what the cache has, or by some systems even
//! overwritten with it. So a file of which the cache may have something is written past it only if all that is written
//! [`is_on_pages`]. Of a new file, which nobody reads, the cache has no more than the pages that were written through
//! it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::parallel::lock;
use crate::platform;

/// What every file system that can do without a copy asks of places in memory and in files, or less; and the size of
/// a page, or it is not done.
const ALIGNMENT: usize = 4096;
const ALIGNMENT_BYTES: u64 = ALIGNMENT as u64;
/// So much is written at once.
const PIECE_BYTES: usize = 1 << 20;
/// Less than that is sooner copied into the page cache than written past it.
const LEAST_BYTES: usize = 64 << 10;
/// So much of a file is kept back at most.
const MOST_BACK_BYTES: usize = 4 << 20;

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

    /// The same several times.
    pub(crate) fn rooms(&mut self, lengths_bytes: &[usize]) -> Vec<&mut [u8]> {
        let padded = |length_bytes: &usize| {
            let padded = length_bytes.checked_next_multiple_of(ALIGNMENT);
            padded.unwrap_or(usize::MAX)
        };
        let all_bytes = lengths_bytes.iter().map(padded);
        let mut rest = self.room(all_bytes.fold(0, usize::saturating_add));
        let rooms = lengths_bytes.iter().map(|length_bytes| {
            let (room, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(padded(length_bytes))
                .unwrap_or_default();
            rest = after;
            room.get_mut(..*length_bytes).unwrap_or_default()
        });
        rooms.collect()
    }
}

/// Another way to write to a file.
pub(crate) struct DirectFile {
    file: File,
    is_refused: AtomicBool,
    kept_back: Mutex<KeptBack>,
    /// Whoever writes past the page cache reads it; whoever writes what was kept back has it alone.
    turn: RwLock<()>,
}

/// Bytes that are to go through the page cache, and where.
#[derive(Default)]
struct KeptBack {
    parts: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl DirectFile {
    /// For a file that is open, if its file system has another way.
    pub(crate) fn beside(file: &File, path: &Path) -> Option<Self> {
        let direct = platform::open_direct(path, ALIGNMENT).ok()?;
        let inode = |file: &File| file.metadata().map(|found| platform::stamp(&found).inode);
        let is_same = inode(file).ok()? == inode(&direct).ok()?;
        is_same.then_some(Self {
            file: direct,
            is_refused: AtomicBool::new(false),
            kept_back: Mutex::default(),
            turn: RwLock::new(()),
        })
    }

    /// Keeps bytes back that are not whole pages of the file. Returns how many bytes went into the page cache.
    fn keep_back(&self, file: &File, part: &[u8], offset: u64) -> io::Result<u64> {
        let bytes = {
            let mut kept_back = lock(&self.kept_back);
            kept_back.parts.push((offset, part.to_vec()));
            kept_back.bytes = kept_back.bytes.saturating_add(part.len());
            kept_back.bytes
        };
        if bytes < MOST_BACK_BYTES {
            return Ok(0);
        }
        self.settle(file)
    }

    /// Writes what was kept back. It must be done before anything else is written to the same places, or read from
    /// there. Returns how many bytes that were.
    pub(crate) fn settle(&self, file: &File) -> io::Result<u64> {
        let KeptBack { mut parts, bytes } = std::mem::take(&mut *lock(&self.kept_back));
        if parts.is_empty() {
            return Ok(0);
        }
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        let _alone = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        for (offset, part) in &parts {
            platform::write_all_at(file, part, *offset)?;
        }
        Ok(bytes as u64)
    }

    /// Writes bytes, if it can be done with them. When it returns false they have to be written in the usual
    /// way.
    fn write(&self, content: &[u8], offset: u64) -> io::Result<bool> {
        if !is_aligned(content, offset) || self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
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

/// Whether a part of a file consists of whole pages.
pub(crate) const fn is_on_pages(offset: u64, length_bytes: u64) -> bool {
    offset.is_multiple_of(ALIGNMENT_BYTES) && length_bytes.is_multiple_of(ALIGNMENT_BYTES)
}

/// Whether bytes can be written past the page cache from where they are.
pub(crate) fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    bytes.as_ptr().align_offset(ALIGNMENT) == 0 && is_on_pages(offset, bytes.len() as u64)
}

/// Bytes that follow each other in a file, gathered until they are worth a write of their own. Memory: one piece.
pub(crate) struct Run {
    /// Holds a piece of the file that begins at a multiple of the alignment.
    piece: AlignedBuffer,
    /// Where the first byte of the run lies in the piece.
    from: usize,
    to: usize,
    /// In the file, of the first byte.
    offset: u64,
}

impl Run {
    pub(crate) const fn new() -> Self {
        Self {
            piece: AlignedBuffer::new(),
            from: 0,
            to: 0,
            offset: 0,
        }
    }

    /// Forgets all bytes and begins anew.
    pub(crate) const fn begin(&mut self, offset: u64) {
        self.from = (offset % ALIGNMENT_BYTES) as usize;
        self.to = self.from;
        self.offset = offset;
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    const fn is_full(&self) -> bool {
        self.to == PIECE_BYTES
    }

    /// Where its first byte belongs in the file.
    pub(crate) const fn begins(&self) -> u64 {
        self.offset
    }

    /// Where the next byte belongs.
    pub(crate) const fn end(&self) -> u64 {
        self.offset
            .saturating_add(self.to.saturating_sub(self.from) as u64)
    }

    /// Takes as many bytes as there is room for, and returns how many.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let piece = self.piece.room(PIECE_BYTES);
        let room = piece.get_mut(self.to..).unwrap_or_default();
        let taken = bytes.len().min(room.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..taken), bytes.get(..taken)) {
            room.copy_from_slice(bytes);
        }
        self.to = self.to.saturating_add(taken);
        taken
    }

    /// Writes what it holds, or keeps parts of it back, and goes on behind it. Returns how many bytes went into the page
    /// cache.
    pub(crate) fn write(&mut self, file: &File, direct: Option<&DirectFile>) -> io::Result<u64> {
        let mut cached_bytes: u64 = 0;
        let parts = self.parts();
        let piece = self.piece.room(PIECE_BYTES);
        let mut rest = piece.get(self.from..self.to).unwrap_or_default();
        for length in parts {
            let (part, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            let cached = match direct {
                Some(direct) if !is_aligned(part, self.offset) => {
                    direct.keep_back(file, part, self.offset)?
                }
                _ if write_all_at(file, direct, part, self.offset)? => 0,
                _ => part.len() as u64,
            };
            cached_bytes = cached_bytes.saturating_add(cached);
            self.offset = self.offset.saturating_add(part.len() as u64);
            rest = after;
        }
        self.begin(self.offset);
        Ok(cached_bytes)
    }

    /// How long its parts are: up to the first page, whole pages, and the rest.
    fn parts(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.from.next_multiple_of(ALIGNMENT).min(self.to);
        let last = self.to.saturating_sub(self.to % ALIGNMENT).max(first);
        let is_on_pages = first == self.from && last == self.to;
        let ends = if !is_on_pages && last.saturating_sub(first) < LEAST_BYTES {
            [self.from, self.from, self.to]
        } else {
            [first, last, self.to]
        };
        let mut start = self.from;
        let lengths = ends.into_iter().map(move |end| {
            let length = end.saturating_sub(start);
            start = end;
            length
        });
        lengths.filter(|length| *length > 0)
    }
}

/// Fills a new file from its start. Memory: one piece.
pub(crate) struct DirectStream<'a> {
    file: &'a File,
    path: &'a Path,
    /// From the first whole piece on.
    direct: Option<DirectFile>,
    run: Run,
}

impl<'a> DirectStream<'a> {
    pub(crate) const fn new(file: &'a File, path: &'a Path) -> Self {
        Self {
            file,
            path,
            direct: None,
            run: Run::new(),
        }
    }
}

impl Write for DirectStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.run.take(bytes);
        if self.run.is_full() {
            if self.run.offset == 0 {
                self.direct = DirectFile::beside(self.file, self.path);
            }
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.run.write(self.file, self.direct.as_ref())?;
        if let Some(direct) = &self.direct {
            direct.settle(self.file)?;
        }
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
    fn rooms_are_aligned_and_apart() {
        let mut buffer = AlignedBuffer::new();
        let lengths = [5000, 0, 4096, 1, 4095];
        let mut rooms = buffer.rooms(&lengths);
        for (room, filler) in rooms.iter_mut().zip(1..) {
            room.fill(filler);
        }
        for ((room, length), filler) in rooms.iter().zip(lengths).zip(1..) {
            assert!(room.len() == length && room.iter().all(|byte| *byte == filler));
            assert_eq!(room.as_ptr().align_offset(ALIGNMENT), 0);
        }
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

    #[test]
    fn runs_arrive_wherever_they_begin_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sav");
        let bytes: Vec<u8> = (0..PIECE_BYTES * 3)
            .map(|at| (at / 3 % 251) as u8)
            .collect();
        let ends = [
            0,
            1,
            4095,
            4096,
            8192,
            8193,
            70_000,
            270_000,
            274_096,
            PIECE_BYTES + 5,
            bytes.len(),
        ];
        let file = File::create(&path).unwrap();
        let direct = DirectFile::beside(&file, &path);
        let mut run = Run::new();
        for pair in ends.windows(2).rev() {
            run.begin(pair[0] as u64);
            let mut rest = &bytes[pair[0]..pair[1]];
            let mut cached_bytes = 0;
            while !rest.is_empty() {
                rest = &rest[run.take(rest)..];
                assert_eq!(
                    run.is_full(),
                    !rest.is_empty() || run.end().is_multiple_of(PIECE_BYTES as u64)
                );
                cached_bytes += run.write(&file, direct.as_ref()).unwrap();
                assert!(run.is_empty());
            }
            if let Some(direct) = &direct {
                cached_bytes += direct.settle(&file).unwrap();
            }
            assert_eq!(run.end(), pair[1] as u64);
            let length = (pair[1] - pair[0]) as u64;
            assert!(cached_bytes <= length);
            if direct.is_some() && is_on_pages(pair[0] as u64, length) {
                assert_eq!(cached_bytes, 0);
            }
            if direct.is_some() && pair[1] - pair[0] > 2 * LEAST_BYTES {
                assert!(cached_bytes < 2 * ALIGNMENT as u64 + LEAST_BYTES as u64);
            }
        }
        assert!(std::fs::read(&path).unwrap() == bytes);
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
