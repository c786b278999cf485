//! What a long operation tells its caller while it runs, and how the caller stops it.
//!
//! Library crates never print. Every operation that may take longer than a moment takes a
//! `&dyn Progress`, reports to it and asks it whether to go on. The terminal, the line log and the
//! JSON event stream of the command line are implementations of this one trait.
//!
//! Guarantees: calls may come from several threads at once; byte counts only ever grow inside one
//! phase. Not guaranteed: that the announced total is met exactly.

use std::fmt;

/// One stage of an operation, shown to people as "`name` `subject`", for example "reading disk.vdi".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What is being done, a present participle: "reading", "restoring", "checking".
    pub name: &'static str,
    /// What it is done to: a file, a disk or a machine, as people call it. May be empty.
    pub subject: String,
    /// How much of [`Counter::Scanned`] there will be in this phase, in bytes, where that is known.
    pub total_bytes: Option<u64>,
}

/// The byte counts that are kept apart, because adding them up would mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Bytes of machine files that were dealt with, whether read, known unchanged or restored.
    Scanned,
    /// Bytes of them that needed no transfer because the other side had them already.
    Reused,
    /// Bytes written to the repository, after compression and encryption.
    Sent,
    /// Bytes read from the repository, before decryption and decompression.
    Fetched,
}

impl Counter {
    /// The name used in events and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scanned => "scanned",
            Self::Reused => "reused",
            Self::Sent => "sent",
            Self::Fetched => "fetched",
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The receiver of everything that a running operation has to say.
pub trait Progress: Send + Sync {
    /// A new phase begins; its counters start at zero.
    fn phase(&self, phase: Phase);

    /// `bytes` more of `counter` in the current phase.
    fn add(&self, counter: Counter, bytes: u64);

    /// The current phase has got so far. For work that others do, such as VirtualBox, and of which no
    /// bytes can be counted.
    fn percent(&self, percent: u8) {
        let _ = percent;
    }

    /// Something the user should know that does not stop the operation.
    fn warn(&self, warning: &str);

    /// Why it takes longer, or what went wrong and was put right: the outcome is as it should be.
    fn note(&self, note: &str) {
        let _ = note;
    }

    /// Called immediately before each action that changes something outside the process: a journal
    /// record, a write, a rename, a command to VirtualBox, an upload. `step` is a stable name.
    ///
    /// A crash may happen at any of these points; tests make it happen at every one.
    fn step(&self, step: &'static str) {
        let _ = step;
    }

    /// Whether the user asked to stop. Operations look between steps and at least once per few
    /// megabytes, finish the step they are in and return an "interrupted" error.
    fn interrupted(&self) -> bool {
        false
    }
}

/// A receiver that ignores everything, for callers that do not care.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}
}
