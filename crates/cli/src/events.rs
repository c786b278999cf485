//! What `--json` writes to stderr while a command runs: one JSON object on each line.
//!
//! `docs/json.md` documents them. Fields may be added; none changes its meaning or goes away.

use serde::Serialize;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A stage begins; its counts start at zero.
    Phase {
        name: &'a str,
        subject: &'a str,
        total_bytes: Option<u64>,
    },
    /// How far the stage is. Written every second and at its end.
    Progress {
        name: &'a str,
        subject: &'a str,
        total_bytes: Option<u64>,
        #[serde(flatten)]
        counts: Counts,
        #[serde(skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
        elapsed_seconds: f64,
    },
    /// Something that does not stop the command but should be known.
    Warning { message: &'a str },
    /// Something that is good to know.
    Note { message: &'a str },
    /// Why the command, or its work on one machine, failed.
    Error {
        #[serde(flatten)]
        failure: &'a crate::errors::Failure,
    },
}

/// The byte counts of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Dealt with, whether read, known unchanged or restored.
    pub scanned_bytes: u64,
    /// Of these, what needed no transfer.
    pub reused_bytes: u64,
    /// Written to the repository.
    pub sent_bytes: u64,
    /// Read from the repository.
    pub fetched_bytes: u64,
}
