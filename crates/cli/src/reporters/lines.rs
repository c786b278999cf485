//! Progress where there is no terminal: one line every 30 seconds.

use std::time::Duration;

use super::{Status, View};
use crate::printer::Printer;

const INTERVAL: Duration = Duration::from_secs(30);

pub struct Lines {
    printer: Printer,
    silent: bool,
}

impl Lines {
    pub const fn new(printer: Printer) -> Self {
        Self {
            printer,
            silent: false,
        }
    }

    /// Only warnings.
    pub const fn silent(printer: Printer) -> Self {
        Self {
            printer,
            silent: true,
        }
    }
}

impl View for Lines {
    fn interval(&self) -> Option<Duration> {
        (!self.silent).then_some(INTERVAL)
    }

    fn begin(&mut self, _status: &Status) {}

    fn show(&mut self, status: &Status) {
        self.printer
            .line(&format!("{}: {}", status.title(), status.counts_text()));
    }

    fn end(&mut self, _status: &Status) {}

    fn warn(&mut self, warning: &str) {
        self.printer.warn(warning);
    }

    fn note(&mut self, note: &str) {
        self.printer.note(note);
    }
}
