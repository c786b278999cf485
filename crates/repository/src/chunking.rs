//! Cutting files into chunks.
//!
//! The same bytes at the same place of the grid, or in the same surroundings for content-defined
//! chunks, always give the same chunks. That is part of the repository's promise: changing it makes
//! the next snapshot of every machine send everything again. Not promised: that a large file which is cut by its
//! content in parts has the chunks of one stream where nothing tells for long where one ends, as in a run of zeros.

use std::io::{self, Read};
use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};
use itertools::Either;

use crate::error::{Error, Result};
use crate::platform;
use crate::store::Chunking;

/// Small files are one chunk up to this size.
pub(crate) const WHOLE_BYTES: u64 = 4 << 20;

/// Files are read so much at a time, or a chunk if that is longer. What was read is then still in the processor's
/// cache when it is hashed.
pub(crate) const READ_BYTES: u64 = 1 << 20;

/// Content-defined chunks are read so much at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What one thread searches at a time where chunks are content-defined, and what it cuts at a time at most.
const PART_BYTES: u64 = 32 << 20;
/// A part that is cut is as large as this share of what is left, so that threads end at the same time.
const SHARE: u64 = 16;
/// So many chunks after a place, at their longest, they end where they do whatever lay before.
const SETTLED_CHUNKS: u64 = 4;

const SMALLEST_CHUNK_BYTES: u32 = 1 << 10;
const LARGEST_CHUNK_BYTES: u32 = WHOLE_BYTES as u32;

/// Chunks of one size, on a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    chunk_bytes: u64,
    phase_bytes: u64,
}

/// Content-defined chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    average_bytes: u32,
}

/// A [`Chunking`] whose numbers were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutter {
    Grid(Grid),
    Content(Content),
}

impl Cutter {
    /// Checks the numbers.
    pub(crate) fn new(chunking: Chunking) -> Result<Self> {
        let (size_bytes, cutter) = match chunking {
            Chunking::Grid {
                chunk_bytes,
                phase_bytes,
            } => (
                chunk_bytes,
                Self::Grid(Grid {
                    chunk_bytes: chunk_bytes.into(),
                    phase_bytes,
                }),
            ),
            Chunking::ContentDefined { average_bytes } => {
                (average_bytes, Self::Content(Content { average_bytes }))
            }
            Chunking::Whole => (
                LARGEST_CHUNK_BYTES,
                Self::Grid(Grid {
                    chunk_bytes: LARGEST_CHUNK_BYTES.into(),
                    phase_bytes: 0,
                }),
            ),
        };
        let usable = size_bytes.is_power_of_two()
            && (SMALLEST_CHUNK_BYTES..=LARGEST_CHUNK_BYTES).contains(&size_bytes);
        if usable {
            return Ok(cutter);
        }
        let reason = "it must be a power of two from 1 KiB to 4 MiB";
        Err(Error::InvalidRequest {
            subject: format!("a chunk size of {size_bytes} bytes"),
            reason,
        })
    }

    /// A range of a file in parts that threads can search.
    pub(crate) fn parts(self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        match self {
            Self::Grid(grid) => Either::Left(grid.reads(range)),
            Self::Content(_) => {
                let Range { start, end } = range;
                let part = move |start: u64| start..start.saturating_add(PART_BYTES).min(end);
                Either::Right((start..end).step_by(PART_BYTES as usize).map(part))
            }
        }
    }
}

impl Grid {
    pub(crate) const fn chunk_bytes(self) -> u64 {
        self.chunk_bytes
    }

    /// Where the first grid point lies.
    pub(crate) fn phase_bytes(self) -> u64 {
        self.phase_bytes.checked_rem(self.chunk_bytes).unwrap_or(0)
    }

    /// How many chunks of a file come before the one that begins at `offset`.
    pub(crate) fn number_at(self, offset: u64) -> u64 {
        let phase = self.phase_bytes();
        let before = u64::from(0 < phase && phase <= offset);
        let after = offset.saturating_sub(phase).checked_div(self.chunk_bytes);
        before.saturating_add(after.unwrap_or(0))
    }

