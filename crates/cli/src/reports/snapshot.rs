//! A snapshot, as every result shows it.

use serde::Serialize;
use vrs_engine::snapshot::Snapshot;

use crate::text::{self, Column, Columns};

#[derive(Debug, Clone, Serialize)]
pub struct SnapshotEntry {
    pub id: String,
    pub time: jiff::Timestamp,
    pub machine_id: String,
    pub machine_name: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub pinned: bool,
    pub hostname: String,
    pub size_bytes: Option<u64>,
    pub added_bytes: Option<u64>,
}

impl From<&Snapshot> for SnapshotEntry {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.to_string(),
            time: snapshot.time,
            machine_id: snapshot.machine.to_string(),
            machine_name: snapshot.machine_name.clone(),
            name: snapshot.name.clone(),
            description: snapshot.description.clone(),
            tags: snapshot.tags.clone(),
            pinned: snapshot.is_pinned,
            hostname: snapshot.hostname.clone(),
            size_bytes: snapshot.size_bytes,
            added_bytes: snapshot.added_bytes,
        }
    }
}

impl SnapshotEntry {
    /// The first digits of the id, which name it as well.
    pub fn short_id(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }

    /// "1a2b3c4d of 2026-11-20 14:00:00".
    pub fn title(&self) -> String {
        let name = self
            .name
            .as_deref()
            .map_or_else(String::new, |name| format!(" ({})", text::name(name)));
        format!("{} of {}{name}", self.short_id(), text::time(self.time))
    }
}

/// A table of snapshots.
pub fn table(snapshots: &[SnapshotEntry]) -> String {
    let mut table = Columns::new(vec![
        Column::Text("ID"),
        Column::Text("Time"),
        Column::Text("Machine"),
        Column::Text("Name"),
        Column::Text("Host"),
        Column::Text("Tags"),
        Column::Text("Pinned"),
        Column::Number("Size"),
        Column::Number("Added"),
        Column::Text("Description"),
    ]);
    for snapshot in snapshots {
        table.row(vec![
            snapshot.short_id().to_owned(),
            text::time(snapshot.time),
            text::name(&snapshot.machine_name),
            text::name(snapshot.name.as_deref().unwrap_or_default()),
            text::name(&snapshot.hostname),
            text::name(&snapshot.tags.join(", ")),
            if snapshot.pinned { "yes" } else { "" }.to_owned(),
            text::size_if_known(snapshot.size_bytes),
            text::size_if_known(snapshot.added_bytes),
            text::name(snapshot.description.as_deref().unwrap_or_default()),
        ]);
    }
    table.render()
}
