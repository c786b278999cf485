//! The chunks of a stored file, and which parts of a file are reused from an earlier snapshot.

use std::ops::Range;
use std::sync::Arc;

use crate::id::ChunkId;
use crate::index::{BlobLocation, ChunkNumber};
use crate::loaded_index::LoadedIndex;

/// A chunk of a stored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredChunk {
    pub(crate) offset: u64,
    pub(crate) length_bytes: u32,
    pub(crate) id: ChunkId,
}

impl StoredChunk {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length_bytes.into())
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.end()
    }
}

/// So many chunks share one offset in memory; those in between follow from the lengths of the chunks.
const CHUNKS_PER_OFFSET: usize = 16;

/// The chunks of a stored file in order, without gaps: 4.5 bytes a chunk, as the index holds the ids
/// and lengths.
pub(crate) struct ChunkList {
    loaded: Arc<LoadedIndex>,
    numbers: Arc<Vec<ChunkNumber>>,
    /// Of every [`CHUNKS_PER_OFFSET`]th chunk.
    offsets: Vec<u64>,
    size_bytes: u64,
}

impl ChunkList {
    /// Of these chunks of an index.
    pub(crate) fn new(loaded: Arc<LoadedIndex>, numbers: Arc<Vec<ChunkNumber>>) -> Self {
        let mut list = Self {
            loaded,
            offsets: Vec::with_capacity(numbers.len().div_ceil(CHUNKS_PER_OFFSET)),
            numbers: Arc::clone(&numbers),
            size_bytes: 0,
        };
        for group in numbers.chunks(CHUNKS_PER_OFFSET) {
            list.offsets.push(list.size_bytes);
            let lengths = group.iter().map(|number| list.length_bytes(*number));
            list.size_bytes = lengths.fold(list.size_bytes, u64::saturating_add);
        }
        list
    }

    fn length_bytes(&self, number: ChunkNumber) -> u64 {
        let chunk = self.loaded.index.chunk(number);
        chunk.map_or(0, |(_, location)| location.raw_bytes().into())
    }

    /// Where a chunk begins.
    pub(crate) fn offset(&self, position: usize) -> Option<u64> {
        let group = position / CHUNKS_PER_OFFSET;
        let first = group.saturating_mul(CHUNKS_PER_OFFSET);
        let before = self.numbers.get(first..position)?;
        let lengths = before.iter().map(|number| self.length_bytes(*number));
        Some(lengths.fold(*self.offsets.get(group)?, u64::saturating_add))
    }

    /// The chunk at a position.
    pub(crate) fn number(&self, position: usize) -> Option<ChunkNumber> {
        self.numbers.get(position).copied()
    }

    /// Sum of the lengths of all chunks.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// All chunks with their places in the file.
    pub(crate) fn places(&self) -> impl Iterator<Item = (ChunkNumber, Range<u64>)> + '_ {
        self.numbers().zip(self.iter().map(|chunk| chunk.range()))
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = ChunkNumber> + '_ {
        self.numbers.iter().copied()
    }

    pub(crate) fn get(&self, position: usize) -> Option<StoredChunk> {
        self.iter_from(position).next()
    }

    /// The chunks from a position on.
    pub(crate) fn iter_from(&self, position: usize) -> impl Iterator<Item = StoredChunk> + '_ {
        self.placed_from(position).map(|(chunk, _)| chunk)
    }

    /// All chunks, and where they lie in the repository.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (StoredChunk, BlobLocation)> + '_ {
        self.placed_from(0)
    }

    fn placed_from(
        &self,
        position: usize,
    ) -> impl Iterator<Item = (StoredChunk, BlobLocation)> + '_ {
        let mut next = self.offset(position).unwrap_or(self.size_bytes);
        let numbers = self.numbers.get(position..).unwrap_or_default();
        numbers.iter().filter_map(move |number| {
            let (id, location) = self.loaded.index.chunk(*number)?;
            let chunk = StoredChunk {
                offset: next,
                length_bytes: location.raw_bytes(),
                id,
            };
            next = chunk.end();
            Some((chunk, location))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = StoredChunk> + '_ {
        self.iter_from(0)
    }

    /// Bytes in chunks that another list of the same index does not have.
    pub(crate) fn bytes_not_in(&self, other: &Self) -> u64 {
        let mut present = other.numbers.to_vec();
        present.sort_unstable();
        let chunks = self.numbers().zip(self.iter());
        let new = chunks.filter(|(number, _)| present.binary_search(number).is_err());
        new.map(|(_, chunk)| u64::from(chunk.length_bytes)).sum()
    }

    /// Places of chunks that another list of the same index does not have at the same place.
    pub(crate) fn differing_from<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = Range<u64>> + 'a {
        let differing = self.places().zip(self.is_same_in(other));
        let differing = differing.filter(|(_, is_same)| !is_same);
        differing.map(|((_, place), _)| place)
    }

    /// For each chunk in order, whether another list of the same index has it at the same place.
    pub(crate) fn is_same_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = bool> + 'a {
        let mut others = other.places().peekable();
        self.places().map(move |(number, place)| {
            while others
                .next_if(|(_, other)| other.start < place.start)
                .is_some()
            {}
            others.peek() == Some(&(number, place))
        })
    }

    /// The position of the chunk that holds the byte at `offset`.
    pub(crate) fn position_at(&self, offset: u64) -> usize {
        let after = self.offsets.partition_point(|start| *start <= offset);
        let first = after.saturating_sub(1).saturating_mul(CHUNKS_PER_OFFSET);
        let later = self.iter_from(first).skip(1);
        let before = later.take_while(|chunk| chunk.offset <= offset).count();
        first.saturating_add(before)
    }
}

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Known without reading.
    Known {
        chunks: Vec<ChunkNumber>,
        range: Range<u64>,
    },
    /// To be read.
    Unknown(Range<u64>),
}

