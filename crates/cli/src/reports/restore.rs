//! What `vrs restore` and `vrs clone` show and answer.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use vrs_engine::portability;
use vrs_engine::restore::RestorePlan;
use vrs_repository::store::RestoreStats;

use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text;

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "restore")]
pub struct RestoreReport {
    pub snapshot: SnapshotEntry,
    /// Whether a second machine is made.
    pub is_clone: bool,
    pub machine_id: String,
    pub machine_name: String,
    pub settings_file: String,
    /// Whether it is running and is powered off first.
    pub power_off: bool,
    /// Whether VirtualBox is told about it.
    pub register: bool,
    pub files: Vec<RestoredFile>,
    /// Files that the machine does not have any more.
    pub remove: Vec<String>,
    /// Base images that stay where they are, detached.
    pub left_behind: Vec<String>,
    pub notes: Vec<String>,
    /// What may not go on here as it was.
    pub portability: Vec<portability::Verdict>,
    pub status: RestoreStatus,
    /// What it cost or would cost, where that was looked at.
    pub stats: Option<StatsEntry>,
    /// The snapshot of the state before, if one was wanted.
    pub before: Option<String>,
}

/// All machines of a snapshot set.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "restore_set")]
pub struct RestoreSetReport {
    pub machines: Vec<RestoreReport>,
}

impl Report for RestoreSetReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.machines
            .iter()
            .try_for_each(|machine| machine.human(out))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStatus {
    Planned,
    Done,
}

#[derive(Debug, Clone, Serialize)]
pub struct RestoredFile {
    pub path: String,
    pub target: String,
}

/// What a restore did or would do, in bytes of file content.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatsEntry {
    pub files: u64,
    pub total_bytes: u64,
    pub in_place_bytes: u64,
    pub local_bytes: u64,
    pub zero_bytes: u64,
    pub fetched_bytes: u64,
}

impl From<RestoreStats> for StatsEntry {
    fn from(stats: RestoreStats) -> Self {
        Self {
            files: stats.files,
            total_bytes: stats.total_bytes,
            in_place_bytes: stats.in_place_bytes,
            local_bytes: stats.local_bytes,
            zero_bytes: stats.zero_bytes,
            fetched_bytes: stats.fetched_bytes,
        }
    }
}

impl From<&RestorePlan> for RestoreReport {
    fn from(plan: &RestorePlan) -> Self {
        let intent = &plan.intent;
        let files = intent.files.iter().map(|file| RestoredFile {
            path: file.path.clone(),
            target: file.target.display().to_string(),
        });
        Self {
            snapshot: SnapshotEntry::from(&plan.snapshot),
            is_clone: intent.is_clone,
            machine_id: intent.machine.to_string(),
            machine_name: intent.machine_name.clone(),
            settings_file: intent.settings_file.display().to_string(),
            power_off: plan.power_off,
            register: intent.register,
            files: files.collect(),
            remove: as_text(&intent.remove),
            left_behind: as_text(&plan.left_behind),
            notes: plan.notes.clone(),
            portability: plan.portability.clone(),
            status: RestoreStatus::Planned,
            stats: None,
            before: None,
        }
    }
}

pub(super) fn as_text(paths: &[PathBuf]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

impl RestoreReport {
    /// The same, with what it will cost.
    pub fn with_estimate(self, stats: RestoreStats) -> Self {
        Self {
            stats: Some(stats.into()),
            ..self
        }
    }

    /// The same, carried out.
    pub fn done(self, stats: RestoreStats) -> Self {
        Self {
            status: RestoreStatus::Done,
            stats: Some(stats.into()),
            ..self
        }
    }

    fn human_plan(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = text::name(&self.machine_name);
        if self.is_clone {
            writeln!(
                out,
                "new machine '{name}' from snapshot {}",
                self.snapshot.title()
            )?;
        } else {
            writeln!(
                out,
                "machine '{name}' to snapshot {}",
                self.snapshot.title()
            )?;
        }
        writeln!(out, "  settings: {}", text::name(&self.settings_file))?;
        if self.power_off {
            writeln!(
                out,
                "  the machine is running and will be powered off: what it has not saved is lost"
            )?;
        }
        if let Some(stats) = self.stats {
            stats.human(out)?;
        }
        write_each(out, "remove", &self.remove)?;
        write_each(out, "leave, detached", &self.left_behind)?;
        write_each(out, "note", &self.notes)?;
        self.portability.iter().try_for_each(|verdict| {
            let told = text::name(&verdict.to_string());
            writeln!(out, "  {}: {told}", verdict.level)
        })
    }

    fn human_outcome(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = text::name(&self.machine_name);
        let from = self.snapshot.title();
        if self.is_clone {
            writeln!(out, "machine '{name}' is made from snapshot {from}")?;
            writeln!(out, "  settings: {}", text::name(&self.settings_file))?;
        } else {
            writeln!(out, "machine '{name}' is back at snapshot {from}")?;
        }
        if let Some(stats) = self.stats {
            stats.human(out)?;
        }
        write_each(out, "removed", &self.remove)?;
        write_each(out, "left, detached", &self.left_behind)?;
        write_each(out, "note", &self.notes)?;
        if !self.register {
            let file = text::name(&self.settings_file);
            writeln!(
                out,
                "  not registered, because VirtualBox is not here: VBoxManage registervm \"{file}\""
            )?;
        }
        Ok(())
    }
}

impl StatsEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let files = text::count(usize::try_from(self.files).unwrap_or(usize::MAX), "file");
        writeln!(out, "  {files}, {} in all:", text::size(self.total_bytes))?;
        let parts = [
            (self.in_place_bytes, "in place already"),
            (self.local_bytes, "copied from files on this computer"),
            (self.zero_bytes, "zeros"),
            (self.fetched_bytes, "fetched from the repository"),
        ];
        parts
            .iter()
            .try_for_each(|(bytes, what)| writeln!(out, "  {:>12} {what}", text::size(*bytes)))
    }
}

pub(super) fn write_each(out: &mut dyn Write, what: &str, items: &[String]) -> io::Result<()> {
    items
        .iter()
        .try_for_each(|item| writeln!(out, "  {what}: {}", text::name(item)))
}

impl Report for RestoreReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.status {
            RestoreStatus::Planned => self.human_plan(out),
            RestoreStatus::Done => self.human_outcome(out),
        }
    }
}
