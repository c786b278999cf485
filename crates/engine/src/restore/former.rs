//! What the machine's files hold, where that can be told without reading them.
//!
//! A file whose stamp (size, inode, modification and change time) is the one that the last snapshot of the
//! machine recorded holds what that snapshot read, as a take trusts it too. Anything else is read.

use std::path::Path;

use vrs_repository::id::SnapshotId;
use vrs_repository::store::{FileStamp, KnownFile, SnapshotStore};
use vrs_virtualbox::MachineId;

use crate::catalog;
use crate::host::Host;
use crate::manifest::{FileRecord, FileRole, tree_path};
use crate::snapshot::Snapshot;

/// The files of the machine when its last snapshot was taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Former {
    /// None: nothing is known.
    snapshot: Option<SnapshotId>,
    files: Vec<FileRecord>,
}

impl Former {
    /// Of a snapshot that was taken on this host. One that cannot be read costs time, and no more.
    pub(super) fn read(store: &dyn SnapshotStore, snapshot: Option<SnapshotId>) -> Self {
        let manifest = snapshot.and_then(|snapshot| catalog::manifest(store, &snapshot).ok());
        Self {
            snapshot,
            files: manifest.map(|manifest| manifest.files).unwrap_or_default(),
        }
    }

    /// What a file of this host holds, as long as it is as it was.
    pub(super) fn of(&self, local: &Path) -> Option<KnownFile> {
        let record = self.files.iter().find(|record| record.original == local)?;
        // The stored settings may be an adjusted text.
        if !record.settled || record.role == FileRole::Settings {
            return None;
        }
        Some(KnownFile {
            stamp: FileStamp::from(record.stamp),
            snapshot: self.snapshot?,
            path: tree_path(&record.path).ok()?,
        })
    }
}

/// The last snapshot of a machine that this host took. `snapshots` are sorted, the oldest first.
#[must_use]
pub fn last_taken_here(
    host: &Host,
    snapshots: &[Snapshot],
    machine: MachineId,
) -> Option<SnapshotId> {
    let own = |snapshot: &&Snapshot| snapshot.machine == machine && snapshot.hostname == host.name;
    snapshots.iter().rfind(own).map(|snapshot| snapshot.id)
}
