//! What `vrs prune` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::prune::PrunePlan;
use vrs_engine::retention::Reason;
use vrs_repository::store::PruneStats;

use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "prune")]
pub struct PruneReport {
    /// Whether nothing was changed.
    dry_run: bool,
    /// Machine by machine, latest first.
    snapshots: Vec<JudgedEntry>,
    space: Space,
}

#[derive(Debug, Serialize)]
struct JudgedEntry {
    kept: bool,
    /// Why it is kept.
    reasons: Vec<Reason>,
    #[serde(flatten)]
    snapshot: SnapshotEntry,
}

#[derive(Debug, Serialize)]
struct Space {
    used_bytes: u64,
    unused_bytes: u64,
    too_new_bytes: u64,
    marked_bytes: u64,
    repacked_bytes: u64,
    waiting_bytes: u64,
    freed_bytes: u64,
    recovered_bytes: u64,
}

impl PruneReport {
    pub fn new(plan: &PrunePlan, space: &PruneStats, dry_run: bool) -> Self {
        let judged = plan.judged.iter().map(|judged| JudgedEntry {
            kept: !judged.reasons.is_empty(),
            reasons: judged.reasons.clone(),
            snapshot: SnapshotEntry::from(&judged.snapshot),
        });
        Self {
            dry_run,
            snapshots: judged.collect(),
            space: Space {
                used_bytes: space.used_bytes,
                unused_bytes: space.unused_bytes,
                too_new_bytes: space.too_new_bytes,
                marked_bytes: space.marked_bytes,
                repacked_bytes: space.repacked_bytes,
                waiting_bytes: space.waiting_bytes,
                freed_bytes: space.freed_bytes,
                recovered_bytes: space.recovered_bytes,
            },
        }
    }

    fn table(&self) -> String {
        let mut table = Columns::new(vec![
            Column::Text("ID"),
            Column::Text("Time"),
            Column::Text("Machine"),
            Column::Text("Name"),
            Column::Text("Kept"),
            Column::Text("Why"),
        ]);
        for JudgedEntry {
            kept,
            reasons,
            snapshot,
        } in &self.snapshots
        {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            table.row(vec![
                snapshot.short_id().to_owned(),
                text::time(snapshot.time),
                text::name(&snapshot.machine_name),
                text::name(snapshot.name.as_deref().unwrap_or_default()),
                if *kept { "yes" } else { "no" }.to_owned(),
                reasons.join(", "),
            ]);
        }
        table.render()
    }

    fn space(&self, out: &mut dyn Write) -> io::Result<()> {
        let space = &self.space;
        let size = text::size;
        writeln!(out, "in use: {}", size(space.used_bytes))?;
        let lines = [
            (
                space.freed_bytes,
                "space given back",
                "space that would come back now",
            ),
            (
                space.marked_bytes.saturating_sub(space.repacked_bytes),
                "marked, to be given back by a prune in 24 hours or later",
                "would be marked, to come back with a prune 24 hours later",
            ),
            (
                space.waiting_bytes,
                "marked earlier, to be given back when its 24 hours are over",
                "marked earlier, to come back when its 24 hours are over",
            ),
            (
                space.too_new_bytes,
                "unused, but less than 24 hours old or perhaps part of an upload",
                "unused, but less than 24 hours old or perhaps part of an upload",
            ),
            (
                space.recovered_bytes,
                "marked earlier and needed again",
                "marked earlier and needed again",
            ),
        ];
        for (bytes, done, planned) in lines.into_iter().filter(|(bytes, ..)| *bytes > 0) {
            let what = if self.dry_run { planned } else { done };
            writeln!(out, "{what}: {}", size(bytes))?;
        }
        Ok(())
    }
}

impl Report for PruneReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let deleted = self.snapshots.iter().filter(|entry| !entry.kept).count();
        let count = text::count(self.snapshots.len(), "snapshot");
        if self.dry_run {
            if !self.snapshots.is_empty() {
                writeln!(out, "{}", self.table())?;
            }
            writeln!(out, "{deleted} of {count} would be deleted")?;
        } else {
            writeln!(out, "deleted {deleted} of {count}")?;
        }
        self.space(out)
    }
}
