//! Finding a machine by its name, its id or the path of its settings file.
//!
//! Guarantees: inside vrs a machine is its id; a name that several machines share is refused.
//! A settings file can be named on a computer without VirtualBox; the machine's state is then what
//! the file says.

use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineId, MachineSettings, MachineState};

use crate::error::{Error, Result};
use crate::host::Host;

/// A machine on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// Its settings file, absolute.
    pub settings_file: PathBuf,
    /// What it is doing.
    pub state: MachineState,
    /// Whether VirtualBox lists it.
    pub registered: bool,
}

impl Machine {
    /// Finds a machine by name, id or the path of its settings file.
    pub fn find(host: &Host, wanted: &str) -> Result<Self> {
        if looks_like_settings_file(wanted) {
            return Self::of_settings_file(host, Path::new(wanted));
        }
        let not_found = || Error::MachineNotFound {
            wanted: wanted.to_owned(),
        };
        let listed = host.require_virtualbox()?.machines()?;
        let id = wanted.parse().ok();
        let matching: Vec<MachineId> = listed
            .iter()
            .filter(|machine| Some(machine.id) == id || machine.name.as_deref() == Some(wanted))
            .map(|machine| machine.id)
            .collect();
        match matching.as_slice() {
            [] => Err(not_found()),
            [id] => Self::registered(host, *id)?.ok_or_else(not_found),
            ids => Err(Error::MachineAmbiguous {
                wanted: wanted.to_owned(),
                count: ids.len(),
                ids: ids.to_vec(),
            }),
        }
    }

    /// The machine that VirtualBox lists under an id.
    pub fn registered(host: &Host, id: MachineId) -> Result<Option<Self>> {
        let Some(virtualbox) = host.virtualbox() else {
            return Ok(None);
        };
        if !virtualbox
            .machines()?
            .iter()
            .any(|machine| machine.id == id)
        {
            return Ok(None);
        }
        let status = virtualbox.machine(id)?;
        Ok(Some(Self {
            id,
            name: status.name,
            settings_file: status.settings_file,
            state: status.state,
            registered: true,
        }))
    }

    /// All machines that VirtualBox lists.
    pub fn all(host: &Host) -> Result<Vec<Self>> {
        let listed = host.require_virtualbox()?.machines()?;
        listed
            .iter()
            .filter_map(|machine| Self::registered(host, machine.id).transpose())
            .collect()
    }

    fn of_settings_file(host: &Host, path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io("find", path, error))?;
        let settings = MachineSettings::read(&path)?;
        if let Some(registered) = Self::registered(host, settings.id)?
            && is_same_file(&registered.settings_file, &path)
        {
            return Ok(registered);
        }
        Ok(Self {
            id: settings.id,
            name: settings.name.clone(),
            state: settings.resting_state(),
            settings_file: path,
            registered: false,
        })
    }

    /// The machine as it is now, looked up again.
    pub fn again(&self, host: &Host) -> Result<Self> {
        if self.registered {
            Self::registered(host, self.id)?.ok_or_else(|| Error::MachineNotFound {
                wanted: self.name.clone(),
            })
        } else {
            Self::of_settings_file(host, &self.settings_file)
        }
    }

    /// The machine folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.settings_file
            .parent()
            .unwrap_or_else(|| Path::new("/"))
    }
}

fn looks_like_settings_file(wanted: &str) -> bool {
    let path = Path::new(wanted);
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("vbox"))
        && (path.is_file() || path.components().count() > 1)
}

fn is_same_file(left: &Path, right: &Path) -> bool {
    left == right
        || matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
}
