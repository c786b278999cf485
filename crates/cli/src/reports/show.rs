//! What `vrs show` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::manifest::{FileRole, Manifest};

use super::snapshot::SnapshotEntry;
use super::take::{captured, not_included, write_not_included};
use crate::printer::Report;
use crate::text::{self, Column, Columns};

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "snapshot")]
pub struct ShowReport {
    pub snapshot: SnapshotEntry,
    /// As stored, see `docs/format.md`.
    pub manifest: Manifest,
}

impl Report for ShowReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for (title, value) in self.facts() {
            if !value.is_empty() {
                writeln!(out, "{title:<12} {}", text::name(&value))?;
            }
        }
        writeln!(out, "\n{}", self.files())?;
        write_not_included(out, &not_included(&self.manifest))
    }
}

impl ShowReport {
    fn facts(&self) -> [(&'static str, String); 12] {
        let Self { snapshot, manifest } = self;
        let host = &manifest.host;
        [
            ("Snapshot", snapshot.id.clone()),
            ("Taken", text::time(snapshot.time)),
            ("Name", snapshot.name.clone().unwrap_or_default()),
            (
                "Description",
                snapshot.description.clone().unwrap_or_default(),
            ),
            ("Tags", snapshot.tags.join(", ")),
            (
                "Machine",
                format!("{} ({})", manifest.machine.name, manifest.machine.id),
            ),
            ("State", manifest.machine.state.clone()),
            (
                "Capture",
                manifest.capture.as_ref().map(captured).unwrap_or_default(),
            ),
            ("Set", manifest.set.clone().unwrap_or_default()),
            ("System", manifest.machine.os_type.clone()),
            (
                "Settings",
                manifest.machine.settings_file.display().to_string(),
            ),
            (
                "Host",
                format!(
                    "{}, {} {}, VirtualBox {}",
                    host.name,
                    host.os,
                    host.architecture,
                    virtualbox(manifest)
                ),
            ),
        ]
    }

    fn files(&self) -> String {
        let mut table = Columns::new(vec![
            Column::Text("File"),
            Column::Text("Kind"),
            Column::Number("Size"),
        ]);
        for file in &self.manifest.files {
            table.row(vec![
                text::name(&file.path),
                role(file.role).to_owned(),
                text::size(file.stamp.size),
            ]);
        }
        table.render()
    }
}

fn virtualbox(manifest: &Manifest) -> &str {
    manifest.host.virtualbox.as_deref().unwrap_or("not there")
}

const fn role(role: FileRole) -> &'static str {
    match role {
        FileRole::Settings => "settings",
        FileRole::PreviousSettings => "previous settings",
        FileRole::Disk => "disk",
        FileRole::SavedState => "saved state",
        FileRole::Nvram => "nvram",
    }
}
