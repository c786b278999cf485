//! Snapshot objects: what the list shows, and what a new one says.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, SnapshotSummary, StringList};
use rustic_core::{FileType, TreeId};

use crate::error::Result;
use crate::id::SnapshotId;
use crate::repository::{ResticRepository, whole_text};
use crate::store::{IngestStats, SnapshotLabel, SnapshotList, SnapshotRecord, TreePath};
use crate::tree::TreeCount;

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

fn list(items: impl Iterator<Item = String>) -> StringList {
    let mut list = StringList::default();
    items.for_each(|item| list.add(item));
    list
}

impl ResticRepository {
    /// All snapshots, oldest first. One that cannot be read does not hide the others.
    pub(crate) fn list_snapshots(&self) -> Result<SnapshotList> {
        let mut found = SnapshotList::default();
        for id in self
            .backend
            .list::<SnapshotId>(FileType::Snapshot)?
            .into_keys()
        {
            match self.snapshot_file(&id) {
                Ok(file) => found.snapshots.push(record(id, file)),
                Err(error) => found.unreadable.push(whole_text(&error)),
            }
        }
        found
            .snapshots
            .sort_by_key(|record| (record.time, record.id));
        Ok(found)
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
