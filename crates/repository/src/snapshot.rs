//! Snapshot objects: what the list shows, and what a new one says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, SnapshotSummary, StringList};
use rustic_core::{FileType, Id, TreeId};
use serde::{Deserialize, Serialize};
use vrs_progress::Progress;

use crate::error::Result;
use crate::gathered::MOST_LOOSE;
use crate::id::{ChunkId, SnapshotId};
use crate::lock::SharedLock;
use crate::parallel::{self, lock};
use crate::repository::{ResticRepository, whole_text};
use crate::store::{
    IngestStats, SnapshotLabel, SnapshotList, SnapshotRecord, SnapshotWords, TreePath,
};
use crate::tree::TreeCount;

/// In one part of what is gathered: some hundred kilobytes, if nobody writes books about them.
const PART_SNAPSHOTS: usize = 1024;

/// What a new snapshot records.
pub(crate) struct NewSnapshot<'a> {
    pub(crate) label: &'a SnapshotLabel,
    pub(crate) tree: TreeId,
    pub(crate) folders: TreeCount,
    pub(crate) stats: &'a IngestStats,
    pub(crate) tree_blobs: u64,
    pub(crate) started: Timestamp,
}

impl NewSnapshot<'_> {
    /// The object, as restic and rustic read it. `paths` are the names at the top.
    pub(crate) fn to_file<'b>(&self, paths: impl Iterator<Item = &'b TreePath>) -> SnapshotFile {
        let top = paths
            .filter_map(|path| path.parts().next())
            .map(|name| format!("/{name}"));
        SnapshotFile {
            time: self.label.time.to_zoned(TimeZone::UTC),
            program_version: concat!("vrs ", env!("CARGO_PKG_VERSION")).to_owned(),
            tree: self.tree,
            paths: list(top),
            hostname: self.label.hostname.clone(),
            tags: list(self.label.tags.iter().cloned()),
            description: self.label.description.clone(),
            summary: Some(self.summary()),
            ..SnapshotFile::default()
        }
    }

    fn summary(&self) -> SnapshotSummary {
        let end = Timestamp::now();
        let mut summary = SnapshotSummary::default();
        summary.files_new = self.stats.files;
        summary.total_files_processed = self.stats.files;
        summary.total_bytes_processed = self.stats.total_bytes;
        summary.total_dirs_processed = self.folders.folders;
        summary.total_dirsize_processed = self.folders.bytes;
        summary.data_blobs = self.stats.new_chunks;
        summary.tree_blobs = self.tree_blobs;
        summary.data_added = self
            .stats
            .total_bytes
            .saturating_sub(self.stats.reused_bytes);
        summary.data_added_packed = self.stats.sent_bytes;
        summary.backup_start = self.started.to_zoned(TimeZone::UTC);
        summary.backup_duration = end.duration_since(self.started).as_secs_f64();
        summary.total_duration = summary.backup_duration;
        summary.backup_end = end.to_zoned(TimeZone::UTC);
        summary
    }
}

/// What is gathered of a snapshot.
#[derive(Serialize, Deserialize)]
struct Known {
    record: SnapshotRecord,
    root: ChunkId,
}

impl Known {
    fn from(id: SnapshotId, file: SnapshotFile) -> Self {
        let root = ChunkId::from(*file.tree);
        let record = record(id, file);
        Self { record, root }
    }

    fn root(&self) -> TreeId {
        Id::from(self.root).into()
    }
}

fn list(items: impl Iterator<Item = String>) -> StringList {
    let mut list = StringList::default();
    items.for_each(|item| list.add(item));
    list
}

