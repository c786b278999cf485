//! Copying a snapshot to another repository.
//!
//! Only what the other one lacks is read and sent. Chunks keep their ids, so that deduplication works
//! across all that is copied; they are verified on the way and sealed with the other's key. The copy
//! appears with one atomic write, and `original` remembers where it came from; a snapshot that is there
//! already is not copied again. An interrupted copy is continued like an ingest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustic_core::repofile::{BlobType, NodeType, SnapshotFile};
use rustic_core::{FileType, Id, TreeId};
use vrs_progress::{Counter, Phase, Progress};

use crate::adopt;
use crate::blob::Sealer;
use crate::block_list::BlockList;
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{ChunkId, SnapshotId};
use crate::loaded_index::LoadedIndex;
use crate::repository::ResticRepository;
use crate::sink::{ChunkRef, Sink};
use crate::survival::{self, Needed};
use crate::tree_text::FoundNode;

/// What copying a snapshot did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The snapshot in the other repository.
    pub id: SnapshotId,
    /// Whether it is there only now.
    pub is_new: bool,
    /// Bytes written there.
    pub sent_bytes: u64,
}

impl ResticRepository {
    /// Copies snapshots of `source` into this repository, one after the other, each complete before the
    /// next begins. `each` learns how each went.
    pub fn copy_from(
        &self,
        source: &Self,
        snapshots: &[SnapshotId],
        progress: &dyn Progress,
        mut each: impl FnMut(&SnapshotId, Copied),
    ) -> Result<()> {
        if source.repository_id() == self.repository_id() {
            return Err(Error::InvalidRequest {
                subject: format!("the repository at {}", self.backend.location()),
                reason: "a copy to itself makes no sense",
            });
        }
        let mut present = self.origins()?;
        for snapshot in snapshots {
            let file = source.require_snapshot(snapshot)?;
            let origin = origin(*snapshot, &file);
            let copied = match present.get(&origin) {
                Some(id) => Copied {
                    id: *id,
                    is_new: false,
                    sent_bytes: 0,
                },
                None => Copy::run(source, self, file, snapshot, progress)?,
            };
            present.insert(origin, copied.id);
            each(snapshot, copied);
        }
        Ok(())
    }

    /// All snapshots by what they are copies of.
    fn origins(&self) -> Result<BTreeMap<Origin, SnapshotId>> {
        let mut origins = BTreeMap::new();
        for id in self
            .backend
            .list::<SnapshotId>(FileType::Snapshot)?
            .into_keys()
        {
            match self.snapshot_file(&id) {
                Ok(file) => drop(origins.insert(origin(id, &file), id)),
                Err(error) if error.is_of_whole_storage() => return Err(error),
                // What cannot be read does not count as there.
                Err(_) => {}
            }
        }
        Ok(origins)
    }
}

/// What makes two snapshots the same: where they came from first, and their content.
type Origin = (SnapshotId, ChunkId);

fn origin(id: SnapshotId, file: &SnapshotFile) -> Origin {
    let first = file
        .original
        .map_or(id, |original| SnapshotId::from(*original));
    (first, ChunkId::from(*file.tree))
}

struct Copy<'a> {
    source: &'a ResticRepository,
    loaded: Arc<LoadedIndex>,
    sink: Sink<'a>,
    sealer: Sealer<'a>,
    /// Everything the snapshot needs.
    chunks: BlockList<ChunkRef>,
}

impl<'a> Copy<'a> {
    fn run(
        source: &'a ResticRepository,
        target: &'a ResticRepository,
        mut file: SnapshotFile,
        snapshot: &SnapshotId,
        progress: &'a dyn Progress,
    ) -> Result<Copied> {
        let sink = adopt::start(target, progress)?;
        progress.phase(Phase {
            name: "copying",
            subject: format!("snapshot {}", snapshot.short()),
            total_bytes: file
                .summary
                .as_ref()
                .map(|summary| summary.total_bytes_processed),
        });
        let mut copy = Copy {
            source,
            loaded: source.index()?,
            sealer: sink.sealer()?,
            sink,
            chunks: BlockList::default(),
        };
        copy.tree(file.tree)?;
        copy.sink.flush()?;
        file.original.get_or_insert(Id::from(*snapshot).into());
        let level = target.options.compression_level;
        let (id, sealed) = target.vault().prepare(&file, level)?;
        let needed = Needed {
            sink: &copy.sink,
            files: vec![&copy.chunks],
        };
        survival::require(target, &needed)?;
        copy.sink.write_snapshot(id, sealed)?;
        survival::require_still(target, &needed, &id.into())?;
        Ok(Copied {
            id: id.into(),
            is_new: true,
            sent_bytes: copy.sink.sent.bytes.load(Ordering::Relaxed),
        })
    }

    /// Copies a tree and all below it. Children first: nothing relies on the order, but it is restic's.
    fn tree(&mut self, id: TreeId) -> Result<()> {
        let blob = ChunkId::from(*id);
        for FoundNode { node, chunks } in self.source.tree(&self.loaded, id)? {
            if let Some((_, lost)) = chunks.unknown.first() {
                return Err(self.lost(BlobType::Data, lost));
            }
            for number in chunks.known.iter().copied() {
                let (id, location) = self
                    .loaded
                    .index
                    .chunk(number)
                    .ok_or_else(|| self.lost(BlobType::Data, &blob))?;
                self.chunk(id, location.raw_bytes().into())?;
            }
            if let (NodeType::Dir, Some(subtree)) = (&node.node_type, node.subtree) {
                self.tree(subtree)?;
            }
        }
        let raw = if self.sink.knows_tree(&blob) {
            Vec::new()
        } else {
            self.read(BlobType::Tree, &blob)?
        };
        let Self { sink, sealer, .. } = self;
        sink.store_tree(blob, || sealer.seal(BlobType::Tree, blob, &raw))
    }

    fn chunk(&mut self, id: ChunkId, raw_bytes: u64) -> Result<()> {
        stop_if_interrupted(self.sink.progress)?;
        let chunk = match self.sink.known(&id)? {
            Some(chunk) => {
                self.sink.progress.add(Counter::Reused, raw_bytes);
                chunk
            }
            None => {
                let raw = self.read(BlobType::Data, &id)?;
                self.sink.store(&mut self.sealer, id, &raw)?.0
            }
        };
        self.sink.progress.add(Counter::Scanned, raw_bytes);
        self.chunks.push(chunk);
        Ok(())
    }

    fn read(&self, kind: BlobType, id: &ChunkId) -> Result<Vec<u8>> {
        let read = self.source.read_blob(kind, id)?;
        read.ok_or_else(|| self.lost(kind, id))
    }

    fn lost(&self, kind: BlobType, id: &ChunkId) -> Error {
        let object = match kind {
            BlobType::Data => format!("chunk {}", id.short()),
            BlobType::Tree => format!("tree {}", id.short()),
        };
        self.source.backend.damaged(object, "it is in no index")
    }
}
