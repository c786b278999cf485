//! What `vrs list` answers.

use std::io::{self, Write};

use serde::Serialize;

use super::snapshot::{self, SnapshotEntry};
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "snapshots")]
pub struct ListReport {
    pub snapshots: Vec<SnapshotEntry>,
    /// Why snapshot objects could not be read, one text for each.
    pub unreadable: Vec<String>,
}

impl Report for ListReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.snapshots.is_empty() {
            writeln!(out, "{}", snapshot::table(&self.snapshots))?;
        }
        writeln!(out, "{}", text::count(self.snapshots.len(), "snapshot"))
    }
}
