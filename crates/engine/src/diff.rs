//! What differs between two snapshots of a machine.
//!
//! Files are told apart by size and modification time, as the manifests record them; how much of a
//! changed file is new by its chunks, without reading any; settings by their text. Nothing is said
//! about what a guest sees on its disks.

use std::collections::BTreeMap;

use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use vrs_repository::SnapshotStore;
use vrs_repository::id::SnapshotId;

use crate::catalog::{manifest, settings_text};
use crate::error::Result;
use crate::manifest::{FileRecord, Manifest, tree_path};

/// The differences between two snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Files that differ, by path.
    pub files: Vec<FileChange>,
    /// Lines of the machine's settings, as they were on the host, that differ.
    pub settings: Vec<LineChange>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Path in the stored tree.
    pub path: String,
    /// What happened to it.
    pub change: Change,
    /// Its size before, where it was there.
    pub from_bytes: Option<u64>,
    /// Its size after, where it is there.
    pub to_bytes: Option<u64>,
    /// Bytes of it, as it is after, in chunks that it did not have before.
    pub changed_bytes: Option<u64>,
}

/// A line of the settings that differs. A changed line is one removed and one added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineChange {
    /// What happened to it.
    pub change: Change,
    /// Its text.
    pub line: String,
}

/// What happened between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there before.
    Added,
    /// It is not there after.
    Removed,
    /// It is there before and after, and not the same.
    Changed,
}

/// Compares two snapshots.
pub fn diff(store: &dyn SnapshotStore, from: &SnapshotId, to: &SnapshotId) -> Result<Diff> {
    let manifests = (manifest(store, from)?, manifest(store, to)?);
    let mut files = file_changes(&manifests.0, &manifests.1);
    for file in &mut files {
        file.changed_bytes = changed_bytes(store, from, to, file)?;
    }
    let settings = line_changes(
        &original_settings(store, from, &manifests.0)?,
        &original_settings(store, to, &manifests.1)?,
    );
    Ok(Diff { files, settings })
}

fn changed_bytes(
    store: &dyn SnapshotStore,
    from: &SnapshotId,
    to: &SnapshotId,
    file: &FileChange,
) -> Result<Option<u64>> {
    if file.change != Change::Changed {
        return Ok(file.to_bytes);
    }
    let path = tree_path(&file.path)?;
    Ok(Some(store.changed_bytes((from, &path), (to, &path))?))
}

fn original_settings(
    store: &dyn SnapshotStore,
    snapshot: &SnapshotId,
    manifest: &Manifest,
) -> Result<String> {
    let original = manifest.original_settings.as_ref();
    settings_text(store, snapshot, original.unwrap_or(&manifest.settings))
}

fn file_changes(from: &Manifest, to: &Manifest) -> Vec<FileChange> {
    let mut pairs: BTreeMap<&str, (Option<&FileRecord>, Option<&FileRecord>)> = BTreeMap::new();
    for file in &from.files {
        pairs.entry(&file.path).or_default().0 = Some(file);
    }
    for file in &to.files {
        pairs.entry(&file.path).or_default().1 = Some(file);
    }
    pairs
        .into_iter()
        .filter_map(|(path, (from, to))| file_change(path, from, to))
        .collect()
}

fn file_change(
    path: &str,
    from: Option<&FileRecord>,
    to: Option<&FileRecord>,
) -> Option<FileChange> {
    let size_and_time = |file: &FileRecord| (file.stamp.size, file.stamp.mtime_ns);
    let change = match (from, to) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        (Some(from), Some(to)) if size_and_time(from) == size_and_time(to) => return None,
        _ => Change::Changed,
    };
    let size = |file: &FileRecord| file.stamp.size;
    Some(FileChange {
        path: path.to_owned(),
        change,
        from_bytes: from.map(size),
        to_bytes: to.map(size),
        changed_bytes: None,
    })
}

fn line_changes(from: &str, to: &str) -> Vec<LineChange> {
    let diff = TextDiff::from_lines(from, to);
    let change = |tag| match tag {
        ChangeTag::Equal => None,
        ChangeTag::Delete => Some(Change::Removed),
        ChangeTag::Insert => Some(Change::Added),
    };
    let lines = diff
        .iter_all_changes()
        .filter_map(|line| Some((change(line.tag())?, line)));
    lines
        .map(|(change, line)| LineChange {
            change,
            line: line.value().trim_end().to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_told_in_order() {
        let changes = line_changes("a\nb\nc\n", "a\nB\nc\nd\n");
        let told: Vec<_> = changes
            .iter()
            .map(|line| (line.change, line.line.as_str()))
            .collect();
        let wanted = [
            (Change::Removed, "b"),
            (Change::Added, "B"),
            (Change::Added, "d"),
        ];
        assert_eq!(told, wanted);
    }
}
