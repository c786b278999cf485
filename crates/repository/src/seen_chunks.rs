//! Chunks by their bytes, in the order in which they were seen: some 44 bytes for each.

use fixedbitset::FixedBitSet;

use crate::block_list::BlockList;
use crate::chunking::{Recall, SeenHash};
use crate::id::ChunkId;
use crate::id_set::IdSet;
use crate::index::{ChunkNumber, Index};
use crate::scan_cache::{Entry, ScanKey};

/// See the module.
#[derive(Default)]
pub(crate) struct SeenChunks {
    /// The BLAKE3 of each.
    seen: IdSet,
    chunks: BlockList<ChunkNumber>,
    /// Those that came directly behind the one before them in this list.
    following: FixedBitSet,
    /// Whether the chunk that was added last is the last one of this list.
    is_at_end: bool,
}

impl SeenChunks {
    /// Adds the next chunk, unless its bytes are there already or the index does not have it.
    pub(crate) fn add(&mut self, index: &Index, entry: Option<&Entry>) {
        let was_at_end = std::mem::replace(&mut self.is_at_end, false);
        let Some(entry) = entry else {
            return;
        };
        let Some(chunk) = index.number(&entry.chunk) else {
            return;
        };
        let Some((number, true)) = self.seen.insert(ChunkId::from_bytes(entry.seen)) else {
            return;
        };
        self.chunks.push(chunk);
        self.is_at_end = true;
        if was_at_end {
            self.following.grow_and_insert(number as usize);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.len() == 0
    }

    /// The number that the chunk with this BLAKE3 has in the index.
    pub(crate) fn get(&self, seen: &SeenHash) -> Option<ChunkNumber> {
        self.chunks.get(self.number(seen)? as usize).copied()
    }

    fn number(&self, seen: &SeenHash) -> Option<u32> {
        self.seen.number(&ChunkId::from_bytes(*seen))
    }

    /// The number, BLAKE3 and index number of the chunk that came behind the one with this number.
    fn behind(&self, number: u32) -> Option<(u32, SeenHash, ChunkNumber)> {
        let next = number.checked_add(1)?;
        let chunk = *self.chunks.get(next as usize)?;
        let seen = *self.seen.get(next)?.as_bytes();
        let follows = self.following.contains(next as usize);
        follows.then_some((next, seen, chunk))
    }
}

/// [`Recall`] of them.
pub(crate) struct Recalled<'a> {
    pub(crate) chunks: &'a SeenChunks,
    pub(crate) index: &'a Index,
    pub(crate) key: &'a ScanKey,
    /// The number of the one that was found last.
    pub(crate) found: Option<u32>,
}

impl Recall for Recalled<'_> {
    fn look(&mut self, raw: &[u8]) -> Option<SeenHash> {
        let seen = self.key.hash(raw);
        self.found = self.chunks.number(&seen);
        Some(seen)
    }

    fn follow(&mut self, bytes: &[u8]) -> Option<(usize, SeenHash)> {
        let (number, seen, chunk) = self.chunks.behind(self.found.take()?)?;
        let (_, location) = self.index.chunk(chunk)?;
        let length = location.raw_bytes() as usize;
        let is_it = self.key.hash(bytes.get(..length)?) == seen;
        self.found = is_it.then_some(number);
        is_it.then_some((length, seen))
    }
}