    /// The first grid point after an offset.
    fn next_point(self, offset: u64) -> u64 {
        let phase = self.phase_bytes();
        let into = offset
            .saturating_add(self.chunk_bytes)
            .saturating_sub(phase)
            .checked_rem(self.chunk_bytes)
            .unwrap_or(0);
        offset.saturating_add(self.chunk_bytes.saturating_sub(into))
    }

    /// The chunks of a range.
    pub(crate) fn chunks(self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.cut(range, 1)
    }

    /// The range in pieces of several chunks, to be read at once.
    pub(crate) fn reads(self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.cut(range, READ_BYTES)
    }

    fn cut(self, range: Range<u64>, least_bytes: u64) -> impl Iterator<Item = Range<u64>> {
        let mut start = range.start;
        std::iter::from_fn(move || {
            let from = start;
            let mut to = self.next_point(from);
            while to < range.end && to.saturating_sub(from) < least_bytes {
                to = self.next_point(to);
            }
            start = to.min(range.end);
            (from < start).then_some(from..start)
        })
    }
}

/// Some content-defined chunks, in the buffer that they were read into.
pub(crate) struct Piece<'a> {
    bytes: &'a [u8],
    cuts: Vec<Cut>,
}

/// The end of a chunk, and what [`Recall`] made of its bytes.
struct Cut {
    end: usize,
    seen: Option<SeenHash>,
}

/// A keyed BLAKE3 of a chunk's bytes.
pub(crate) type SeenHash = [u8; 32];

/// Chunks of another stream that was cut in the same way, and which of them followed which.
pub(crate) trait Recall {
    /// Looks for a chunk among them. The hash of its bytes, if that was needed for it.
    fn look(&mut self, raw: &[u8]) -> Option<SeenHash>;

    /// If the bytes begin with the chunk that followed the one which was found last: its length and hash. That one
    /// is found, then; otherwise none is.
    fn follow(&mut self, bytes: &[u8]) -> Option<(usize, SeenHash)>;
}

/// Nothing to recall.
impl Recall for () {
    fn look(&mut self, _raw: &[u8]) -> Option<SeenHash> {
        None
    }

    fn follow(&mut self, _bytes: &[u8]) -> Option<(usize, SeenHash)> {
        None
    }
}

impl<R: Recall> Recall for Option<R> {
    fn look(&mut self, raw: &[u8]) -> Option<SeenHash> {
        self.as_mut()?.look(raw)
    }

    fn follow(&mut self, bytes: &[u8]) -> Option<(usize, SeenHash)> {
        self.as_mut()?.follow(bytes)
    }
}

impl Piece<'_> {
    /// The chunks in order, with the hashes of those that have one.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (&[u8], Option<SeenHash>)> {
        let mut start = 0;
        self.cuts.iter().map(move |cut| {
            let chunk = self.bytes.get(start..cut.end).unwrap_or_default();
            start = cut.end;
            (chunk, cut.seen)
        })
    }

    /// Sum of the lengths of all chunks.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What is left of a stream that is being cut.
pub(crate) struct Pieces<S, R> {
    content: Content,
    source: S,
    recall: R,
    /// Room for a piece and for the longest chunk.
    buffer: Vec<u8>,
    /// The part of the buffer that was read and handed out in no piece.
    rest: Range<usize>,
    has_ended: bool,
}

impl Content {
    pub(crate) const fn average_bytes(self) -> u32 {
        self.average_bytes
    }

    /// Reads chunks from a stream, about a megabyte of them at a time. Memory: one piece. Where they end does not
    /// depend on what is recalled.
    pub(crate) fn pieces<S: Read, R: Recall>(self, source: S, recall: R) -> Pieces<S, R> {
        Pieces {
            content: self,
            source,
            recall,
            buffer: vec![0; PIECE_BYTES.saturating_add(self.largest_bytes())],
            rest: 0..0,
            has_ended: false,
        }
    }

    /// How much one thread cuts at a time where so much is left.
    pub(crate) fn part_bytes(self, left_bytes: u64) -> u64 {
        let share = left_bytes.div_euclid(SHARE).min(PART_BYTES);
        // No less than what is cut once more to find its end.
        share.max(PIECE_BYTES as u64).max(self.settled_bytes())
    }

