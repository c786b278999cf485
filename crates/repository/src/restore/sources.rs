//! Where missing chunks lie on this host: a bit for each chunk of the index, and 24 bytes for each chunk
//! that lies elsewhere. Everything found is a hint: it is verified again when it is used.

use std::ops::Range;

use fixedbitset::FixedBitSet;
use rustic_core::repofile::BlobType;

use crate::index::ChunkNumber;
use crate::layout::StoredChunk;

use super::Restore;
use super::place::Place;
use super::survey::State;

/// A file that chunks can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LocalFile {
    Target(u32),
    Seed(u32),
}

/// A place that held a wanted chunk when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) chunk: ChunkNumber,
    pub(super) file: LocalFile,
    pub(super) offset: u64,
    pub(super) length_bytes: u32,
}

impl Source {
    pub(super) fn new(chunk: ChunkNumber, file: LocalFile, range: &Range<u64>) -> Self {
        let length_bytes = range.end.saturating_sub(range.start);
        Self {
            chunk,
            file,
            offset: range.start,
            length_bytes: u32::try_from(length_bytes).unwrap_or(u32::MAX),
        }
    }

    /// Where it begins, as those are sorted that are overwritten.
    pub(super) const fn begins(&self) -> (LocalFile, u64) {
        (self.file, self.offset)
    }

    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length_bytes.into())
    }
}

/// See the module.
pub(super) struct Sources {
    /// Chunks of which no place is known.
    sought: FixedBitSet,
    /// In places that this restore overwrites.
    pub(super) moving: Vec<Source>,
    /// In places that stay.
    pub(super) staying: Vec<Source>,
}

impl Sources {
    /// Before anything is compared, all chunks of all targets are sought.
    pub(super) fn new(restore: &Restore<'_>) -> Self {
        let targets = restore.targets.iter();
        let wanted = targets.flat_map(|target| target.chunks.numbers());
        Self {
            sought: set(restore, wanted),
            moving: Vec::new(),
            staying: Vec::new(),
        }
    }

    /// Remembers those chunks of a local file that are sought.
    pub(super) fn saw_all(
        &mut self,
        file: LocalFile,
        chunks: impl Iterator<Item = (ChunkNumber, Range<u64>)>,
    ) {
        for (chunk, range) in chunks {
            self.saw(Source::new(chunk, file, &range));
        }
    }

    /// Remembers a chunk if it is sought.
    pub(super) fn saw(&mut self, source: Source) {
        if self.take(&source) {
            match source.file {
                LocalFile::Target(_) => self.moving.push(source),
                LocalFile::Seed(_) => self.staying.push(source),
            }
        }
    }

    /// Whether a chunk was sought. It is not any more.
    fn take(&mut self, source: &Source) -> bool {
        let was_sought = self.is_sought(source.chunk);
        self.sought.set(source.chunk.place(), false);
        was_sought
    }

    pub(super) fn is_sought(&self, chunk: ChunkNumber) -> bool {
        self.sought.contains(chunk.place())
    }

    pub(super) fn sought_chunks(&self) -> u64 {
        self.sought.count_ones(..) as u64
    }

    pub(super) fn is_all_found(&self) -> bool {
        self.sought.is_clear()
    }

    /// What was expected there is not.
    pub(super) fn lost(&mut self, chunks: &[ChunkNumber]) {
        let places = chunks.iter().map(|chunk| chunk.place());
        places.for_each(|place| self.sought.grow_and_insert(place));
    }

    /// Once all targets are compared, only what is missing is sought; and some of that is in place elsewhere.
    pub(super) fn all_compared(&mut self, restore: &Restore<'_>) {
        self.sought = set(restore, restore.missing().map(|(_, chunk)| chunk));
        let mut staying = std::mem::take(&mut self.staying);
        let mut moving = std::mem::take(&mut self.moving);
        if self.is_all_found() {
            return;
        }
        staying.retain(|source| self.take(source));
        staying.extend(restore.in_place().filter(|source| self.take(source)));
        moving.retain(|source| self.take(source));
        (self.staying, self.moving) = (staying, moving);
    }
}

/// Chunks of the index.
pub(super) fn set(restore: &Restore<'_>, chunks: impl Iterator<Item = ChunkNumber>) -> FixedBitSet {
    let mut set = FixedBitSet::with_capacity(restore.loaded.index.len(BlobType::Data));
    chunks.for_each(|chunk| set.grow_and_insert(chunk.place()));
    set
}

impl Restore<'_> {
    /// All chunks that are where they belong.
    fn in_place(&self) -> impl Iterator<Item = Source> + '_ {
        let targets = (0..).map(LocalFile::Target).zip(&self.targets);
        targets.flat_map(|(file, target)| {
            let chunks = target.chunks.places().zip(&target.states);
            let in_place = chunks.filter(|(_, state)| **state == State::InPlace);
            in_place.map(move |((chunk, range), _)| Source::new(chunk, file, &range))
        })
    }

    /// What is lost when a place is written to.
    pub(super) fn overwritten(&self, place: Place) -> Option<(LocalFile, StoredChunk)> {
        let number = u32::try_from(self.target_number(place)?).ok()?;
        Some((LocalFile::Target(number), self.stored(place)?))
    }
}
