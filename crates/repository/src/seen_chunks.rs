//! Chunks by their bytes: some 44 bytes for each.

use crate::block_list::BlockList;
use crate::id::ChunkId;
use crate::id_set::IdSet;
use crate::index::{ChunkNumber, Index};
use crate::scan_cache::Entry;

/// See the module.
#[derive(Default)]
pub(crate) struct SeenChunks {
    /// The BLAKE3 of each.
    seen: IdSet,
    chunks: BlockList<ChunkNumber>,
}

impl SeenChunks {
    /// Adds a chunk, unless its bytes are there already or the index does not have it.
    pub(crate) fn add(&mut self, index: &Index, entry: &Entry) {
        let Some(chunk) = index.number(&entry.chunk) else {
            return;
        };
        if let Some((_, true)) = self.seen.insert(ChunkId::from_bytes(entry.seen)) {
            self.chunks.push(chunk);
        }
    }

    /// The number that the chunk with this BLAKE3 has in the index.
    pub(crate) fn get(&self, seen: &[u8; 32]) -> Option<ChunkNumber> {
        let number = self.seen.number(&ChunkId::from_bytes(*seen))?;
        self.chunks.get(number as usize).copied()
    }
}
