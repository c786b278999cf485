//! What `vrs server` answers.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vrs_engine::server::{InstallPlan, TimerState, Unit};

use crate::printer::Report;
use crate::text::{self, Column, Columns};

/// Files of units.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "units")]
pub struct UnitsReport {
    outcome: Outcome,
    units: Vec<UnitEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Planned,
    Written,
    Found,
    Removed,
}

#[derive(Debug, Serialize)]
struct UnitEntry {
    path: PathBuf,
    /// Of units that are planned.
    text: Option<String>,
}

impl UnitsReport {
    pub fn planned(plan: &InstallPlan, folder: &Path) -> Self {
        Self::of_plan(plan, folder, Outcome::Planned)
    }

    pub fn written(plan: &InstallPlan, folder: &Path) -> Self {
        Self::of_plan(plan, folder, Outcome::Written)
    }

    pub fn found(files: &[PathBuf]) -> Self {
        Self::of_files(files, Outcome::Found)
    }

    pub fn removed(files: &[PathBuf]) -> Self {
        Self::of_files(files, Outcome::Removed)
    }

    fn of_plan(plan: &InstallPlan, folder: &Path, outcome: Outcome) -> Self {
        let entry = |unit: &Unit| UnitEntry {
            path: folder.join(&unit.name),
            text: (outcome == Outcome::Planned).then(|| unit.text.clone()),
        };
        Self {
            outcome,
            units: plan.units.iter().map(entry).collect(),
        }
    }

    fn of_files(files: &[PathBuf], outcome: Outcome) -> Self {
        let entry = |path: &PathBuf| UnitEntry {
            path: path.clone(),
            text: None,
        };
        Self {
            outcome,
            units: files.iter().map(entry).collect(),
        }
    }
}

impl Report for UnitsReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.units.is_empty() {
            return writeln!(out, "there are no units of vrs for this repository");
        }
        for unit in &self.units {
            let path = text::name(&unit.path.to_string_lossy());
            match (self.outcome, &unit.text) {
                (Outcome::Planned, Some(text)) => {
                    writeln!(out, "# {path}\n{}\n", text::lines(text))?
                }
                (Outcome::Written, _) => writeln!(out, "wrote {path}")?,
                (Outcome::Removed, _) => writeln!(out, "removed {path}")?,
                _ => writeln!(out, "{path}")?,
            }
        }
        Ok(())
    }
}

/// How timers are doing.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "server")]
pub struct ServerReport {
    timers: Vec<TimerEntry>,
}

/// All in systemd's words.
#[derive(Debug, Serialize)]
struct TimerEntry {
    timer: String,
    enabled: String,
    active: String,
    last: Option<String>,
    next: Option<String>,
    /// How the last run ended.
    result: Option<String>,
    exit_code: Option<i32>,
}

impl ServerReport {
    pub fn new(states: &[TimerState]) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let entry = |state: &TimerState| {
            let has_run = !state.last.is_empty();
            TimerEntry {
                timer: state.timer.clone(),
                enabled: state.enabled.clone(),
                active: state.active.clone(),
                last: some(&state.last),
                next: some(&state.next),
                result: some(&state.result).filter(|_| has_run),
                exit_code: state.exit_code.parse().ok().filter(|_| has_run),
            }
        };
        Self {
            timers: states.iter().map(entry).collect(),
        }
    }
}

impl Report for ServerReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.timers.is_empty() {
            return writeln!(
                out,
                "there are no timers of vrs for this repository; `vrs server install` makes them"
            );
        }
        let titles = ["Timer", "State", "Next", "Last", "Result"];
        let mut table = Columns::new(titles.map(Column::Text).into());
        for timer in &self.timers {
            let shown = |word: &Option<String>| text::name(word.as_deref().unwrap_or_default());
            let code = timer.exit_code.filter(|code| *code != 0);
            let code = code.map_or_else(String::new, |code| format!(" ({code})"));
            table.row(vec![
                text::name(&timer.timer),
                text::name(&format!("{}, {}", timer.enabled, timer.active)),
                shown(&timer.next),
                shown(&timer.last),
                shown(&timer.result) + &code,
            ]);
        }
        write!(out, "{}", table.render())
    }
}
