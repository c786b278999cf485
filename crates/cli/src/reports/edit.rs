//! What `vrs edit` answers.

use std::io::{self, Write};

use serde::Serialize;

use super::snapshot::{self, SnapshotEntry};
use crate::printer::Report;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "edit")]
pub struct EditReport {
    /// The id until now.
    pub former_id: String,
    /// What it is now; null if it was deleted meanwhile.
    pub snapshot: Option<SnapshotEntry>,
}

impl Report for EditReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", snapshot::table(self.snapshot.as_slice()))
    }
}
