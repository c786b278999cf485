//! One file on its way into the repository: read, cut, hash, look up, store.
//!
//! Several threads read different ranges of one file. Each holds about [`READ_BYTES`] and what it says of one
//! range, so memory does not grow with the file, except for four bytes a chunk.
//! What the scan cache recognises needs no SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use vrs_progress::Counter;

use crate::blob::Sealer;
use crate::block_list::BlockList;
use crate::chunking::{Content, Cutter, Grid, READ_BYTES, SeenHash};
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::ChunkId;
use crate::index::ChunkNumber;
use crate::layout::Part;
use crate::scan_cache::{Entry, ScanCache, ScanWriter};
use crate::sink::{ChunkRef, Sink, ZeroChunks, is_zero};
use crate::{parallel, platform};

/// What a file cost.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) read_bytes: AtomicU64,
    pub(crate) reused_bytes: AtomicU64,
    pub(crate) recognised_bytes: AtomicU64,
    pub(crate) new_chunks: AtomicU64,
    /// Bytes of all chunks; must end up as the file's length.
    pub(crate) total_bytes: AtomicU64,
}

/// See the module.
pub(crate) struct Intake<'a> {
    pub(crate) sink: &'a Sink<'a>,
    pub(crate) zeros: &'a ZeroChunks,
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
    pub(crate) cache: Option<&'a ScanCache<'a>>,
    pub(crate) tally: Tally,
}

/// What one thread does at a time.
enum Job {
    Known {
        chunks: Vec<ChunkNumber>,
        length_bytes: u64,
    },
    /// Read this and cut it on the grid.
    OnGrid(Grid, Range<u64>),
    /// Read this and cut it by its content.
    ByContent(Content, Range<u64>),
}

/// Chunks of the file, in order.
enum Taken {
    Known(Vec<ChunkRef>),
    Read(Vec<Stored>),
}

/// A chunk, with what the scan cache is to remember of it.
type Stored = (ChunkRef, Option<Entry>);

impl Intake<'_> {
    /// The chunks of the whole file, in order.
    pub(crate) fn chunks(
        &self,
        parts: Vec<Part>,
        cutter: Cutter,
        threads: usize,
    ) -> Result<BlockList<ChunkRef>> {
        let unknown_bytes: u64 = parts.iter().map(Part::unknown_bytes).sum();
        // Whoever vouches for parts of a file says that the others changed. To look for those first would cost more
        // than to hash them all once more when the file is next read as a whole.
        let is_known_to_change = parts.iter().any(|part| matches!(part, Part::Known { .. }));
        let cache = self.cache.filter(|_| !is_known_to_change);
        let jobs = parts.into_iter().flat_map(|part| self.jobs(part, cutter));
        let threads = if unknown_bytes <= READ_BYTES {
            1
        } else {
            threads
        };
        let worker = || {
            Ok(Worker {
                intake: self,
                cache,
                sealer: self.sink.sealer()?,
                buffer: Vec::new(),
            })
        };
        let mut chunks = BlockList::default();
        let mut memory = Memory::of(self.cache.filter(|_| unknown_bytes > 0));
        let add = |taken: Taken| {
            memory.add(&taken);
            match taken {
                Taken::Known(known) => chunks.extend(known),
                Taken::Read(read) => chunks.extend(read.into_iter().map(|(chunk, _)| chunk)),
            }
        };
        parallel::each(threads, jobs, worker, Worker::work, add)?;
        memory.finish();
        Ok(chunks)
    }

    fn jobs<'b>(
        &'b self,
        part: Part,
        cutter: Cutter,
    ) -> Box<dyn Iterator<Item = Result<Job>> + 'b> {
        match (part, cutter) {
            (Part::Known { chunks, range }, _) => {
                let length_bytes = range.end.saturating_sub(range.start);
                Box::new(std::iter::once(Ok(Job::Known {
                    chunks,
                    length_bytes,
                })))
            }
            (Part::Unknown(range), Cutter::Grid(grid)) => Box::new(
                grid.reads(range)
                    .map(move |read| Ok(Job::OnGrid(grid, read))),
            ),
            (Part::Unknown(range), Cutter::Content(content)) => {
                Box::new(self.content_jobs(range, content))
            }
        }
    }

    /// Parts that several threads can cut at the same time. Each begins where a chunk ends.
    fn content_jobs(
        &self,
        range: Range<u64>,
        content: Content,
    ) -> impl Iterator<Item = Result<Job>> + '_ {
        let mut rest = range;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let part_bytes = content.part_bytes(rest.end.saturating_sub(rest.start));
            let end = self.seam(&rest, content, rest.start.saturating_add(part_bytes));
            let start = std::mem::replace(&mut rest.start, *end.as_ref().unwrap_or(&rest.end));
            Some(end.map(|end| Job::ByContent(content, start..end)))
        })
    }

    /// Where a chunk ends at or behind a place in a range.
    fn seam(&self, range: &Range<u64>, content: Content, place: u64) -> Result<u64> {
        let around = content.around(place);
        let around = around.start.max(range.start)..around.end.min(range.end);
        if place >= around.end {
            return Ok(range.end);
        }
        let length = usize::try_from(around.end.saturating_sub(around.start));
        let mut bytes = vec![0; length.unwrap_or(usize::MAX)];
        let read = platform::read_full_at(self.file, &mut bytes, around.start)
            .map_err(|error| Error::local(self.path, "read", Some(around.start), error))?;
        bytes.truncate(read);
        let before = usize::try_from(place.saturating_sub(around.start)).unwrap_or(usize::MAX);
        let seam = content.seam(&bytes, before) as u64;
        // Of a file that shrinks meanwhile nothing is stored.
        Ok(around.start.saturating_add(seam).max(place))
    }

    fn changed(&self) -> Error {
        Error::Changed {
            path: self.path.to_path_buf(),
        }
    }
}

