//! What this host remembers about machines between runs: which moved away, and which it took over.
//!
//! One JSON file per machine, below vrs's state folder. Guarantees: a record is on disk when
//! `Records::write` returns, whole or not at all. Not guaranteed: that another host, another user
//! or a lost state folder knows of it.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::platform;

/// A machine that moved into the repository, and does not live here any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedMachine {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// Id of the migration.
    pub migration: String,
    /// The snapshot that it moved into.
    pub snapshot: String,
    /// Where the repository was, for people.
    pub repository_location: String,
    /// When it moved.
    pub at: jiff::Timestamp,
    /// Where its settings file was.
    pub settings_file: PathBuf,
    /// Where that lies now, under a name that VirtualBox does not open.
    pub moved_file: PathBuf,
}

/// A machine that this host took over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedMachine {
    /// The machine.
    pub machine: MachineId,
    /// Id of the migration.
    pub migration: String,
    /// The snapshot that it came from.
    pub snapshot: String,
    /// The host that it came from.
    pub from: String,
    /// When it was taken over.
    pub at: jiff::Timestamp,
}

/// A machine that this host is about to take over, or took over: how its claim in the repository is
/// recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimedMachine {
    pub(crate) machine: MachineId,
    /// Id of the migration.
    pub(crate) migration: String,
    /// Id of the claim.
    pub(crate) claim: String,
}

/// All records of one kind.
pub(crate) struct Records<T> {
    folder: PathBuf,
    kind: PhantomData<T>,
}

/// Machines that moved away from this host.
pub(crate) fn moved(host: &Host) -> Records<MovedMachine> {
    Records::new(&host.state_folder, "moved")
}

/// Machines that this host took over.
pub(crate) fn accepted(host: &Host) -> Records<AcceptedMachine> {
    Records::new(&host.state_folder, "accepted")
}

/// Claims of this host.
pub(crate) fn claimed(host: &Host) -> Records<ClaimedMachine> {
    Records::new(&host.state_folder, "claimed")
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    fn new(state_folder: &Path, name: &str) -> Self {
        Self {
            folder: state_folder.join(name),
            kind: PhantomData,
        }
    }

    pub(crate) fn of_machine(&self, machine: MachineId) -> Result<Option<T>> {
        let path = self.path(machine);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let record = serde_json::from_slice(&text);
        Ok(Some(record.map_err(|error| {
            Error::io("understand", &path, error.into())
        })?))
    }

    /// All of them, by the machine's id.
    pub(crate) fn all(&self) -> Result<Vec<T>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read the folder", &self.folder, error)),
        };
        let mut machines: Vec<MachineId> = entries
            .flatten()
            .filter_map(|entry| machine_of(&entry.path()))
            .collect();
        machines.sort_unstable();
        let found = machines.into_iter().map(|machine| self.of_machine(machine));
        found.filter_map(Result::transpose).collect()
    }

    pub(crate) fn write(&self, machine: MachineId, record: &T) -> Result<()> {
        let path = self.path(machine);
        platform::create_private_folder(&self.folder)?;
        let text = serde_json::to_vec_pretty(record);
        let text = text.map_err(|error| Error::io("write", &path, error.into()))?;
        platform::replace_file(&path, &text)
    }

    pub(crate) fn remove(&self, machine: MachineId) -> Result<()> {
        platform::remove_file(&self.path(machine))
    }

    fn path(&self, machine: MachineId) -> PathBuf {
        self.folder.join(format!("{machine}.json"))
    }
}

fn machine_of(path: &Path) -> Option<MachineId> {
    (path.extension()? == "json").then(|| path.file_stem()?.to_str()?.parse().ok())?
}

/// The machine that moved away and is named so: by its name, its id or its settings file.
pub(crate) fn moved_away(host: &Host, wanted: &str) -> Result<Option<MovedMachine>> {
    let id = wanted.parse().ok();
    let path = std::path::absolute(wanted).ok();
    let is_meant = |moved: &MovedMachine| {
        Some(moved.machine) == id
            || moved.machine_name == wanted
            || path.as_ref() == Some(&moved.settings_file)
    };
    Ok(moved(host).all()?.into_iter().find(is_meant))
}

impl MovedMachine {
    /// The error for whoever wants to do something with it here.
    pub(crate) fn error(&self) -> Error {
        Error::Moved {
            name: self.machine_name.clone(),
            snapshot: self.snapshot.chars().take(8).collect(),
            location: self.repository_location.clone(),
            day: self.at.to_string().chars().take(10).collect(),
        }
    }
}
