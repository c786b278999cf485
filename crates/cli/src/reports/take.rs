//! What `vrs take` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::capture::CaptureMode;
use vrs_engine::manifest::{CaptureRecord, FileRole, Manifest};
use vrs_engine::preflight::Verdict;
use vrs_engine::take::{TakePlan, Taken};
use vrs_engine::tracking::TrackingReport;

use crate::errors::Failure;
use crate::printer::Report;
use crate::text::{self, Column, Columns};

/// All machines of one call.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "take")]
pub struct TakeReport {
    pub machines: Vec<TakeEntry>,
}

/// One machine.
#[derive(Debug, Serialize)]
pub struct TakeEntry {
    /// As it was asked for.
    pub machine: String,
    #[serde(flatten)]
    pub outcome: TakeOutcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TakeOutcome {
    Taken(TakenEntry),
    Planned(PlannedEntry),
    Failed {
        error: Failure,
        /// Why a machine cannot be taken, where a plan was wanted.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        verdicts: Vec<Verdict>,
    },
}

/// A snapshot that was taken.
#[derive(Debug, Serialize)]
pub struct TakenEntry {
    pub machine_id: String,
    pub machine_name: String,
    pub snapshot: String,
    pub files: u64,
    pub size_bytes: u64,
    pub read_bytes: u64,
    pub reused_bytes: u64,
    pub recognised_bytes: u64,
    pub sent_bytes: u64,
    pub not_included: Vec<NotIncludedEntry>,
    /// How the machine was captured, if it was running.
    pub capture: Option<CaptureRecord>,
    /// The snapshot set that it belongs to.
    pub set: Option<String>,
    /// What tracking did, if the machine is tracked.
    pub tracking: Option<TrackingReport>,
}

/// A snapshot that would be taken.
#[derive(Debug, Serialize)]
pub struct PlannedEntry {
    pub machine_id: String,
    pub machine_name: String,
    /// Id of the snapshot that it would build on.
    pub previous: Option<String>,
    pub read_bytes: u64,
    pub files: Vec<PlannedFile>,
    /// How the machine would be captured, if it is running.
    pub capture: Option<CaptureMode>,
    /// Whether that could hurt it.
    pub verdicts: Vec<Verdict>,
    pub not_included: Vec<NotIncludedEntry>,
    /// What tracking would do, if the machine is tracked.
    pub tracking: Option<TrackingReport>,
}

#[derive(Debug, Serialize)]
pub struct PlannedFile {
    pub path: String,
    pub role: FileRole,
    pub local: String,
    pub size_bytes: u64,
    /// Whether it is known to be as in the last snapshot, so that it is not read.
    pub unchanged: bool,
    /// How much of it tracking knows to be so.
    pub vouched_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct NotIncludedEntry {
    pub what: String,
    pub which: String,
    pub reason: String,
}

impl From<&Taken> for TakenEntry {
    fn from(taken: &Taken) -> Self {
        let Taken {
            id,
            manifest,
            stats,
            tracking,
        } = taken;
        Self {
            machine_id: manifest.machine.id.to_string(),
            machine_name: manifest.machine.name.clone(),
            snapshot: id.to_string(),
            files: stats.files,
            size_bytes: stats.total_bytes,
            read_bytes: stats.read_bytes,
            reused_bytes: stats.reused_bytes,
            recognised_bytes: stats.recognised_bytes,
            sent_bytes: stats.sent_bytes,
            not_included: not_included(manifest),
            capture: manifest.capture.clone(),
            set: manifest.set.clone(),
            tracking: tracking.clone(),
        }
    }
}

pub fn not_included(manifest: &Manifest) -> Vec<NotIncludedEntry> {
    manifest
        .not_included
        .iter()
        .map(NotIncludedEntry::from)
        .collect()
}

impl From<&vrs_engine::manifest::NotIncluded> for NotIncludedEntry {
    fn from(thing: &vrs_engine::manifest::NotIncluded) -> Self {
        Self {
            what: thing.what.clone(),
            which: thing.which.clone(),
            reason: thing.reason.clone(),
        }
    }
}

impl From<&TakePlan> for PlannedEntry {
    fn from(plan: &TakePlan) -> Self {
        let files = plan.files.iter().map(|file| PlannedFile {
            path: file.source.path.to_string(),
            role: file.role,
            local: file.source.local.display().to_string(),
            size_bytes: file.stamp.size_bytes,
            unchanged: file.is_unchanged(),
            vouched_bytes: plan.vouched_bytes(file),
        });
        Self {
            machine_id: plan.machine.id.to_string(),
            machine_name: plan.machine.name.clone(),
            previous: plan
                .previous
                .as_ref()
                .map(|previous| previous.snapshot.id.to_string()),
            read_bytes: plan.read_bytes(),
            files: files.collect(),
            capture: plan.capture,
            verdicts: plan.verdicts.clone(),
            not_included: plan
                .inventory
                .not_included
                .iter()
                .map(NotIncludedEntry::from)
                .collect(),
            tracking: plan.tracking.clone(),
        }
    }
}

impl Report for TakeReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.machines.iter().try_for_each(|entry| entry.human(out))
    }
}

