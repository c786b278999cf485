//! What `vrs diff` answers.
//!
//! Files are compared by their size and modification time, as the manifests record them; settings
//! by their text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use vrs_engine::manifest::{FileRecord, Manifest};

use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "diff")]
pub struct DiffReport {
    pub from: SnapshotEntry,
    pub to: SnapshotEntry,
    /// Files that differ, by path.
    pub files: Vec<FileChange>,
    /// Lines of the machine's settings that differ.
    pub settings: Vec<LineChange>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    pub path: String,
    pub change: Change,
    pub from_bytes: Option<u64>,
    pub to_bytes: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LineChange {
    pub change: Change,
    pub line: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Added,
    Removed,
    Changed,
}

impl Change {
    const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => 'M',
        }
    }
}

/// The files that differ between two manifests.
pub fn file_changes(from: &Manifest, to: &Manifest) -> Vec<FileChange> {
    let mut pairs: BTreeMap<&str, (Option<&FileRecord>, Option<&FileRecord>)> = BTreeMap::new();
    for file in &from.files {
        pairs.entry(&file.path).or_default().0 = Some(file);
    }
    for file in &to.files {
        pairs.entry(&file.path).or_default().1 = Some(file);
    }
    pairs
        .into_iter()
        .filter_map(|(path, (from, to))| file_change(path, from, to))
        .collect()
}

fn file_change(
    path: &str,
    from: Option<&FileRecord>,
    to: Option<&FileRecord>,
) -> Option<FileChange> {
    let size_and_time = |file: &FileRecord| (file.stamp.size, file.stamp.mtime_ns);
    let change = match (from, to) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        (Some(from), Some(to)) if size_and_time(from) == size_and_time(to) => return None,
        _ => Change::Changed,
    };
    let size = |file: &FileRecord| file.stamp.size;
    Some(FileChange {
        path: path.to_owned(),
        change,
        from_bytes: from.map(size),
        to_bytes: to.map(size),
    })
}

/// The lines that differ between two texts.
pub fn line_changes(from: &str, to: &str) -> Vec<LineChange> {
    let diff = TextDiff::from_lines(from, to);
    let change = |tag| match tag {
        ChangeTag::Equal => None,
        ChangeTag::Delete => Some(Change::Removed),
        ChangeTag::Insert => Some(Change::Added),
    };
    let lines = diff
        .iter_all_changes()
        .filter_map(|line| Some((change(line.tag())?, line)));
    lines
        .map(|(change, line)| LineChange {
            change,
            line: line.value().trim_end().to_owned(),
        })
        .collect()
}

impl Report for DiffReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "from snapshot {}\nto snapshot   {}",
            self.from.title(),
            self.to.title()
        )?;
        if self.files.is_empty() && self.settings.is_empty() {
            return writeln!(out, "no difference");
        }
        if !self.files.is_empty() {
            write!(out, "\n{}", self.file_table())?;
        }
        if !self.settings.is_empty() {
            writeln!(out, "\nsettings:")?;
        }
        self.settings
            .iter()
            .try_for_each(|line| writeln!(out, "{} {}", line.change.sign(), text::name(&line.line)))
    }
}

impl DiffReport {
    fn file_table(&self) -> String {
        let mut table = Columns::new(vec![
            Column::Text(" "),
            Column::Text("File"),
            Column::Number("Before"),
            Column::Number("After"),
        ]);
        for file in &self.files {
            table.row(vec![
                file.change.sign().to_string(),
                text::name(&file.path),
                text::size_if_known(file.from_bytes),
                text::size_if_known(file.to_bytes),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_told_in_order() {
        let changes = line_changes("a\nb\nc\n", "a\nB\nc\nd\n");
        let text: Vec<String> = changes
            .iter()
            .map(|line| format!("{}{}", line.change.sign(), line.line))
            .collect();
        assert_eq!(text, ["-b", "+B", "+d"]);
    }
}