/// Cuts a file of `size_bytes` into known and unknown parts, in order, without gaps.
///
/// A chunk of the earlier file is known when it lies wholly inside a range that the caller vouches
/// for, and `is_stored`.
pub(crate) fn parts(
    size_bytes: u64,
    earlier: impl Iterator<Item = (ChunkNumber, Range<u64>)>,
    unchanged: &[Range<u64>],
    is_stored: impl Fn(ChunkNumber) -> bool,
) -> Vec<Part> {
    let unchanged = merged(unchanged);
    let mut parts = Vec::new();
    let mut done: u64 = 0;
    for (chunk, place) in earlier {
        let vouched = place.end <= size_bytes && covers(&unchanged, &place);
        if !vouched || !is_stored(chunk) {
            continue;
        }
        if done < place.start {
            parts.push(Part::Unknown(done..place.start));
        }
        done = place.end;
        match parts.last_mut() {
            Some(Part::Known { chunks, range }) if range.end == place.start => {
                chunks.push(chunk);
                range.end = place.end;
            }
            _ => parts.push(Part::Known {
                chunks: vec![chunk],
                range: place,
            }),
        }
    }
    if done < size_bytes {
        parts.push(Part::Unknown(done..size_bytes));
    }
    parts
}

/// Sorted, with touching ranges joined.
fn merged(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges
        .iter()
        .filter(|range| range.start < range.end)
        .cloned()
        .collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn covers(merged: &[Range<u64>], range: &Range<u64>) -> bool {
    let after = merged.partition_point(|present| present.start <= range.start);
    let before = after.checked_sub(1).and_then(|last| merged.get(last));
    before.is_some_and(|present| range.end <= present.end)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::index::Index;

    const ALL: &[Range<u64>] = &[Range { start: 0, end: 100 }];

    /// Four chunks of an index.
    fn numbers() -> [ChunkNumber; 4] {
        let index = Index::of_one_pack((0..4).map(|number| (id(number), None)));
        [0, 1, 2, 3].map(|number| index.number(&id(number)).unwrap())
    }

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    fn earlier() -> impl Iterator<Item = (ChunkNumber, Range<u64>)> {
        numbers().into_iter().zip([0..10, 10..20, 20..30, 30..40])
    }

    #[test]
    fn only_chunks_wholly_inside_vouched_ranges_are_known() {
        let parts = parts(45, earlier(), &[15..40, 0..10], |_| true);
        assert_eq!(
            parts,
            [
                Part::Known {
                    chunks: vec![numbers()[0]],
                    range: 0..10
                },
                Part::Unknown(10..20),
                Part::Known {
                    chunks: numbers()[2..].to_vec(),
                    range: 20..40
                },
                Part::Unknown(40..45),
            ]
        );
    }

    #[test]
    fn touching_ranges_vouch_for_a_chunk_across_them() {
        assert_eq!(
            parts(10, earlier(), &[0..5, 5..10], |_| true),
            [Part::Known {
                chunks: vec![numbers()[0]],
                range: 0..10
            }]
        );
    }

    #[test]
    fn what_is_not_stored_or_lies_behind_the_end_is_read() {
        assert_eq!(
            parts(10, earlier(), ALL, |chunk| chunk != numbers()[0]),
            [Part::Unknown(0..10)]
        );
        assert_eq!(parts(5, earlier(), ALL, |_| true), [Part::Unknown(0..5)]);
        assert_eq!(parts(0, earlier(), ALL, |_| true), []);
    }

    /// Chunks of 1, 2, 3... bytes, in this order in a file.
    fn list(chunks: usize) -> ChunkList {
        let of_number = |number| {
            let length = u32::try_from(number).unwrap() + 1;
            (id(u8::try_from(number).unwrap()), Some(length))
        };
        let index = Index::of_one_pack((0..chunks).map(of_number));
        let ids = (0..chunks).map(|number| id(u8::try_from(number).unwrap()));
        let numbers = ids.map(|id| index.number(&id).unwrap()).collect();
        let loaded = LoadedIndex {
            index,
            ..LoadedIndex::default()
        };
        ChunkList::new(Arc::new(loaded), Arc::new(numbers))
    }

    #[test]
    fn every_chunk_is_where_those_before_it_end() {
        for chunks in [0, 1, 15, 16, 17, 100] {
            let list = list(chunks);
            let begins = |position: usize| (position * (position + 1) / 2) as u64;
            assert_eq!(list.size_bytes(), begins(chunks));
            assert_eq!(list.get(chunks), None);
            for position in 0..chunks {
                let chunk = list.get(position).unwrap();
                let expected = begins(position)..begins(position + 1);
                assert_eq!(chunk.range(), expected);
                assert_eq!(list.position_at(expected.start), position);
                assert_eq!(list.position_at(expected.end - 1), position);
                let rest = list.iter_from(position).map(|chunk| chunk.offset);
                assert!(rest.eq((position..chunks).map(begins)));
            }
        }
    }
}
