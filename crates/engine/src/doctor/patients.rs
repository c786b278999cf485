//! Which machines are examined, also those that VirtualBox cannot open.

use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineSettings, MachineState};

use super::examination::Scope;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::previous_settings;
use crate::machine::Machine;

/// The machines of a scope.
pub(super) fn find(host: &Host, scope: &Scope) -> Result<Vec<Machine>> {
    match scope {
        Scope::All => Ok(Machine::all(host)?.into_iter().map(with_name).collect()),
        Scope::Machine(wanted) => Ok(vec![find_one(host, wanted)?]),
    }
}

fn find_one(host: &Host, wanted: &str) -> Result<Machine> {
    match Machine::find(host, wanted) {
        Ok(machine) => Ok(with_name(machine)),
        // A machine whose settings are damaged has no name and no id but in VirtualBox's list.
        Err(error) => match damaged(host, wanted)? {
            Some(machine) => Ok(machine),
            None => Err(error),
        },
    }
}

fn damaged(host: &Host, wanted: &str) -> Result<Option<Machine>> {
    let file =
        std::path::absolute(wanted).map_err(|error| Error::io("find", Path::new(wanted), error))?;
    let listed = match host.virtualbox() {
        Some(_) => Machine::all(host)?,
        None => Vec::new(),
    };
    let is_it = |machine: &Machine| {
        machine.settings_file == file
            || machine.state.is_inaccessible() && known_name(&machine.settings_file) == wanted
    };
    let mut matching: Vec<Machine> = listed.into_iter().filter(is_it).map(with_name).collect();
    match (matching.pop(), matching.len()) {
        (Some(machine), 0) => Ok(Some(machine)),
        (Some(machine), others) => Err(Error::MachineAmbiguous {
            wanted: wanted.to_owned(),
            count: others.saturating_add(1),
            ids: matching
                .iter()
                .chain([&machine])
                .map(|machine| machine.id)
                .collect(),
        }),
        (None, _) => Ok(of_previous_settings(file)),
    }
}

/// A machine that VirtualBox does not know, by the copy of the settings before the last change.
fn of_previous_settings(file: PathBuf) -> Option<Machine> {
    let previous = MachineSettings::read(&previous_settings(&file)).ok()?;
    Some(Machine {
        id: previous.id,
        name: previous.name.clone(),
        state: previous.resting_state(),
        settings_file: file,
        registered: false,
    })
}

fn with_name(machine: Machine) -> Machine {
    if machine.state == MachineState::Inaccessible {
        Machine {
            name: known_name(&machine.settings_file),
            ..machine
        }
    } else {
        machine
    }
}

/// The name in the settings or in their copy, else the one that VirtualBox gave the file.
fn known_name(settings_file: &Path) -> String {
    let read = |file: &Path| MachineSettings::read(file).ok();
    read(settings_file)
        .or_else(|| read(&previous_settings(settings_file)))
        .map_or_else(
            || {
                let stem = settings_file.file_stem().unwrap_or_default();
                stem.to_string_lossy().into_owned()
            },
            |settings| settings.name,
        )
}
