//! What a repository holds: the list of snapshots, the manifest and the files of each.

use vrs_repository::id::SnapshotId;
use vrs_repository::store::{SnapshotStore, StoredFile, TreePath, read_to_vec};

use crate::error::{Error, Result};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, OWN_FOLDER, tree_path};
use crate::snapshot::Snapshot;

/// The snapshots that vrs took, and what could not be read.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
    /// One text for each snapshot object that could not be read.
    pub unreadable: Vec<String>,
}

/// Lists the snapshots of a repository. No manifest is read.
pub fn snapshots(store: &dyn SnapshotStore) -> Result<Catalog> {
    let list = store.snapshots()?;
    let mut snapshots: Vec<Snapshot> = list
        .snapshots
        .into_iter()
        .filter_map(Snapshot::of)
        .collect();
    snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
    Ok(Catalog {
        snapshots,
        unreadable: list.unreadable,
    })
}

/// Reads the manifest of a snapshot.
pub fn manifest(store: &dyn SnapshotStore, snapshot: &SnapshotId) -> Result<Manifest> {
    let files = store.files_below(snapshot, &tree_path(OWN_FOLDER)?)?;
    let file = files
        .iter()
        .find(|file| file.path.as_str().ends_with("/manifest.json"))
        .ok_or_else(|| Error::BadManifest {
            snapshot: snapshot.short(),
            reason: "there is none".to_owned(),
        })?;
    Manifest::from_json(&read(store, snapshot, &file.path)?, &snapshot.short())
}

/// The machine's files in a snapshot, without vrs's own.
pub fn machine_files(store: &dyn SnapshotStore, snapshot: &SnapshotId) -> Result<Vec<StoredFile>> {
    let files = store.files(snapshot)?.into_iter();
    Ok(files.filter(|file| !is_own(file)).collect())
}

fn is_own(file: &StoredFile) -> bool {
    file.path.parts().next() == Some(OWN_FOLDER)
}

/// The text of a stored settings file.
pub(crate) fn settings_text(
    store: &dyn SnapshotStore,
    snapshot: &SnapshotId,
    path: &str,
) -> Result<String> {
    String::from_utf8(read(store, snapshot, &tree_path(path)?)?).map_err(|error| {
        Error::BadManifest {
            snapshot: snapshot.short(),
            reason: format!("its settings '{path}' are not text: {error}"),
        }
    })
}

fn read(store: &dyn SnapshotStore, snapshot: &SnapshotId, path: &TreePath) -> Result<Vec<u8>> {
    let mut reader = store.open_file(snapshot, path)?;
    if reader.size_bytes() > MAX_MANIFEST_BYTES {
        return Err(Error::BadManifest {
            snapshot: snapshot.short(),
            reason: format!("'{path}' has {} bytes", reader.size_bytes()),
        });
    }
    Ok(read_to_vec(reader.as_mut(), MAX_MANIFEST_BYTES)?)
}