impl ResticRepository {
    /// All snapshots, oldest first. One that cannot be read does not hide the others.
    pub(crate) fn list_snapshots(&self) -> Result<SnapshotList> {
        let ids = self.backend.list::<SnapshotId>(FileType::Snapshot)?;
        self.forget_copies(FileType::Snapshot, |id| {
            ids.contains_key(&SnapshotId::from(*id))
        });
        let (mut known, gone) = self.gathered_snapshots(&ids);
        let loose: Vec<SnapshotId> = ids
            .into_keys()
            .filter(|id| !known.contains_key(id))
            .collect();
        let (gathered, mut unreadable) = (known.len(), Vec::new());
        parallel::each_short(
            self.waiting_threads(),
            loose.into_iter(),
            |id| match self.snapshot_file(&id) {
                Err(error) if error.is_of_whole_storage() => Err(error),
                // Deleted meanwhile, which is no damage.
                Err(_) if !self.is_listed(&id)? => Ok(None),
                read => Ok(Some((id, read))),
            },
            |read| match read {
                None => {}
                Some((id, Ok(file))) => {
                    known.insert(id, Known::from(id, file));
                }
                Some((_, Err(error))) => unreadable.push(whole_text(&error)),
            },
        )?;
        if gone > 0 || known.len().saturating_sub(gathered) > MOST_LOOSE {
            self.gather_snapshots(&known);
        }
        let roots = known.iter().map(|(id, known)| (*id, known.root()));
        lock(&self.memory).list(roots.collect());
        let mut snapshots: Vec<SnapshotRecord> =
            known.into_values().map(|known| known.record).collect();
        snapshots.sort_by_key(|record| (record.time, record.id));
        Ok(SnapshotList {
            snapshots,
            unreadable,
        })
    }

    /// Those of some snapshots that need not be read, and how many of others there were.
    fn gathered_snapshots(
        &self,
        ids: &BTreeMap<SnapshotId, u32>,
    ) -> (BTreeMap<SnapshotId, Known>, usize) {
        let mut all = BTreeMap::new();
        let read = self
            .vault()
            .gathered(FileType::Snapshot)
            .and_then(|gathered| {
                gathered.read(self.threads(), |part: Vec<Known>| {
                    all.extend(part.into_iter().map(|known| (known.record.id, known)));
                })
            });
        if read.is_none() {
            return (BTreeMap::new(), 0);
        }
        let before = all.len();
        all.retain(|id, _| ids.contains_key(id));
        let gone = before.saturating_sub(all.len());
        (all, gone)
    }

    fn gather_snapshots(&self, known: &BTreeMap<SnapshotId, Known>) {
        if let Some(gathered) = self.vault().gathered(FileType::Snapshot) {
            let all: Vec<&Known> = known.values().collect();
            // Who cannot keep it reads the snapshots again.
            let _ = gathered.write(all.chunks(PART_SNAPSHOTS));
        }
    }

    fn is_listed(&self, id: &SnapshotId) -> Result<bool> {
        let listed = self.backend.list::<SnapshotId>(FileType::Snapshot)?;
        Ok(listed.contains_key(id))
    }

    /// Gives a snapshot other tags and another description. As restic does it: a new object takes the
    /// place of the old one, under a new id; `original` remembers the first.
    pub(crate) fn relabel_snapshot(
        &self,
        id: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> Result<SnapshotId> {
        self.require_writable()?;
        let _lock = SharedLock::acquire(self.vault())?;
        let mut file = self.require_snapshot(id)?;
        if record(*id, file.clone()).has(words) {
            return Ok(*id);
        }
        file.tags = list(words.tags.iter().cloned());
        file.description.clone_from(&words.description);
        file.original.get_or_insert(Id::from(*id).into());
        let (new, sealed) = self
            .vault()
            .prepare(&file, self.options.compression_level)?;
        progress.step("write snapshot");
        self.backend.write(FileType::Snapshot, new, sealed.into())?;
        progress.step("remove snapshot");
        lock(&self.memory).forget(id);
        self.backend.remove(FileType::Snapshot, *id)?;
        Ok(new.into())
    }
}

impl SnapshotRecord {
    fn has(&self, words: &SnapshotWords) -> bool {
        self.tags == words.tags && self.description == words.description
    }
}

fn record(id: SnapshotId, file: SnapshotFile) -> SnapshotRecord {
    SnapshotRecord {
        id,
        time: file.time.timestamp(),
        hostname: file.hostname,
        tags: file.tags.iter().cloned().collect(),
        description: file.description,
        size_bytes: file
            .summary
            .as_ref()
            .map(|summary| summary.total_bytes_processed),
        added_bytes: file
            .summary
            .as_ref()
            .map(|summary| summary.data_added_packed),
    }
}