    /// What has to be read around a place to find the end of a chunk there: see [`Self::seam`].
    pub(crate) fn around(self, place: u64) -> Range<u64> {
        let behind_bytes = self.largest_bytes() as u64;
        place.saturating_sub(self.settled_bytes())..place.saturating_add(behind_bytes)
    }

    /// Where a chunk ends among these bytes, at `place` or soon after it, most likely whatever lies before them.
    pub(crate) fn seam(self, bytes: &[u8], place: usize) -> usize {
        let cutter = self.cutter(bytes);
        let mut end = 0;
        while end < place.min(bytes.len()) {
            (_, end) = cutter.cut(end, bytes.len().saturating_sub(end));
        }
        end
    }

    /// So far behind a place chunks most likely end where they do if cutting began there.
    pub(crate) const fn settled_bytes(self) -> u64 {
        SETTLED_CHUNKS.saturating_mul(self.largest_bytes() as u64)
    }

    const fn largest_bytes(self) -> usize {
        (self.average_bytes as usize) << 2
    }

    /// Finds where chunks end that begin with the bytes.
    fn cutter(self, bytes: &[u8]) -> FastCDC<'_> {
        let average = self.average_bytes as usize;
        // The defaults of the library are named here, because they decide where chunks end.
        let level = Normalization::Level1;
        FastCDC::with_level_and_seed(bytes, average >> 2, average, self.largest_bytes(), level, 0)
    }

    /// Where the chunks of some bytes end that begin with one. The last one of them may go on behind the
    /// bytes, unless nothing does.
    ///
    /// Looking for an end takes longer than hashing with BLAKE3, so what is recalled goes first. The byte behind a
    /// chunk decides about its end, too: a chunk that was followed is one for certain if the next one is
    /// followed as well, and is cut in the usual way otherwise.
    fn cuts(self, bytes: &[u8], is_end: bool, recall: &mut impl Recall) -> Vec<Cut> {
        let cutter = self.cutter(bytes);
        let mut cuts = Vec::new();
        let mut start = 0;
        let mut followed: Option<Cut> = None;
        loop {
            let from = followed.as_ref().map_or(start, |cut| cut.end);
            let next = recall.follow(bytes.get(from..).unwrap_or_default());
            if let Some((length, seen)) = next {
                let (end, seen) = (from.saturating_add(length), Some(seen));
                start = from;
                cuts.extend(followed.replace(Cut { end, seen }));
                continue;
            }
            let left = bytes.len().saturating_sub(start);
            if left == 0 || (!is_end && left < self.largest_bytes()) {
                return cuts;
            }
            let (_, end) = cutter.cut(start, left);
            let cut = followed.take().filter(|cut| cut.end == end);
            cuts.push(cut.unwrap_or_else(|| Cut {
                end,
                seen: recall.look(bytes.get(start..end).unwrap_or_default()),
            }));
            start = end;
        }
    }
}