impl Report for TakeEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.outcome {
            TakeOutcome::Taken(taken) => taken.human(out),
            TakeOutcome::Planned(planned) => planned.human(out),
            // Failures are told where they happen.
            TakeOutcome::Failed { verdicts, .. } => write!(out, "{}", verdict_table(verdicts)),
        }
    }
}

impl TakenEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let id = self.snapshot.get(..8).unwrap_or(&self.snapshot);
        writeln!(
            out,
            "machine '{}': took snapshot {id}",
            text::name(&self.machine_name)
        )?;
        writeln!(
            out,
            "  {} files, {}: {} read, {} in the repository already, {} sent",
            self.files,
            text::size(self.size_bytes),
            text::size(self.read_bytes),
            text::size(self.reused_bytes),
            text::size(self.sent_bytes),
        )?;
        if let Some(capture) = &self.capture {
            writeln!(out, "  {}", captured(capture))?;
        }
        write_tracking(out, self.tracking.as_ref())?;
        write_not_included(out, &self.not_included)
    }
}

impl PlannedEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let of = text::name(&self.machine_name);
        writeln!(
            out,
            "machine '{of}': {} would be read",
            text::size(self.read_bytes)
        )?;
        if let Some(mode) = self.capture {
            writeln!(out, "  it would be captured {}", way(mode))?;
        }
        write!(out, "{}", verdict_table(&self.verdicts))?;
        let mut table = Columns::new(vec![
            Column::Text("File"),
            Column::Number("Size"),
            Column::Text("State"),
        ]);
        for file in &self.files {
            table.row(vec![
                text::name(&file.local),
                text::size(file.size_bytes),
                file.state(),
            ]);
        }
        write!(out, "{}", table.render())?;
        write_tracking(out, self.tracking.as_ref())?;
        write_not_included(out, &self.not_included)
    }
}

impl PlannedFile {
    fn state(&self) -> String {
        match (self.unchanged, self.vouched_bytes) {
            (true, _) => "unchanged".to_owned(),
            (false, 0) => "to be read".to_owned(),
            (false, vouched) => format!("to be read but for {}", text::size(vouched)),
        }
    }
}

/// What tracking did or would do.
fn write_tracking(out: &mut dyn Write, tracking: Option<&TrackingReport>) -> io::Result<()> {
    let Some(tracking) = tracking else {
        return Ok(());
    };
    let vouched = tracking.images.iter().map(|image| image.vouched_bytes);
    let vouched = text::size(vouched.sum());
    match (tracking.is_scan, tracking.images.is_empty()) {
        (_, true) => {}
        (true, _) => writeln!(
            out,
            "  tracking: all is read, to check the {vouched} that it vouches for"
        )?,
        (false, _) => writeln!(out, "  tracking: {vouched} known to be unchanged")?,
    }
    if tracking.leaves_virtualbox_snapshot {
        writeln!(
            out,
            "  tracking: a VirtualBox snapshot stays until the next take"
        )?;
    }
    let mut notes = tracking.notes.iter();
    notes.try_for_each(|note| writeln!(out, "  note: {}", text::name(note)))
}

/// How a running machine was captured, for people.
pub fn captured(capture: &CaptureRecord) -> String {
    let what = if capture.memory {
        "with its memory"
    } else {
        "without its memory"
    };
    let way = way(capture.mode);
    match capture.paused_ms {
        Some(paused_ms) => {
            format!("captured {way}, {what}; the guest stood still for {paused_ms} ms")
        }
        None => format!("captured {way}, {what}"),
    }
}

fn verdict_table(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(vec![
        Column::Text("Verdict"),
        Column::Text("Of"),
        Column::Text("Level"),
        Column::Text("Reason"),
    ]);
    for verdict in verdicts {
        let reason = match verdict.advice.as_str() {
            "" => verdict.reason.clone(),
            advice => format!("{}; {advice}", verdict.reason),
        };
        table.row(vec![
            verdict.name.to_string(),
            text::name(&verdict.subject),
            verdict.level.to_string(),
            text::name(&reason),
        ]);
    }
    table.render()
}

const fn way(mode: CaptureMode) -> &'static str {
    match mode {
        CaptureMode::Memory => "while paused",
        CaptureMode::Live => "while running",
        CaptureMode::DisksOnly => "by its disks only",
        CaptureMode::SaveState => "by saving its state",
    }
}

/// What is not in a snapshot, and why.
pub fn write_not_included(out: &mut dyn Write, things: &[NotIncludedEntry]) -> io::Result<()> {
    things.iter().try_for_each(|thing| {
        let (what, which, reason) = (
            text::name(&thing.what),
            text::name(&thing.which),
            text::name(&thing.reason),
        );
        writeln!(out, "  not included: {what} '{which}': {reason}")
    })
}
