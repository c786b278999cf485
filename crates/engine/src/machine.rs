//! Finding a machine by its name, its id or the path of its settings file.
//!
//! Guarantees: inside vrs a machine is its id; a name that several machines share is refused.
//! A settings file can be named on a computer without VirtualBox; the machine's state is then what
//! the file says.

use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineId, MachineSettings, MachineState};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::Intent;
use crate::records;

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
            if !Path::new(wanted).exists() {
                refuse_if_moved(host, wanted)?;
            }
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
            [] => {
                refuse_if_moved(host, wanted)?;
                Err(not_found())
            }
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

    /// The machines of a VirtualBox group and of the groups below it.
    pub fn in_group(host: &Host, group: &str) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for machine in Self::all(host)? {
            let settings = MachineSettings::read(&machine.settings_file);
            // Whoever is inaccessible is in no group that could be told.
            if settings.is_ok_and(|settings| is_in_group(&settings.groups, group)) {
                found.push(machine);
            }
        }
        Ok(found)
    }

    fn of_settings_file(host: &Host, path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io("find", path, error))?;
        let settings = MachineSettings::read(&path)
            .or_else(|error| refuse_if_put_aside(host, &path).and(Err(error.into())))?;
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

    /// Fails unless the machine is as it was when it was looked up.
    pub(crate) fn verify_unchanged(&self, host: &Host) -> Result<()> {
        let now = self.again(host)?;
        if now == *self {
            return Ok(());
        }
        Err(Error::ChangedWhileRead {
            name: self.name.clone(),
            what: format!("it is {} now", now.state),
        })
    }

    /// The machine folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.settings_file
            .parent()
            .unwrap_or_else(|| Path::new("/"))
    }
}

fn refuse_if_moved(host: &Host, wanted: &str) -> Result<()> {
    records::moved_away(host, wanted)?.map_or(Ok(()), |moved| Err(moved.error()))
}

/// Settings name no group for a machine at the top, `/`.
fn is_in_group(groups: &[String], wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches('/');
    let below = |group: &String| {
        group
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    wanted.is_empty() || groups.iter().any(below)
}

/// Whether an interrupted operation is the reason why a settings file is not there.
fn refuse_if_put_aside(host: &Host, settings_file: &Path) -> Result<()> {
    let owed = host.journals().unfinished()?;
    let owed = owed.into_iter().find(|unfinished| {
        matches!(&unfinished.intent, Intent::Restore(intent) if intent.settings_file == settings_file)
    });
    owed.map_or(Ok(()), |unfinished| {
        Err(Error::NeedsRecovery {
            title: unfinished.intent.title(),
        })
    })
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