impl<S: Read, R: Recall> Pieces<S, R> {
    /// The next chunks; none at the end, and after a failure.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.read()?;
        let read = self.buffer.get(..self.rest.end).unwrap_or_default();
        let cuts = self.content.cuts(read, self.has_ended, &mut self.recall);
        let Some(last) = cuts.last() else {
            return Ok(None);
        };
        self.rest.start = last.end;
        let bytes = read.get(..last.end).unwrap_or_default();
        Ok(Some(Piece { bytes, cuts }))
    }

    /// Moves the rest to the front and reads what there is room for.
    fn read(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        let rest_bytes = rest.len();
        self.buffer.copy_within(rest, 0);
        let mut read_bytes = 0;
        if !self.has_ended {
            let room = self.buffer.get_mut(rest_bytes..).unwrap_or_default();
            let read = platform::read_full(room, |room, _| self.source.read(room));
            self.has_ended = read.as_ref().map_or(true, |read| *read < room.len());
            read_bytes = read?;
        }
        self.rest = 0..rest_bytes.saturating_add(read_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fastcdc::v2020::StreamCDC;

    use super::*;

    fn grid(chunk_bytes: u32, phase_bytes: u64) -> Grid {
        match Cutter::new(Chunking::Grid {
            chunk_bytes,
            phase_bytes,
        })
        .unwrap()
        {
            Cutter::Grid(grid) => grid,
            Cutter::Content(_) => panic!("a grid"),
        }
    }

    #[test]
    fn the_grid_starts_at_the_phase_and_reaches_backwards() {
        let chunks: Vec<_> = grid(1024, 2048 + 100).chunks(0..3000).collect();
        assert_eq!(chunks, [0..100, 100..1124, 1124..2148, 2148..3000]);
        let chunks: Vec<_> = grid(1024, 0).chunks(500..2048).collect();
        assert_eq!(chunks, [500..1024, 1024..2048]);
        assert_eq!(grid(1024, 0).chunks(5..5).count(), 0);
    }

    #[test]
    fn chunks_are_numbered_from_the_start_of_the_file() {
        for phase_bytes in [0, 100, 2048 + 100] {
            let grid = grid(1024, phase_bytes);
            let numbers = grid
                .chunks(0..9000)
                .map(|chunk| grid.number_at(chunk.start));
            assert!(
                numbers.eq(0..grid.chunks(0..9000).count() as u64),
                "{phase_bytes}"
            );
        }
    }

    #[test]
    fn reads_end_on_grid_points() {
        let reads: Vec<_> = grid(512 << 10, 100).reads(0..(9 << 20)).collect();
        assert_eq!(reads.len(), 9);
        assert_eq!(reads[0], 0..(1 << 20) + 100);
    }

    #[test]
    fn unusable_chunk_sizes_are_refused() {
        for chunk_bytes in [0, 3, 512, 8 << 20] {
            let error = Cutter::new(Chunking::Grid {
                chunk_bytes,
                phase_bytes: 0,
            })
            .unwrap_err();
            assert!(error.to_string().contains("power of two"), "{error}");
        }
    }

    /// Chunk ends are part of the format: a new version of the library must not move them.
    #[test]
    fn content_defined_chunks_end_where_they_always_did() {
        let bytes = noise(100_000);
        let content = Content {
            average_bytes: 16 << 10,
        };
        assert_eq!(
            lengths(content, &bytes),
            [21_856, 4_280, 6_336, 32_886, 22_051, 12_591]
        );
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        bytes.take(length).collect()
    }

    /// The lengths of all chunks, whose bytes are the whole.
    fn lengths(content: Content, bytes: &[u8]) -> Vec<usize> {
        lengths_with(content, bytes, ())
    }

    /// Where all chunks end.
    fn ends(content: Content, bytes: &[u8]) -> Vec<usize> {
        let lengths = lengths(content, bytes).into_iter();
        let ends = lengths.scan(0, |end, length| {
            *end = length.wrapping_add(*end);
            Some(*end)
        });
        ends.collect()
    }

    fn lengths_with(content: Content, bytes: &[u8], recall: impl Recall) -> Vec<usize> {
        let mut pieces = content.pieces(bytes, recall);
        let mut lengths = Vec::new();
        let mut rest = bytes;
        while let Some(piece) = pieces.next().unwrap() {
            for (raw, _) in piece.chunks() {
                rest = rest.strip_prefix(raw).unwrap();
                lengths.push(raw.len());
            }
        }
        assert!(rest.is_empty());
        lengths
    }

    #[test]
    fn chunks_end_where_they_do_in_one_stream_however_it_is_read() {
        let average = 16 << 10;
        let content = Content {
            average_bytes: average,
        };
        let average = average as usize;
        let mut bytes = noise(3 * PIECE_BYTES + 12_345);
        bytes[PIECE_BYTES - 100..2 * PIECE_BYTES].fill(0);
        for length in [
            0,
            1,
            average,
            PIECE_BYTES,
            PIECE_BYTES + 4 * average,
            bytes.len(),
        ] {
            let bytes = &bytes[..length];
            let stream = StreamCDC::with_level_and_seed(
                bytes,
                average >> 2,
                average,
                average << 2,
                Normalization::Level1,
                0,
            );
            let expected: Vec<usize> = stream.map(|chunk| chunk.unwrap().length).collect();
            assert_eq!(lengths(content, bytes), expected, "{length}");
        }
    }

    /// All chunks of a stream, without hashing them.
    struct Earlier<'a> {
        chunks: Vec<&'a [u8]>,
        found: Option<usize>,
        followed: usize,
    }

    impl<'a> Earlier<'a> {
        fn new(content: Content, bytes: &'a [u8]) -> Self {
            let mut rest = bytes;
            let chunks = lengths(content, bytes).into_iter().map(|length| {
                let (chunk, after) = rest.split_at(length);
                rest = after;
                chunk
            });
            Self {
                chunks: chunks.collect(),
                found: None,
                followed: 0,
            }
        }
    }

    impl Recall for &mut Earlier<'_> {
        fn look(&mut self, raw: &[u8]) -> Option<SeenHash> {
            self.found = self.chunks.iter().position(|chunk| *chunk == raw);
            Some([0; 32])
        }

        fn follow(&mut self, bytes: &[u8]) -> Option<(usize, SeenHash)> {
            let next = self.found.take()?.wrapping_add(1);
            let chunk = self.chunks.get(next)?;
            bytes.starts_with(chunk).then(|| {
                self.found = Some(next);
                self.followed = self.followed.wrapping_add(1);
                (chunk.len(), [0; 32])
            })
        }
    }

    #[test]
    fn chunks_end_where_they_do_whatever_is_recalled() {
        let content = Content {
            average_bytes: 4096,
        };
        let earlier = noise(2 * PIECE_BYTES + 999);
        let ends = ends(content, &earlier);
        let mut changed = vec![earlier.clone(), earlier[1..].to_vec()];
        // The byte behind a chunk decides about its end, and the last chunk may go on.
        for end in ends.iter().take(40) {
            let mut other = earlier.clone();
            other[*end] ^= 0x55;
            changed.push(other);
        }
        for at in [0, 1, ends[3], ends[70] - 1, ends[200] + 1, earlier.len()] {
            let (before, after) = earlier.split_at(at);
            changed.push([before, b"more", after].concat());
            changed.push([before, &after[after.len() / 2..]].concat());
            changed.push([before, before, after, before].concat());
        }
        for bytes in changed {
            let mut recall = Earlier::new(content, &earlier);
            let lengths = lengths_with(content, &bytes, &mut recall);
            assert!(recall.followed > lengths.len() / 4);
            assert_eq!(lengths, self::lengths(content, &bytes));
        }
    }

    #[test]
    fn a_seam_is_where_a_chunk_ends_in_one_stream() {
        let content = Content {
            average_bytes: 4096,
        };
        let bytes = noise(PIECE_BYTES);
        let ends = ends(content, &bytes);
        for place in (1..bytes.len()).step_by(7919) {
            let around = content.around(place as u64);
            let (start, end) = (around.start as usize, around.end as usize);
            let read = &bytes[start..end.min(bytes.len())];
            let expected = ends.iter().find(|end| **end >= place);
            assert_eq!(expected, Some(&(start + content.seam(read, place - start))));
        }
        assert_eq!(content.seam(&bytes[..100], 100), 100);
        assert_eq!(content.seam(&[], 100), 0);
    }

    #[test]
    fn parts_grow_smaller_towards_the_end() {
        let content = |average_bytes| Content { average_bytes };
        let left = [0, 1 << 20, 1 << 25, 1 << 28, 1 << 29, 1 << 40];
        let parts = left.map(|left_bytes| content(16 << 10).part_bytes(left_bytes) >> 20);
        assert_eq!(parts, [1, 1, 2, 16, 32, 32]);
        assert_eq!(content(4 << 20).part_bytes(1 << 40), 64 << 20);
    }

    #[test]
    fn a_stream_that_fails_ends_after_its_failure() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let content = Content {
            average_bytes: 16 << 10,
        };
        let start = noise(2 * PIECE_BYTES);
        let mut pieces = content.pieces(start.as_slice().chain(Failing), ());
        assert!(pieces.next().is_ok_and(|piece| piece.is_some()));
        assert!(pieces.next().is_err());
        assert!(pieces.next().is_ok_and(|piece| piece.is_none()));
    }
}
