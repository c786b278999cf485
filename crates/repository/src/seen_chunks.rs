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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    /// Five chunks, each as long as its number and one byte more.
    fn index() -> Index {
        let length = |number| u32::from(number).saturating_add(1);
        Index::of_one_pack((0..5).map(|number| (id(number), Some(length(number)))))
    }

    fn raw(number: u8) -> Vec<u8> {
        vec![number; usize::from(number).saturating_add(1)]
    }

    #[test]
    fn only_what_came_directly_behind_a_chunk_follows_it() {
        let (index, key) = (index(), ScanKey::derived_from(b"secret"));
        let entry = |number| Entry {
            seen: key.hash(&raw(number)),
            chunk: id(number),
        };
        let mut chunks = SeenChunks::default();
        assert!(chunks.is_empty());
        // Nothing is known of the third, the fifth was there before, and the seventh is in no index.
        let order = [
            Some(0),
            Some(1),
            None,
            Some(2),
            Some(1),
            Some(3),
            Some(7),
            Some(4),
        ];
        for number in order {
            chunks.add(&index, number.map(entry).as_ref());
        }
        let mut recalled = Recalled {
            chunks: &chunks,
            index: &index,
            key: &key,
            found: None,
        };
        let mut follows = |one, next| {
            recalled.look(&raw(one));
            let bytes = [raw(next), vec![9]].concat();
            recalled.follow(&bytes)
        };
        assert_eq!(follows(0, 1), Some((2, key.hash(&raw(1)))));
        for (one, next) in [(0, 2), (1, 2), (2, 3), (3, 4), (4, 0), (7, 4)] {
            assert_eq!(follows(one, next), None, "{next} behind {one}");
        }
        // Once the chain is broken there is nothing to follow.
        recalled.look(&raw(0));
        assert_eq!(recalled.follow(&raw(3)), None);
        assert_eq!(recalled.follow(&raw(1)), None);
    }
}
