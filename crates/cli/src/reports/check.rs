//! What `vrs check` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::check::Health;

use super::snapshot::{self, SnapshotEntry};
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "check")]
pub struct CheckReport {
    /// Whether every snapshot can be restored.
    pub sound: bool,
    pub snapshots: usize,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    pub damaged: Vec<SnapshotEntry>,
}

impl From<Health> for CheckReport {
    fn from(health: Health) -> Self {
        Self {
            sound: health.errors.is_empty() && health.damaged.is_empty(),
            snapshots: health.snapshots,
            errors: health.errors,
            warnings: health.warnings,
            damaged: health.damaged.iter().map(SnapshotEntry::from).collect(),
        }
    }
}

impl Report for CheckReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for error in &self.errors {
            writeln!(out, "damage: {}", text::name(error))?;
        }
        for warning in &self.warnings {
            writeln!(out, "harmless: {}", text::name(warning))?;
        }
        let count = text::count(self.snapshots, "snapshot");
        if self.sound {
            return writeln!(out, "no damage found; {count} can be restored");
        }
        if self.damaged.is_empty() {
            return writeln!(
                out,
                "the repository is damaged; no snapshot of {count} is known to be affected"
            );
        }
        writeln!(out, "these of {count} cannot be restored completely:")?;
        write!(out, "{}", snapshot::table(&self.damaged))
    }
}
