//! What `vrs copy` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::snapshot::Snapshot;
use vrs_repository::Copied;

use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "copy")]
pub struct CopyReport {
    /// Location of the second repository.
    pub to: String,
    pub snapshots: Vec<CopiedEntry>,
}

#[derive(Debug, Serialize)]
pub struct CopiedEntry {
    /// The id of the copy.
    copy_id: String,
    /// Whether it was there before.
    was_there: bool,
    sent_bytes: u64,
    snapshot: SnapshotEntry,
}

impl CopiedEntry {
    pub fn new(snapshot: &Snapshot, copied: Copied) -> Self {
        Self {
            copy_id: copied.id.to_string(),
            was_there: !copied.is_new,
            sent_bytes: copied.sent_bytes,
            snapshot: SnapshotEntry::from(snapshot),
        }
    }
}

impl Report for CopyReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let new = self.snapshots.iter().filter(|entry| !entry.was_there);
        for entry in new.clone() {
            writeln!(
                out,
                "copied {} of {}: {} sent",
                entry.snapshot.title(),
                text::name(&entry.snapshot.machine_name),
                text::size(entry.sent_bytes)
            )?;
        }
        let there = self.snapshots.len().saturating_sub(new.clone().count());
        writeln!(
            out,
            "{} copied to {}, {there} already there",
            text::count(new.count(), "snapshot"),
            text::name(&self.to)
        )
    }
}
