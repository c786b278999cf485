//! What `vrs prune --calendar` answers.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;
use vrs_engine::calendar::MachineYear;

use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "calendar")]
pub struct CalendarReport {
    machines: Vec<YearEntry>,
}

#[derive(Debug, Serialize)]
struct YearEntry {
    machine_id: String,
    machine_name: String,
    /// How often snapshots are taken; null when there are too few to tell.
    rhythm_seconds: Option<i64>,
    months: Vec<MonthEntry>,
}

#[derive(Debug, Serialize)]
struct MonthEntry {
    at: Timestamp,
    /// Latest first.
    kept: Vec<Timestamp>,
}

impl From<Vec<MachineYear>> for CalendarReport {
    fn from(years: Vec<MachineYear>) -> Self {
        let machines = years.into_iter().map(|year| YearEntry {
            machine_id: year.machine.to_string(),
            machine_name: year.machine_name,
            rhythm_seconds: year.rhythm.map(|rhythm| rhythm.as_secs()),
            months: year
                .months
                .into_iter()
                .map(|month| MonthEntry {
                    at: month.at,
                    kept: month.kept,
                })
                .collect(),
        });
        Self {
            machines: machines.collect(),
        }
    }
}

impl Report for CalendarReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.machines.is_empty() {
            return writeln!(out, "there are no snapshots");
        }
        self.machines.iter().try_for_each(|year| year.human(out))
    }
}

impl YearEntry {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let rhythm = self.rhythm_seconds.map_or_else(
            || "too few snapshots to tell how often they are taken".to_owned(),
            |seconds| format!("a snapshot every {}", duration(seconds)),
        );
        writeln!(out, "{}: {rhythm}", text::name(&self.machine_name))?;
        let mut table = Columns::new(vec![
            Column::Text("At"),
            Column::Number("Snapshots"),
            Column::Text("Oldest"),
            Column::Text("Second latest"),
        ]);
        for month in &self.months {
            let time =
                |time: Option<&Timestamp>| time.copied().map_or_else(String::new, text::time);
            table.row(vec![
                text::time(month.at),
                month.kept.len().to_string(),
                time(month.kept.last()),
                time(month.kept.get(1)),
            ]);
        }
        writeln!(out, "{}", table.render())?;
        if let Some(last) = self.months.last() {
            writeln!(out, "kept in a year from now:")?;
            last.kept
                .iter()
                .try_for_each(|time| writeln!(out, "  {}", text::time(*time)))?;
        }
        writeln!(out)
    }
}

/// "6 hours", "2 days".
fn duration(seconds: i64) -> String {
    let hours = usize::try_from(seconds.saturating_add(1800) / 3600).unwrap_or_default();
    match hours {
        0..48 => text::count(hours, "hour"),
        _ => text::count(hours.saturating_add(12) / 24, "day"),
    }
}
