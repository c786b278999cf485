//! What `vrs recover` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::journal::{Intent, Unfinished};

use super::restore::StatsEntry;
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
    pub repository: String,
    #[serde(flatten)]
    pub outcome: RecoverOutcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RecoverOutcome {
    /// It is owed still, because only a look was wanted.
    Owed,
    /// It was carried out to the end.
    Finished {
        stats: StatsEntry,
    },
    /// It had changed nothing, and was forgotten.
    Dropped,
    Failed {
        error: Failure,
    },
}

impl OperationEntry {
    pub fn new(unfinished: &Unfinished, outcome: RecoverOutcome) -> Self {
        Self {
            machine_id: unfinished.machine.to_string(),
            title: unfinished.intent.title(),
            begun: unfinished.begun,
            repository: location(unfinished).to_owned(),
            outcome,
        }
    }
}

/// The repository that an operation used.
pub fn location(unfinished: &Unfinished) -> &str {
    match &unfinished.intent {
        Intent::Restore(intent) => &intent.repository_location,
        _ => "",
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
            RecoverOutcome::Owed => {
                let repository = text::name(&self.repository);
                writeln!(
                    out,
                    "{title}, begun {begun}, from the repository at {repository}: to be finished"
                )
            }
            RecoverOutcome::Finished { .. } => writeln!(out, "{title}, begun {begun}: finished"),
            RecoverOutcome::Dropped => writeln!(
                out,
                "{title}, begun {begun}: had changed nothing, forgotten"
            ),
            // Failures are told where they happen.
            RecoverOutcome::Failed { .. } => Ok(()),
        }
    }
}
