//! How values look to people: names, sizes, times, tables.
//!
//! Guarantees: whatever a machine, a snapshot or a file is called, what is shown stays on its line
//! and cannot steer the terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::HumanBytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A name on one line: control characters, and others that would reorder what stands around them,
/// become escapes.
pub fn name(raw: &str) -> String {
    raw.chars()
        .fold(String::with_capacity(raw.len()), |mut shown, character| {
            if is_unsafe(character) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
            shown
        })
}

/// Like [`name`], for texts that may have several lines.
pub fn lines(raw: &str) -> String {
    raw.lines().map(name).collect::<Vec<_>>().join("\n")
}

fn is_unsafe(character: char) -> bool {
    // The bidirectional controls of Unicode, as in "Trojan Source".
    let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}')
}

/// A length in binary units.
pub fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A length that may be unknown.
pub fn size_if_known(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, size)
}

/// A time in the local zone.
pub fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// "1 file", "2 files".
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// A table without lines between its cells. Columns in which no row has anything are left out.
pub struct Columns {
    titles: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column of a table.
pub enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Columns {
    pub const fn new(titles: Vec<Column>) -> Self {
        Self {
            titles,
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, ready to be written.
    pub fn render(&self) -> String {
        let shown: Vec<usize> = (0..self.titles.len())
            .filter(|column| self.has_content(*column))
            .collect();
        let pick = |cells: &[String]| -> Vec<String> {
            shown
                .iter()
                .filter_map(|column| cells.get(*column).cloned())
                .collect()
        };
        let titles: Vec<String> = self
            .titles
            .iter()
            .map(|title| title.text().to_owned())
            .collect();
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table
            .set_header(pick(&titles))
            .add_rows(self.rows.iter().map(|row| pick(row)));
        let kinds = shown.iter().filter_map(|column| self.titles.get(*column));
        for (column, kind) in table.column_iter_mut().zip(kinds) {
            column.set_padding((0, 2));
            if matches!(kind, Column::Number(_)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        without_trailing_blanks(&table.to_string())
    }

    fn has_content(&self, column: usize) -> bool {
        self.rows
            .iter()
            .any(|row| row.get(column).is_some_and(|cell| !cell.is_empty()))
    }
}

impl Column {
    const fn text(&self) -> &'static str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

fn without_trailing_blanks(table: &str) -> String {
    table.lines().fold(String::new(), |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_on_their_line_and_leave_the_terminal_alone() {
        assert_eq!(
            name("a\nb\u{1b}[31m\u{202e}\"é\""),
            "a\\nb\\u{1b}[31m\\u{202e}\"é\""
        );
        assert_eq!(lines("one\ntwo\u{7}"), "one\ntwo\\u{7}");
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size(1536 << 20), "1.50 GiB");
        assert_eq!(size_if_known(None), "");
    }

    #[test]
    fn columns_without_content_are_left_out() {
        let mut table = Columns::new(vec![
            Column::Text("ID"),
            Column::Text("Tags"),
            Column::Number("Size"),
        ]);
        table.row(vec!["a".to_owned(), String::new(), "1 B".to_owned()]);
        table.row(vec!["bcd".to_owned(), String::new(), "12 GiB".to_owned()]);
        insta::assert_snapshot!(table.render(), @r"
        ID     Size
        a       1 B
        bcd  12 GiB
        ");
    }
}