impl Part {
    fn unknown_bytes(&self) -> u64 {
        match self {
            Self::Known { .. } => 0,
            Self::Unknown(range) => range.end.saturating_sub(range.start),
        }
    }
}

/// The next scan's cache. A failure to write it costs that scan time, and nothing else.
struct Memory<'a>(Option<ScanWriter<'a>>);

impl<'a> Memory<'a> {
    fn of(cache: Option<&'a ScanCache<'a>>) -> Self {
        Self(cache.and_then(|cache| cache.successor().ok()))
    }

    fn add(&mut self, taken: &Taken) {
        let Some(writer) = self.0.as_mut() else {
            return;
        };
        let written = match taken {
            Taken::Known(known) => writer.keep(known.len()),
            Taken::Read(read) => read.iter().try_for_each(|(_, entry)| writer.push(*entry)),
        };
        if written.is_err() {
            self.0 = None;
        }
    }

    fn finish(self) {
        let _ = self.0.map(ScanWriter::finish);
    }
}

/// What the scan cache says of a chunk.
enum Looked {
    Recognised(ChunkRef, Entry),
    /// With its BLAKE3, if it is to be remembered.
    Unknown(Option<SeenHash>),
}

impl Looked {
    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

struct Worker<'a> {
    intake: &'a Intake<'a>,
    /// Where chunks are looked for.
    cache: Option<&'a ScanCache<'a>>,
    sealer: Sealer<'a>,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn work(&mut self, job: Job) -> Result<Taken> {
        stop_if_interrupted(self.intake.sink.progress)?;
        match job {
            Job::Known {
                chunks,
                length_bytes,
            } => {
                self.account(length_bytes, false);
                let known = chunks.into_iter().map(Sink::stored).collect::<Result<_>>();
                known.map(Taken::Known)
            }
            Job::OnGrid(grid, range) => self.on_grid(grid, range).map(Taken::Read),
            Job::ByContent(content, range) => self.by_content(content, range).map(Taken::Read),
        }
    }

    fn on_grid(&mut self, grid: Grid, range: Range<u64>) -> Result<Vec<Stored>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.fill(&mut buffer, &range)?;
        let mut rest = buffer.as_slice();
        let mut read = Vec::new();
        let mut entries = self.entries(grid, &range).into_iter();
        for chunk in grid.chunks(range) {
            let length =
                usize::try_from(chunk.end.saturating_sub(chunk.start)).unwrap_or(usize::MAX);
            let (raw, after) = rest
                .split_at_checked(length)
                .ok_or_else(|| self.intake.changed())?;
            read.push((raw, self.grid_chunk(raw, entries.next().flatten())?));
            rest = after;
        }
        let chunks = self.store(&read)?;
        self.buffer = buffer;
        Ok(chunks)
    }

    fn by_content(&mut self, content: Content, range: Range<u64>) -> Result<Vec<Stored>> {
        let intake = self.intake;
        let start = range.start;
        let source = RangeReader {
            counter: Some(&intake.tally.read_bytes),
            ..RangeReader::new(intake.file, range)
        };
        let index = &intake.sink.base().index;
        let recall = self.cache.and_then(|cache| cache.recall(index));
        let mut pieces = content.pieces(source, recall);
        let failed = |error| Error::local(intake.path, "read", Some(start), error);
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().map_err(failed)? {
            stop_if_interrupted(intake.sink.progress)?;
            let chunks = piece.chunks();
            let read = chunks.map(|(raw, seen)| Ok((raw, self.content_chunk(raw, seen)?)));
            let read = read.collect::<Result<Vec<_>>>()?;
            all.extend(self.store(&read)?);
        }
        Ok(all)
    }

    /// What is known about the chunks of a range.
    fn entries(&self, grid: Grid, range: &Range<u64>) -> Vec<Option<Entry>> {
        let count = grid.chunks(range.clone()).count();
        let first = grid.number_at(range.start);
        let entries = self.cache.map(|cache| cache.entries(first, count));
        entries.unwrap_or_default()
    }

    /// A chunk that may be the one which lay here the last time.
    fn grid_chunk(&self, raw: &[u8], entry: Option<Entry>) -> Result<Looked> {
        self.look_up(raw, None, |_, seen| entry.filter(|entry| entry.is_of(seen)))
    }

    /// A chunk that may have lain anywhere the last time.
    fn content_chunk(&self, raw: &[u8], seen: Option<SeenHash>) -> Result<Looked> {
        let index = &self.intake.sink.base().index;
        self.look_up(raw, seen, |cache, seen| cache.of_bytes(index, seen))
    }

    /// `find` looks in the scan cache for what is known of the bytes with a BLAKE3.
    fn look_up(
        &self,
        raw: &[u8],
        seen: Option<SeenHash>,
        find: impl FnOnce(&ScanCache<'_>, &SeenHash) -> Option<Entry>,
    ) -> Result<Looked> {
        let Some(cache) = self.cache.filter(|_| !is_zero(raw)) else {
            return Ok(Looked::Unknown(None));
        };
        let seen = seen.unwrap_or_else(|| cache.seen(raw));
        let Some(known) = find(cache, &seen) else {
            return Ok(Looked::Unknown(Some(seen)));
        };
        let proven = cache.proven(known, || self.intake.zeros.id_of(raw));
        let stored = proven.map_or(Ok(None), |id| self.intake.sink.known(&id))?;
        Ok(stored.map_or(Looked::Unknown(Some(seen)), |chunk| {
            Looked::Recognised(chunk, known)
        }))
    }

    /// What was read, in order. What was not recognised is hashed at once: see `vrs_sha256`.
    fn store(&mut self, read: &[(&[u8], Looked)]) -> Result<Vec<Stored>> {
        let unknown = read.iter().filter(|(_, looked)| looked.is_unknown());
        let unknown = unknown.map(|(raw, _)| (*raw, None));
        let mut ids = self.intake.zeros.ids_of(unknown).into_iter();
        let stored = read.iter().map(|(raw, looked)| match looked {
            Looked::Recognised(chunk, known) => {
                self.recognised(raw);
                Ok((*chunk, Some(*known)))
            }
            Looked::Unknown(seen) => {
                let id = ids.next().unwrap_or_else(|| self.intake.zeros.id_of(raw));
                let entry = seen.map(|seen| Entry { seen, chunk: id });
                Ok((self.identified(raw, id)?, entry))
            }
        });
        stored.collect()
    }

    fn recognised(&self, raw: &[u8]) {
        let length_bytes = raw.len() as u64;
        let recognised = &self.intake.tally.recognised_bytes;
        recognised.fetch_add(length_bytes, Ordering::Relaxed);
        self.account(length_bytes, false);
    }

    fn fill(&self, buffer: &mut Vec<u8>, range: &Range<u64>) -> Result<()> {
        let intake = self.intake;
        let read = platform::read_range(intake.file, range, buffer)
            .map_err(|error| Error::local(intake.path, "read", Some(range.start), error))?;
        let Some(read) = read else {
            return Ok(());
        };
        intake
            .tally
            .read_bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        if read == buffer.len() {
            Ok(())
        } else {
            Err(intake.changed())
        }
    }

    fn identified(&mut self, raw: &[u8], id: ChunkId) -> Result<ChunkRef> {
        let (chunk, is_new) = self.intake.sink.store(&mut self.sealer, id, raw)?;
        self.account(raw.len() as u64, is_new);
        Ok(chunk)
    }

    fn account(&self, length_bytes: u64, new: bool) {
        let (tally, progress) = (&self.intake.tally, self.intake.sink.progress);
        tally.total_bytes.fetch_add(length_bytes, Ordering::Relaxed);
        progress.add(Counter::Scanned, length_bytes);
        if new {
            tally.new_chunks.fetch_add(1, Ordering::Relaxed);
        } else {
            tally
                .reused_bytes
                .fetch_add(length_bytes, Ordering::Relaxed);
            progress.add(Counter::Reused, length_bytes);
        }
    }
}

/// A range of a file as a stream.
pub(crate) struct RangeReader<'a> {
    file: &'a File,
    range: Range<u64>,
    /// Where the bytes are counted.
    counter: Option<&'a AtomicU64>,
}

impl<'a> RangeReader<'a> {
    pub(crate) const fn new(file: &'a File, range: Range<u64>) -> Self {
        Self {
            file,
            range,
            counter: None,
        }
    }
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left =
            usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let wanted = buffer.get_mut(..length).unwrap_or_default();
        let read = platform::read_full_at(self.file, wanted, self.range.start)?;
        self.range.start = self.range.start.saturating_add(read as u64);
        if let Some(counter) = self.counter {
            counter.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(read)
    }
}
