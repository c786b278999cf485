//! Pruning and checking on the machine where a repository lies, by systemd's clock.
//!
//! A plan is the text of four units, two services and the timers that start them. Installing writes
//! them, asks systemd to heed them and looks whether it does; doing it again changes nothing. No unit
//! holds a password: a system service gets it as a credential, which only it can read. Files that vrs did
//! not write are neither replaced nor removed.
//!
//! Not guaranteed: that anything is done where systemd does not run.

mod systemctl;
mod unit;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform;
use crate::retention::Rules;

pub use systemctl::{Systemctl, TimerState};
pub use unit::Unit;

/// First line of all units of vrs.
const MARK: &str = "# Written by `vrs server install`; `vrs server uninstall` removes it.";

/// Whose services they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The computer's: they run as the owner of the repository.
    System,
    /// The user's: they run as whoever installs them, while that user's systemd runs.
    User,
}

/// What the services do.
#[derive(Debug, Clone)]
pub struct Service {
    /// Whose they are.
    pub scope: Scope,
    /// The program `vrs`, with its whole path.
    pub program: PathBuf,
    /// The folder of the repository, with its whole path.
    pub repository: PathBuf,
    /// The file with its password, with its whole path. Others must not be able to read it.
    pub password_file: PathBuf,
    /// What is kept. None: the policy that is stored with the repository counts.
    pub rules: Option<Rules>,
    /// When to prune, as systemd's `OnCalendar` has it.
    pub prune_at: String,
    /// When to check, likewise.
    pub check_at: String,
    /// How much of the data a check reads, in percent.
    pub check_percent: u8,
}

/// What an installation writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// The units.
    pub units: Vec<Unit>,
}

impl InstallPlan {
    /// The units of a service.
    ///
    /// # Errors
    /// When others can read the password, or something given cannot stand in a unit.
    pub fn make(service: &Service) -> Result<Self> {
        platform::refuse_if_others_can_read(&service.password_file)?;
        let owner = platform::owner_of(&service.repository)?;
        Ok(Self {
            units: unit::all(service, owner)?,
        })
    }

    /// Writes the units to a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.units
            .iter()
            .try_for_each(|unit| is_ours(&folder.join(&unit.name)).map(drop))?;
        fs::create_dir_all(folder)
            .map_err(|error| Error::io("create the folder", folder, error))?;
        self.units.iter().try_for_each(|unit| {
            let path = folder.join(&unit.name);
            platform::replace_file(&path, unit.text.as_bytes())?;
            platform::let_others_read(&path)
        })
    }

    /// Writes the units to systemd's folder and starts the timers.
    ///
    /// # Errors
    /// When systemd does not heed them afterwards.
    pub fn execute(&self, folder: &Path, systemctl: &Systemctl) -> Result<Vec<TimerState>> {
        self.write(folder)?;
        systemctl.reload()?;
        let timers = self.units.iter().filter(|unit| unit.is_timer());
        let timers: Vec<&str> = timers.map(|unit| unit.name.as_str()).collect();
        systemctl.start(&timers)?;
        let states = timers.iter().map(|timer| systemctl.state(timer));
        let states: Vec<TimerState> = states.collect::<Result<_>>()?;
        match states.iter().find(|state| !state.is_active()) {
            Some(state) => Err(state.not_active()),
            None => Ok(states),
        }
    }
}

/// What there is of the units of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Units of vrs in the folder.
    pub files: Vec<PathBuf>,
    timers: Vec<String>,
}

impl Installed {
    /// Looks for the units of the repository in a folder.
    pub fn find(repository: &Path, folder: &Path) -> Result<Self> {
        let mut found = Self {
            files: Vec::new(),
            timers: Vec::new(),
        };
        for name in unit::names(repository)? {
            let path = folder.join(&name);
            if is_ours(&path)? {
                found.files.push(path);
                found.timers.extend(unit::is_timer(&name).then_some(name));
            }
        }
        Ok(found)
    }

    /// How the timers are doing.
    pub fn states(&self, systemctl: &Systemctl) -> Result<Vec<TimerState>> {
        self.timers
            .iter()
            .map(|timer| systemctl.state(timer))
            .collect()
    }

    /// Removes the units from a folder that systemd does not look at.
    pub fn remove(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| {
            fs::remove_file(file).map_err(|error| Error::io("remove", file, error))
        })
    }

    /// Stops the timers and removes the units.
    pub fn execute(&self, systemctl: &Systemctl) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let timers: Vec<&str> = self.timers.iter().map(String::as_str).collect();
        systemctl.stop(&timers)?;
        self.remove()?;
        systemctl.reload()?;
        for state in self.states(systemctl)? {
            if state.is_active() {
                return Err(state.still_active());
            }
        }
        Ok(())
    }
}

/// Whether vrs wrote a unit. None there is not.
fn is_ours(path: &Path) -> Result<bool> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(true),
        Ok(_) => Err(Error::ForeignUnit {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path, error)),
    }
}
