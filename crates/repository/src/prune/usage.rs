//! What snapshots need: one bit for each blob of the index.

use std::collections::{BTreeSet, HashSet};

use fixedbitset::FixedBitSet;
use rustic_core::repofile::{BlobType, NodeType};
use rustic_core::{FileType, TreeId};
use vrs_progress::{Phase, Progress};

use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{ChunkId, SnapshotId};
use crate::loaded_index::LoadedIndex;
use crate::repository::{ResticRepository, whole_text};
use crate::tree_text::FoundNode;

/// See the module.
pub(super) struct Usage {
    chunks: FixedBitSet,
    trees: FixedBitSet,
    /// What is needed and in no index, marked packs aside.
    pub(super) missing: HashSet<(BlobType, ChunkId)>,
}

impl Usage {
    /// Of all these snapshots. Those that are deleted meanwhile are passed over.
    pub(super) fn of(
        repository: &ResticRepository,
        loaded: &LoadedIndex,
        snapshots: &BTreeSet<SnapshotId>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        progress.phase(Phase {
            name: "looking at",
            subject: "snapshots".to_owned(),
            total_bytes: None,
        });
        let mut usage = Self {
            chunks: FixedBitSet::with_capacity(loaded.index.len(BlobType::Data)),
            trees: FixedBitSet::with_capacity(loaded.index.len(BlobType::Tree)),
            missing: HashSet::new(),
        };
        for id in snapshots {
            stop_if_interrupted(progress)?;
            if let Some(root) = root_of(repository, id)? {
                usage.add(repository, loaded, root)?;
            }
        }
        Ok(usage)
    }

    /// Whether the blob at a place in the index is needed.
    pub(super) fn needs(&self, kind: BlobType, place: usize) -> bool {
        match kind {
            BlobType::Data => self.chunks.contains(place),
            BlobType::Tree => self.trees.contains(place),
        }
    }

    fn add(
        &mut self,
        repository: &ResticRepository,
        loaded: &LoadedIndex,
        root: TreeId,
    ) -> Result<()> {
        let mut pending = vec![root];
        while let Some(tree) = pending.pop() {
            let id = ChunkId::from(*tree);
            let Some(place) = loaded.index.place(BlobType::Tree, &id) else {
                self.missing.insert((BlobType::Tree, id));
                continue;
            };
            if self.trees.contains(place) {
                continue;
            }
            self.trees.grow_and_insert(place);
            let read = repository.tree(loaded, tree);
            for node in read.map_err(|error| unreadable(repository, error))? {
                self.add_node(node, &mut pending);
            }
        }
        Ok(())
    }

    fn add_node(&mut self, FoundNode { node, chunks }: FoundNode, pending: &mut Vec<TreeId>) {
        if node.node_type == NodeType::Dir {
            pending.extend(node.subtree);
        }
        for chunk in chunks.known.iter() {
            self.chunks.grow_and_insert(chunk.place());
        }
        let unknown = chunks.unknown.into_iter();
        self.missing
            .extend(unknown.map(|(_, id)| (BlobType::Data, id)));
    }
}

/// The root of a snapshot, or nothing if it is there no more.
fn root_of(repository: &ResticRepository, id: &SnapshotId) -> Result<Option<TreeId>> {
    match repository.snapshot_file(id) {
        Ok(file) => Ok(Some(file.tree)),
        Err(error) => {
            let listed = repository.backend.list::<SnapshotId>(FileType::Snapshot)?;
            if listed.contains_key(id) {
                Err(unreadable(repository, error))
            } else {
                Ok(None)
            }
        }
    }
}

fn unreadable(repository: &ResticRepository, error: Error) -> Error {
    if error.is_of_whole_storage() {
        return error;
    }
    Error::NotPrunable {
        location: repository.backend.location().to_owned(),
        reason: format!("a snapshot cannot be read ({})", whole_text(&error)),
    }
}
