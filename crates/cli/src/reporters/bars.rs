//! Progress on a terminal: one bar for the phase that is under way, its counts below it.
//!
//! Nothing shows before 250 ms, so that quick commands do not flicker.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Status, View};
use crate::printer::Printer;

const DELAY: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_millis(100);

pub struct Bars {
    printer: Printer,
    begun: Instant,
    bar: ProgressBar,
    /// Taken when the bar is to show for the first time.
    target: Option<ProgressDrawTarget>,
}

impl Bars {
    pub fn new(printer: Printer) -> Self {
        Self::on(ProgressDrawTarget::stderr(), printer)
    }

    fn on(target: ProgressDrawTarget, printer: Printer) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            printer,
            begun: Instant::now(),
            bar,
            target: Some(target),
        }
    }

    fn style(status: &Status) -> ProgressStyle {
        let template = if status.phase.total_bytes.is_some() {
            "{prefix} [{wide_bar}]\n  {wide_msg}"
        } else {
            "{prefix}\n  {wide_msg}"
        };
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
    }
}

impl View for Bars {
    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn begin(&mut self, status: &Status) {
        self.bar.set_message("");
        self.bar.set_style(Self::style(status));
        self.bar.set_length(status.phase.total_bytes.unwrap_or(0));
        self.bar.set_prefix(status.title());
        self.bar.set_position(0);
    }

    fn show(&mut self, status: &Status) {
        if self.begun.elapsed() < DELAY {
            return;
        }
        if let Some(target) = self.target.take() {
            self.bar.set_draw_target(target);
        }
        self.bar.set_position(status.counts.scanned_bytes);
        self.bar.set_message(status.counts_text());
        self.bar.tick();
    }

    fn end(&mut self, _status: &Status) {}

    fn warn(&mut self, warning: &str) {
        self.bar.suspend(|| self.printer.warn(warning));
    }

    fn note(&mut self, note: &str) {
        self.bar.suspend(|| self.printer.note(note));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;
    use vrs_progress::Phase;

    use super::*;
    use crate::args::GlobalArgs;
    use crate::events::Counts;

    #[test]
    fn the_bar_shows_after_the_delay_and_goes_away() {
        let terminal = InMemoryTerm::new(4, 60);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut bars = Bars::on(target, Printer::new(&GlobalArgs::default()));
        let status = Status {
            phase: Phase {
                name: "reading",
                subject: "disk.vdi".to_owned(),
                total_bytes: Some(4096),
            },
            counts: Counts {
                scanned_bytes: 1024,
                ..Counts::default()
            },
            percent: None,
            elapsed: Duration::from_secs(1),
        };
        bars.begin(&status);
        bars.show(&status);
        assert_eq!(terminal.contents(), "");
        std::thread::sleep(DELAY);
        bars.show(&status);
        insta::assert_snapshot!(terminal.contents(), @r"
        reading disk.vdi [==========>                              ]
          1.00 KiB of 4.00 KiB, 1.00 KiB/s, 3 seconds left
        ");
        drop(bars);
        assert_eq!(terminal.contents(), "");
    }
}
