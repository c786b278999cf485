//! What `vrs migrate` answers where the machine goes away; taking it over answers as a restore does.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::migrate::{MigratePlan, Migrated};
use vrs_engine::records::MovedMachine;

use super::take::TakenEntry;
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "migrate")]
pub struct MigrateReport {
    pub machine_id: String,
    pub machine_name: String,
    /// Whether it is running, so that its state is saved first.
    pub save_state: bool,
    /// Where its settings file is.
    pub settings_file: String,
    /// Where that is put.
    pub moved_file: String,
    /// The computer that it goes back to, if it is to return.
    pub to: Option<String>,
    pub read_bytes: u64,
    pub notes: Vec<String>,
    pub status: MigrateStatus,
    /// The snapshot that it moved into.
    pub taken: Option<TakenEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrateStatus {
    Planned,
    Done,
}

/// A machine that moved away.
#[derive(Debug, Serialize)]
pub struct MovedEntry {
    pub machine_id: String,
    pub machine_name: String,
    pub snapshot: String,
    pub repository: String,
    pub at: jiff::Timestamp,
    pub settings_file: String,
}

impl From<MovedMachine> for MovedEntry {
    fn from(moved: MovedMachine) -> Self {
        Self {
            machine_id: moved.machine.to_string(),
            machine_name: moved.machine_name,
            snapshot: moved.snapshot,
            repository: moved.repository_location,
            at: moved.at,
            settings_file: moved.moved_file.display().to_string(),
        }
    }
}

impl MovedEntry {
    pub fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "machine '{}' moved on {} into snapshot {} of {}",
            text::name(&self.machine_name),
            text::time(self.at),
            self.snapshot.get(..8).unwrap_or(&self.snapshot),
            text::name(&self.repository),
        )
    }
}

impl MigrateReport {
    pub fn planned(plan: &MigratePlan, to: Option<String>) -> Self {
        let intent = &plan.intent;
        Self {
            machine_id: intent.machine.to_string(),
            machine_name: intent.machine_name.clone(),
            save_state: intent.was_online,
            settings_file: intent.settings_file.display().to_string(),
            moved_file: intent.moved_file.display().to_string(),
            to,
            read_bytes: plan.take.read_bytes(),
            notes: plan.notes.clone(),
            status: MigrateStatus::Planned,
            taken: None,
        }
    }

    /// The same, carried out.
    pub fn done(self, migrated: &Migrated) -> Self {
        Self {
            status: MigrateStatus::Done,
            taken: Some(TakenEntry::from(&migrated.taken)),
            ..self
        }
    }

    fn human_plan(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = text::name(&self.machine_name);
        writeln!(out, "machine '{name}' would move into the repository")?;
        if self.save_state {
            writeln!(out, "  its state would be saved")?;
        }
        writeln!(out, "  {} would be read", text::size(self.read_bytes))?;
        writeln!(
            out,
            "  it would be unregistered here, and its settings put aside as:"
        )?;
        writeln!(out, "    {}", text::name(&self.moved_file))
    }

    fn human_outcome(&self, out: &mut dyn Write, taken: &TakenEntry) -> io::Result<()> {
        let name = text::name(&self.machine_name);
        let id = taken.snapshot.get(..8).unwrap_or(&taken.snapshot);
        writeln!(out, "machine '{name}' moved into snapshot {id}")?;
        let there = self.to.as_deref().map_or_else(
            || "on another computer".to_owned(),
            |to| format!("on {}", text::name(to)),
        );
        writeln!(out, "  {there}: vrs migrate --accept {id}")?;
        writeln!(out, "  its files stay here, its settings as:")?;
        writeln!(out, "    {}", text::name(&self.moved_file))
    }
}

impl Report for MigrateReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.taken {
            None => self.human_plan(out),
            Some(taken) => self.human_outcome(out, taken),
        }
    }
}
