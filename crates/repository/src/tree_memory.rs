//! What this process has read of snapshots and their folders, so that it reads nothing twice.
//!
//! A tree never changes, and neither does what a snapshot's id stands for. Which snapshots there are does:
//! one that was seen counts as there until the next list, or until this process removes it. Whoever writes
//! because a snapshot is there asks the storage. The numbers of chunks in trees are those of one index, with
//! which they are forgotten. Memory: 40 bytes a snapshot, and four for each chunk of the trees, of which no
//! more are kept than the index has chunks, twice: a restore looks at two snapshots, and at both once more after its
//! plan.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use rustic_core::TreeId;
use rustic_core::repofile::BlobType;

use crate::error::Result;
use crate::id::{ChunkId, SnapshotId};
use crate::loaded_index::LoadedIndex;
use crate::parallel::lock;
use crate::repository::ResticRepository;
use crate::tree_text::FoundNode;

/// So many chunks may be kept beside however small an index.
const FEW_CHUNKS: usize = 1 << 16;
/// Trees without chunks take memory, too.
const MOST_TREES: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct TreeMemory {
    roots: BTreeMap<SnapshotId, TreeId>,
    /// Of which the numbers of chunks are. Nobody else may need that index any more.
    loaded: Weak<LoadedIndex>,
    trees: BTreeMap<ChunkId, Arc<Vec<FoundNode>>>,
    /// In all of these trees.
    chunks: usize,
}

impl TreeMemory {
    /// Takes over a list of all snapshots.
    pub(crate) fn list(&mut self, roots: BTreeMap<SnapshotId, TreeId>) {
        self.roots = roots;
    }

    /// A snapshot is gone.
    pub(crate) fn forget(&mut self, snapshot: &SnapshotId) {
        self.roots.remove(snapshot);
    }

    fn tree(&self, loaded: &Arc<LoadedIndex>, id: &ChunkId) -> Option<Arc<Vec<FoundNode>>> {
        let tree = self.trees.get(id).filter(|_| self.is_of(loaded));
        tree.cloned()
    }

    fn is_of(&self, loaded: &Arc<LoadedIndex>) -> bool {
        self.loaded.as_ptr() == Arc::as_ptr(loaded)
    }

    fn keep(&mut self, loaded: &Arc<LoadedIndex>, id: ChunkId, tree: &Arc<Vec<FoundNode>>) {
        let in_index = loaded.index.len(BlobType::Data).max(FEW_CHUNKS);
        let most = in_index.saturating_mul(2);
        let chunks = tree.iter().map(FoundNode::chunk_count).sum::<usize>();
        let sum = self.chunks.saturating_add(chunks);
        if !self.is_of(loaded) || sum > most || self.trees.len() >= MOST_TREES {
            self.trees.clear();
            self.chunks = 0;
            self.loaded = Arc::downgrade(loaded);
        }
        if chunks <= most && self.trees.insert(id, Arc::clone(tree)).is_none() {
            self.chunks = self.chunks.saturating_add(chunks);
        }
    }
}

impl ResticRepository {
    /// The root of a snapshot that was seen, or is there now.
    pub(crate) fn root(&self, snapshot: &SnapshotId) -> Result<TreeId> {
        if let Some(root) = lock(&self.memory).roots.get(snapshot) {
            return Ok(*root);
        }
        let root = self.require_snapshot(snapshot)?.tree;
        lock(&self.memory).roots.insert(*snapshot, root);
        Ok(root)
    }

    /// Like [`Self::tree`], from memory or this host's copy if it is there.
    pub(crate) fn kept_tree(
        &self,
        loaded: &Arc<LoadedIndex>,
        id: TreeId,
    ) -> Result<Arc<Vec<FoundNode>>> {
        let blob = ChunkId::from(*id);
        if let Some(tree) = lock(&self.memory).tree(loaded, &blob) {
            return Ok(tree);
        }
        let tree = Arc::new(self.tree_from(loaded, id, self.tree_copies())?);
        lock(&self.memory).keep(loaded, blob, &tree);
        Ok(tree)
    }
}
