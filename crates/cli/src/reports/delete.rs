//! What `vrs delete` answers.

use std::io::{self, Write};

use serde::Serialize;

use super::snapshot::{self, SnapshotEntry};
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "delete")]
pub struct DeleteReport {
    /// Whether they are still there.
    pub dry_run: bool,
    pub snapshots: Vec<SnapshotEntry>,
}

impl Report for DeleteReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = text::count(self.snapshots.len(), "snapshot");
        if self.dry_run {
            writeln!(out, "{}", snapshot::table(&self.snapshots))?;
            writeln!(out, "to be deleted: {count}")
        } else {
            writeln!(out, "deleted {count}")
        }
    }
}
