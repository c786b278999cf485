//! Progress for programs: JSON lines on stderr.

use std::time::Duration;

use super::{Status, View};
use crate::events::Event;
use crate::printer::Printer;

const INTERVAL: Duration = Duration::from_secs(1);

pub struct Events {
    printer: Printer,
}

impl Events {
    pub const fn new(printer: Printer) -> Self {
        Self { printer }
    }
}

impl View for Events {
    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn begin(&mut self, status: &Status) {
        let phase = &status.phase;
        self.printer.event(&Event::Phase {
            name: phase.name,
            subject: &phase.subject,
            total_bytes: phase.total_bytes,
        });
    }

    fn show(&mut self, status: &Status) {
        let phase = &status.phase;
        self.printer.event(&Event::Progress {
            name: phase.name,
            subject: &phase.subject,
            total_bytes: phase.total_bytes,
            counts: status.counts,
            percent: status.percent,
            elapsed_seconds: status.elapsed.as_secs_f64(),
        });
    }

    fn end(&mut self, status: &Status) {
        self.show(status);
    }

    fn warn(&mut self, warning: &str) {
        self.printer.warn(warning);
    }

    fn note(&mut self, note: &str) {
        self.printer.note(note);
    }
}
