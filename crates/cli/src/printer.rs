//! Who decides what is written, where and how.
//!
//! What was asked for goes to stdout; everything that is said on the way goes to stderr. With
//! `--json` stdout gets one document and stderr one JSON object a line. A reader of stdout that went
//! away is no error, which [`crate::errors`] sees to.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::AutoStream;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::args::{ColorChoice, GlobalArgs};
use crate::errors::Failure;
use crate::events::Event;
use crate::text;

/// A result in both of its shapes.
pub trait Report: Serialize {
    /// Writes it for people.
    fn human(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Writes results and remarks.
#[derive(Debug, Clone)]
pub struct Printer {
    json: bool,
    quiet: bool,
    color: anstream::ColorChoice,
    warned: Arc<AtomicBool>,
}

impl Printer {
    pub fn new(options: &GlobalArgs) -> Self {
        let color = match options.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        Self {
            json: options.json,
            quiet: options.quiet,
            color,
            warned: Arc::default(),
        }
    }

    /// Writes what was asked for.
    pub fn report(&self, report: &impl Report) -> io::Result<()> {
        let mut out = self.stdout();
        if self.json {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        } else {
            report.human(&mut out)?;
        }
        out.flush()
    }

    /// Writes how a change went, which a quiet user does not want to know.
    pub fn outcome(&self, report: &impl Report) -> io::Result<()> {
        if self.quiet && !self.json {
            Ok(())
        } else {
            self.report(report)
        }
    }

    /// Shows what a question is about, where the question will stand.
    pub fn preview(&self, report: &impl Report) -> io::Result<()> {
        report.human(&mut AutoStream::new(io::stderr(), self.color).lock())
    }

    /// How many columns a picture may have.
    pub fn width(&self) -> usize {
        const WITHOUT_TERMINAL: usize = 80;
        terminal_size::terminal_size().map_or(WITHOUT_TERMINAL, |(width, _)| usize::from(width.0))
    }

    fn stdout(&self) -> impl Write {
        io::BufWriter::new(AutoStream::new(io::stdout(), self.color).lock())
    }

    /// Whether there was anything to warn about.
    pub fn has_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }

    /// Something that is good to know.
    pub fn note(&self, message: &str) {
        if self.json {
            self.event(&Event::Note { message });
        } else if !self.quiet {
            self.remark("note", AnsiColor::Cyan, message);
        }
    }

    /// Something that did not stop the command but should be known.
    pub fn warn(&self, message: &str) {
        self.warned.store(true, Ordering::Relaxed);
        if self.json {
            self.event(&Event::Warning { message });
        } else {
            self.remark("warning", AnsiColor::Yellow, message);
        }
    }

    /// Why something failed.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            self.event(&Event::Error { failure });
            return;
        }
        self.remark("error", AnsiColor::Red, &failure.message);
        for cause in &failure.causes {
            self.line(&format!("  caused by: {}", indented(cause)));
        }
        if let Some(output) = &failure.virtualbox {
            self.line(&format!("  VirtualBox: {}", indented(output)));
        }
        if let Some(hint) = &failure.hint {
            self.remark("hint", AnsiColor::Cyan, hint);
        }
    }

    /// A line of JSON on stderr.
    pub fn event(&self, event: &Event) {
        // Whoever closed stderr does not want to hear about it.
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(io::stderr().lock(), "{line}");
        }
    }

    /// A line of text on stderr.
    pub fn line(&self, line: &str) {
        let _ = writeln!(AutoStream::new(io::stderr(), self.color).lock(), "{line}");
    }

    fn remark(&self, kind: &str, color: AnsiColor, message: &str) {
        let style = Style::new().bold().fg_color(Some(color.into()));
        self.line(&format!("{style}{kind}:{style:#} {}", indented(message)));
    }

    /// Asks a question that is answered with y or n. No answer means no.
    pub fn ask(&self, question: &str) -> io::Result<bool> {
        let mut stderr = AutoStream::new(io::stderr(), self.color);
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Whether there is somebody to ask.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Later lines of a message stand below its first word, so that none passes for a new message.
fn indented(message: &str) -> String {
    text::lines(message).replace('\n', "\n    ")
}
