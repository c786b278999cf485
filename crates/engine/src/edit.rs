//! Changing what a snapshot is called, and whether it may be pruned.
//!
//! The machine's data and manifest stay as they are; only tags and description change. As with restic's
//! `tag`, the snapshot gets another id.

use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{SnapshotStore, SnapshotWords};

use crate::error::{Error, Result};
use crate::selection;
use crate::snapshot::{self, Snapshot};

/// What to change; what is None stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether it is pinned.
    pub pin: Option<bool>,
    /// The name; an empty one takes it away.
    pub name: Option<String>,
    /// The description; an empty one takes it away.
    pub description: Option<String>,
    /// Tags to add.
    pub add_tags: Vec<String>,
    /// Tags to take away.
    pub remove_tags: Vec<String>,
}

/// Changes a snapshot and returns its id from now on.
pub fn execute(
    store: &dyn SnapshotStore,
    snapshot: &Snapshot,
    changes: &Changes,
    progress: &dyn Progress,
) -> Result<SnapshotId> {
    changes.check()?;
    if snapshot.migration.is_some() {
        return Err(Error::Usage {
            message: format!(
                "the machine moved into snapshot {}, and the computers concerned know it by its id; it cannot be edited",
                snapshot.id.short()
            ),
        });
    }
    let list = store.snapshots()?.snapshots;
    let Some(record) = list.into_iter().find(|record| record.id == snapshot.id) else {
        return Err(Error::SnapshotNotFound {
            wanted: snapshot.id.short(),
            reason: "it is there no more".to_owned(),
        });
    };
    let words = SnapshotWords {
        tags: changes.tags(record.tags),
        description: match &changes.description {
            Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            None => record.description,
        },
    };
    Ok(store.relabel(&snapshot.id, &words, progress)?)
}

impl Changes {
    fn check(&self) -> Result<()> {
        if let Some(name) = self.name.as_deref().filter(|name| !name.is_empty()) {
            selection::check_name(name)?;
        }
        self.add_tags
            .iter()
            .try_for_each(|tag| snapshot::check_tag(tag))
    }

    fn tags(&self, mut tags: Vec<String>) -> Vec<String> {
        if let Some(pin) = self.pin {
            tags.retain(|tag| tag != snapshot::PINNED);
            tags.extend(pin.then(|| snapshot::PINNED.to_owned()));
        }
        if let Some(name) = &self.name {
            tags.retain(|tag| !tag.starts_with(snapshot::SNAPSHOT_NAME));
            tags.extend(
                Some(name)
                    .filter(|name| !name.is_empty())
                    .map(|name| snapshot::name_tag(name)),
            );
        }
        tags.retain(|tag| snapshot::is_reserved(tag) || !self.remove_tags.contains(tag));
        for tag in &self.add_tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags
    }
}
