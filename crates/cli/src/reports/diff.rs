//! What `vrs diff` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::diff::{Change, Diff};

use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "diff")]
pub struct DiffReport {
    pub from: SnapshotEntry,
    pub to: SnapshotEntry,
    #[serde(flatten)]
    pub diff: Diff,
}

const fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => 'M',
    }
}

impl Report for DiffReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "from snapshot {}\nto snapshot   {}",
            self.from.title(),
            self.to.title()
        )?;
        if self.diff.files.is_empty() && self.diff.settings.is_empty() {
            return writeln!(out, "no difference");
        }
        if !self.diff.files.is_empty() {
            write!(out, "\n{}", self.file_table())?;
        }
        if !self.diff.settings.is_empty() {
            writeln!(out, "\nsettings:")?;
        }
        let mut lines = self.diff.settings.iter();
        lines.try_for_each(|line| writeln!(out, "{} {}", sign(line.change), text::name(&line.line)))
    }
}

impl DiffReport {
    fn file_table(&self) -> String {
        let mut table = Columns::new(vec![
            Column::Text(" "),
            Column::Text("File"),
            Column::Number("Before"),
            Column::Number("After"),
            Column::Number("New bytes"),
        ]);
        for file in &self.diff.files {
            table.row(vec![
                sign(file.change).to_string(),
                text::name(&file.path),
                text::size_if_known(file.from_bytes),
                text::size_if_known(file.to_bytes),
                text::size_if_known(file.changed_bytes),
            ]);
        }
        table.render()
    }
}
