//! What `vrs vms` answers.

use std::io::{self, Write};

use serde::Serialize;

use super::migrate::MovedEntry;
use super::snapshot::SnapshotEntry;
use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "machines")]
pub struct MachinesReport {
    pub machines: Vec<MachineEntry>,
    /// Those that moved away.
    pub moved: Vec<MovedEntry>,
}

#[derive(Debug, Serialize)]
pub struct MachineEntry {
    pub id: String,
    pub name: String,
    pub state: String,
    pub settings_file: String,
    /// Its last snapshot in the repository, if one was given.
    pub last_snapshot: Option<SnapshotEntry>,
}

impl Report for MachinesReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Columns::new(vec![
            Column::Text("Machine"),
            Column::Text("State"),
            Column::Text("Last snapshot"),
            Column::Text("Settings file"),
        ]);
        for machine in &self.machines {
            table.row(vec![
                text::name(&machine.name),
                text::name(&machine.state),
                machine
                    .last_snapshot
                    .as_ref()
                    .map_or_else(String::new, SnapshotEntry::title),
                text::name(&machine.settings_file),
            ]);
        }
        if !self.machines.is_empty() {
            writeln!(out, "{}", table.render())?;
        }
        writeln!(out, "{}", text::count(self.machines.len(), "machine"))?;
        self.moved.iter().try_for_each(|moved| moved.human(out))
    }
}
