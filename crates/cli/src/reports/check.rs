//! What `vrs check` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::check::{Health, MachineLoss};

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
    pub losses: Vec<LossEntry>,
    /// What a repair did before, one text each.
    pub repaired: Vec<String>,
    /// What a repair would do, one text each.
    pub planned: Vec<String>,
}

/// What a repair did, or would do.
#[derive(Debug, Default)]
pub struct Repairs {
    pub done: Vec<String>,
    pub planned: Vec<String>,
}

/// What is lost of a file.
#[derive(Debug, Serialize)]
pub struct LossEntry {
    snapshot: SnapshotEntry,
    /// In the snapshot; empty for all of it.
    path: String,
    /// Empty: all of it.
    ranges: Vec<ByteRange>,
}

#[derive(Debug, Serialize)]
struct ByteRange {
    offset: u64,
    length_bytes: u64,
}

impl From<MachineLoss> for LossEntry {
    fn from(loss: MachineLoss) -> Self {
        let ranges = loss.ranges.iter().map(|range| ByteRange {
            offset: range.start,
            length_bytes: range.end.saturating_sub(range.start),
        });
        Self {
            snapshot: SnapshotEntry::from(&loss.snapshot),
            path: loss.path,
            ranges: ranges.collect(),
        }
    }
}

impl LossEntry {
    /// So many ranges are shown; all are in the JSON document.
    const SHOWN: usize = 5;

    fn text(&self) -> String {
        let what = match (self.path.as_str(), self.ranges.len()) {
            ("", _) => "everything".to_owned(),
            (path, 0) => format!("{} as a whole", text::name(path)),
            (path, count) => {
                let shown = self.ranges.iter().take(Self::SHOWN).map(|range| {
                    format!("{} bytes at offset {}", range.length_bytes, range.offset)
                });
                let more = match count.saturating_sub(Self::SHOWN) {
                    0 => String::new(),
                    more => format!(" and {more} more ranges"),
                };
                let shown: Vec<String> = shown.collect();
                format!("{}: {}{more}", text::name(path), shown.join(", "))
            }
        };
        format!(
            "lost of machine {}, snapshot {}: {what}",
            text::name(&self.snapshot.machine_name),
            self.snapshot.title()
        )
    }
}

impl CheckReport {
    pub fn new(health: Health, repairs: Repairs) -> Self {
        Self {
            losses: health.losses.into_iter().map(LossEntry::from).collect(),
            repaired: repairs.done,
            planned: repairs.planned,
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
        for done in &self.repaired {
            writeln!(out, "repaired: {}", text::name(done))?;
        }
        for planned in &self.planned {
            writeln!(out, "to repair: {}", text::name(planned))?;
        }
        for error in &self.errors {
            writeln!(out, "damage: {}", text::name(error))?;
        }
        for warning in &self.warnings {
            writeln!(out, "harmless: {}", text::name(warning))?;
        }
        for loss in &self.losses {
            writeln!(out, "{}", loss.text())?;
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
