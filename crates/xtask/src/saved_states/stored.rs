//! What chunks cost in a repository of restic's format, reckoned without writing one.

use std::collections::HashSet;

use super::cuts::Cuts;

/// That of a repository opened with its defaults.
const COMPRESSION_LEVEL: i32 = 1;
/// A new chunk: 32 bytes of encryption, 41 in the pack's header, about 45 in the index.
const NEW_CHUNK_BYTES: usize = 32 + 41 + 45;
/// Each chunk of each state: its id in the list of the file's chunks, compressed.
const LISTED_CHUNK_BYTES: usize = 33;

/// The chunks stored so far.
#[derive(Debug, Default)]
pub(super) struct Store {
    known: HashSet<[u8; 32]>,
    /// How many chunks the last state has.
    pub(super) chunks: usize,
}

impl Store {
    /// Stores a state and returns what that adds, in bytes.
    pub(super) fn add(&mut self, state: &[u8], cuts: &Cuts) -> u64 {
        let chunks = cuts.chunks(state);
        assert_eq!(
            chunks.iter().map(|chunk| chunk.len()).sum::<usize>(),
            state.len()
        );
        self.chunks = chunks.len();
        let mut added = chunks.len() * LISTED_CHUNK_BYTES;
        for chunk in chunks {
            if self.known.insert(vrs_sha256::hash(chunk)) {
                let compressed = zstd::bulk::compress(chunk, COMPRESSION_LEVEL);
                let compressed_bytes = compressed.expect("memory for a chunk").len();
                added += compressed_bytes.min(chunk.len()) + NEW_CHUNK_BYTES;
            }
        }
        added as u64
    }
}
