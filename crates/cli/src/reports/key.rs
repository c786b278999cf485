//! What `vrs key` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_repository::KeyRecord;

use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "keys")]
pub struct KeysReport {
    keys: Vec<KeyEntry>,
}

#[derive(Debug, Serialize)]
struct KeyEntry {
    id: String,
    /// Whether it opened the repository.
    in_use: bool,
    hostname: Option<String>,
    username: Option<String>,
    created: Option<jiff::Timestamp>,
}

impl From<Vec<KeyRecord>> for KeysReport {
    fn from(keys: Vec<KeyRecord>) -> Self {
        let keys = keys.into_iter().map(|key| KeyEntry {
            id: key.id,
            in_use: key.is_current,
            hostname: key.hostname,
            username: key.username,
            created: key.created,
        });
        Self {
            keys: keys.collect(),
        }
    }
}

impl Report for KeysReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Columns::new(vec![
            Column::Text("ID"),
            Column::Text("In use"),
            Column::Text("User"),
            Column::Text("Host"),
            Column::Text("Created"),
        ]);
        for key in &self.keys {
            table.row(vec![
                key.id.get(..8).unwrap_or(&key.id).to_owned(),
                if key.in_use { "yes" } else { "" }.to_owned(),
                text::name(key.username.as_deref().unwrap_or_default()),
                text::name(key.hostname.as_deref().unwrap_or_default()),
                key.created.map_or_else(String::new, text::time),
            ]);
        }
        write!(out, "{}", table.render())
    }
}
