//! Progress receivers that break an operation at one of its steps, or write down which steps it
//! takes.
//!
//! A step is what an operation announces through [`Progress::step`] right before it changes
//! something outside the process; breaking it at every step is breaking it everywhere that matters.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vrs_progress::{Counter, Phase, Progress};

/// How a [`FaultProgress`] breaks the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Abort,
    Interrupt,
}

/// Breaks the operation that reports to it when it announces its `n`-th step, counted from one.
#[derive(Debug)]
pub struct FaultProgress {
    fault: Fault,
    at_step: usize,
    steps_taken: AtomicUsize,
}

impl FaultProgress {
    /// Ends the whole process with `SIGABRT` at the step, before the step has any effect: no
    /// destructor runs and no buffer is flushed, as with a crash.
    #[must_use]
    pub fn abort_at(step: usize) -> Self {
        Self::new(Fault::Abort, step)
    }

    /// Reports "interrupted", as after Ctrl-C, from the step on.
    #[must_use]
    pub fn interrupt_at(step: usize) -> Self {
        Self::new(Fault::Interrupt, step)
    }

    fn new(fault: Fault, at_step: usize) -> Self {
        Self {
            fault,
            at_step,
            steps_taken: AtomicUsize::new(0),
        }
    }

    /// How many steps were announced.
    pub fn steps_taken(&self) -> usize {
        self.steps_taken.load(Ordering::SeqCst)
    }

    /// Whether the operation got as far as the step at which it is to be broken.
    pub fn reached(&self) -> bool {
        self.steps_taken() >= self.at_step
    }
}

impl Progress for FaultProgress {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}

    fn step(&self, step: &'static str) {
        let number = self.steps_taken.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fault == Fault::Abort && number == self.at_step {
            eprintln!("{CRASH_MARK}{step}");
            std::process::abort();
        }
    }

    fn interrupted(&self) -> bool {
        self.fault == Fault::Interrupt && self.reached()
    }
}

/// Precedes the name of the step on standard error, so that whoever started the process can tell
/// where it ended.
pub(crate) const CRASH_MARK: &str = "testkit: aborted before step ";

/// Writes down everything that it is told.
#[derive(Debug, Default)]
pub struct StepLog {
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    steps: Vec<&'static str>,
    phases: Vec<Phase>,
    warnings: Vec<String>,
    bytes: BTreeMap<&'static str, u64>,
}

impl StepLog {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("no receiver of progress panics")
    }

    /// The steps in the order in which they were announced.
    pub fn steps(&self) -> Vec<&'static str> {
        self.log().steps.clone()
    }

    /// How often `step` was announced.
    pub fn count(&self, step: &str) -> usize {
        self.log()
            .steps
            .iter()
            .filter(|name| **name == step)
            .count()
    }

    /// The phases in the order in which they began.
    pub fn phases(&self) -> Vec<Phase> {
        self.log().phases.clone()
    }

    /// The warnings in the order in which they came.
    pub fn warnings(&self) -> Vec<String> {
        self.log().warnings.clone()
    }

    /// The sum of `counter` over all phases.
    pub fn bytes(&self, counter: Counter) -> u64 {
        self.log().bytes.get(counter.name()).copied().unwrap_or(0)
    }
}

impl Progress for StepLog {
    fn phase(&self, phase: Phase) {
        self.log().phases.push(phase);
    }

    fn add(&self, counter: Counter, bytes: u64) {
        *self.log().bytes.entry(counter.name()).or_default() += bytes;
    }

    fn warn(&self, warning: &str) {
        self.log().warnings.push(warning.to_owned());
    }

    fn step(&self, step: &'static str) {
        self.log().steps.push(step);
    }
}
