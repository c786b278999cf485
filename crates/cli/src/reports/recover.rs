//! What `vrs recover` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::journal::{Intent, Unfinished};
use vrs_engine::recover::Recovered;
use vrs_engine::undo::UndoPlan;

use super::restore::{StatsEntry, as_text, write_each};
use crate::errors::Failure;
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "recover")]
pub struct RecoverReport {
    pub operations: Vec<OperationEntry>,
}

/// An operation that was interrupted.
#[derive(Debug, Serialize)]
pub struct OperationEntry {
    pub machine_id: String,
    pub title: String,
    pub begun: jiff::Timestamp,
    /// The repository that is needed to finish it, if one is.
    pub repository: Option<String>,
    /// What is left to be done, where no repository is needed.
    #[serde(skip)]
    goal: &'static str,
    #[serde(flatten)]
    pub outcome: RecoverOutcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RecoverOutcome {
    /// It is owed still, because only a look was wanted; with what giving it up would do.
    Owed {
        undo: Option<UndoEntry>,
    },
    /// It was carried out to the end.
    Finished {
        stats: StatsEntry,
    },
    /// It had changed nothing, and was forgotten.
    Dropped,
    /// The machine was let go: it is as it was before.
    Released,
    /// The machine moved away.
    Moved,
    /// It was given up.
    Undone {
        undo: UndoEntry,
    },
    Failed {
        error: Failure,
    },
}

impl From<Recovered> for RecoverOutcome {
    fn from(recovered: Recovered) -> Self {
        match recovered {
            Recovered::Finished(stats) => Self::Finished {
                stats: stats.into(),
            },
            Recovered::Dropped => Self::Dropped,
            Recovered::Released => Self::Released,
            Recovered::Moved => Self::Moved,
        }
    }
}

/// What giving an operation up does.
#[derive(Debug, Serialize)]
pub struct UndoEntry {
    pub unregister: bool,
    pub remove: Vec<String>,
    pub put_back: Vec<String>,
    pub register: Option<String>,
}

impl From<UndoPlan> for UndoEntry {
    fn from(plan: UndoPlan) -> Self {
        Self {
            unregister: plan.unregister,
            remove: as_text(&plan.remove),
            put_back: as_text(&plan.put_back),
            register: plan.register.map(|file| file.display().to_string()),
        }
    }
}

impl UndoEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.unregister {
            writeln!(out, "  unregister")?;
        }
        write_each(out, "remove", &self.remove)?;
        write_each(out, "put back", &self.put_back)?;
        write_each(out, "register", self.register.as_slice())
    }
}

impl OperationEntry {
    pub fn new(unfinished: &Unfinished, outcome: RecoverOutcome) -> Self {
        Self {
            machine_id: unfinished.machine.to_string(),
            title: unfinished.intent.title(),
            begun: unfinished.begun,
            repository: location(unfinished).map(ToOwned::to_owned),
            goal: match unfinished.intent {
                Intent::Capture(_) => "the machine is to be let go",
                _ => "to be finished",
            },
            outcome,
        }
    }
}

/// The repository that finishing an operation needs.
pub fn location(unfinished: &Unfinished) -> Option<&str> {
    match &unfinished.intent {
        Intent::Restore(intent) => Some(&intent.repository_location),
        Intent::Migrate(intent) => Some(&intent.repository_location),
        Intent::Repair(intent) => intent.needed_repository(),
        _ => None,
    }
}

impl Report for RecoverReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.operations.is_empty() {
            writeln!(out, "nothing is owed")?;
        }
        self.operations
            .iter()
            .try_for_each(|operation| operation.human(out))
    }
}

impl OperationEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = text::name(&self.title);
        let begun = text::time(self.begun);
        match &self.outcome {
            RecoverOutcome::Owed { undo: Some(undo) } => {
                writeln!(out, "{title}, begun {begun}: to be undone")?;
                undo.human(out)
            }
            RecoverOutcome::Owed { undo: None } => match &self.repository {
                Some(repository) => {
                    let repository = text::name(repository);
                    writeln!(
                        out,
                        "{title}, begun {begun}, from the repository at {repository}: to be finished"
                    )
                }
                None => writeln!(out, "{title}, begun {begun}: {}", self.goal),
            },
            RecoverOutcome::Released => writeln!(
                out,
                "{title}, begun {begun}: the machine is as it was before"
            ),
            RecoverOutcome::Moved => writeln!(out, "{title}, begun {begun}: it moved"),
            RecoverOutcome::Finished { .. } => writeln!(out, "{title}, begun {begun}: finished"),
            RecoverOutcome::Dropped => writeln!(
                out,
                "{title}, begun {begun}: had changed nothing, forgotten"
            ),
            RecoverOutcome::Undone { undo } => {
                writeln!(out, "{title}, begun {begun}: undone")?;
                undo.human(out)
            }
            // Failures are told where they happen.
            RecoverOutcome::Failed { .. } => Ok(()),
        }
    }
}
