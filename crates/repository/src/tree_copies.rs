//! Copies of trees on this host, so that what the last snapshot of a machine holds need not travel before the
//! next one is taken.
//!
//! A file for each tree, sealed as it is in its pack and named by the tree's id. Whoever reads one verifies
//! it as if it came from the storage, and only if the index has that tree. A copy that is missing or damaged
//! costs its transfer again, and nothing else. The least used go ([`MOST`]). Who goes through all snapshots, as a
//! prune does, neither uses nor makes them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use crate::id::ChunkId;
use crate::least_used::{Most, mark_used, remove_unused};

/// A tree takes some 34 bytes for each chunk: those of disks with a terabyte in all. Of small ones there are
/// some three for each snapshot, and each time one is written all are looked at.
const MOST: Most = Most {
    files: 128,
    bytes: 64 << 20,
};

/// The copies of one repository.
pub(crate) struct TreeCopies {
    folder: PathBuf,
}

impl TreeCopies {
    /// In a folder that may not exist yet.
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The sealed tree, to be verified.
    pub(crate) fn get(&self, id: &ChunkId) -> Option<Vec<u8>> {
        let mut file = File::open(self.path(id)).ok()?;
        let length_bytes = file.metadata().ok()?.len();
        let mut sealed = vec![0; usize::try_from(length_bytes.min(MOST.bytes)).ok()?];
        file.read_exact(&mut sealed).ok()?;
        mark_used(&file);
        Some(sealed)
    }

    /// Keeps a copy, which may be a damaged one.
    pub(crate) fn put(&self, id: &ChunkId, sealed: &[u8]) {
        if sealed.len() as u64 <= MOST.bytes {
            // Who cannot keep a copy fetches the tree again.
            let _ = self.write(id, sealed);
        }
    }

    /// Removes a copy that is damaged.
    pub(crate) fn remove(&self, id: &ChunkId) {
        // Who cannot remove it finds it damaged again.
        let _ = fs::remove_file(self.path(id));
    }

    fn write(&self, id: &ChunkId, sealed: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(sealed)?;
        file.persist(self.path(id)).map_err(|error| error.error)?;
        remove_unused(&self.folder, SystemTime::now(), MOST)
    }

    fn path(&self, id: &ChunkId) -> PathBuf {
        self.folder.join(id.to_string())
    }
}
