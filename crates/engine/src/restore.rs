//! Bringing a machine back: in place, or as a second machine (see [`crate::clone`]).
//!
//! Guarantees: nothing is changed before the intent is on disk; from then on the machine stays
//! unregistered, its settings file put aside, until every file is in place, so that nobody boots
//! half a disk. Carrying out the same intent again after any interruption gives the same result.
//! Files that VirtualBox did not own are never removed, and images on which other machines depend
//! are never changed.

mod execute;
mod former;
mod ownership;
mod place;
mod plan;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vrs_virtualbox::{MachineId, MediumId};

use crate::records::AcceptedMachine;

pub use execute::{Restored, execute, start};
pub(crate) use execute::{
    carry_out, close_unused_media, introduce, kept_settings, remove, save_registries,
};
pub(crate) use former::Former;
pub use former::last_taken_here;
pub(crate) use ownership::related_users;
pub use plan::{RestoreOptions, RestorePlan};

/// Everything that carrying out a restore needs, also after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreIntent {
    /// The repository's id.
    pub repository: String,
    /// Where the repository was, for people.
    pub repository_location: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// Whether a second machine is made.
    pub is_clone: bool,
    /// The machine's id when it is done.
    pub machine: MachineId,
    /// The machine's name when it is done.
    pub machine_name: String,
    /// The machine folder.
    pub folder: PathBuf,
    /// The settings file when it is done.
    pub settings_file: PathBuf,
    /// Its content.
    pub settings: String,
    /// Settings files that are put aside first.
    pub set_aside: Vec<PathBuf>,
    /// The files to restore.
    pub files: Vec<IntentFile>,
    /// Local files whose chunks may be used.
    pub seeds: Vec<PathBuf>,
    /// Images that get an identity of their own.
    pub images: Vec<IntentImage>,
    /// Files to remove.
    pub remove: Vec<PathBuf>,
    /// Whether VirtualBox is told about the machine.
    pub register: bool,
    /// Whether the machine moved away from this host, and lives here again when it is done.
    #[serde(default)]
    pub comes_back: bool,
    /// What this host is to remember, if it takes the machine over.
    #[serde(default)]
    pub accepts: Option<AcceptedMachine>,
}

impl RestoreIntent {
    /// What the user would call it.
    #[must_use]
    pub fn title(&self) -> String {
        let verb = if self.is_clone {
            "cloning"
        } else {
            "restoring"
        };
        format!("{verb} machine '{}'", self.machine_name)
    }
}

/// A file to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentFile {
    /// In the snapshot.
    pub path: String,
    /// On this host.
    pub target: PathBuf,
}

/// An image and its new identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentImage {
    /// The main file.
    pub target: PathBuf,
    /// VirtualBox's name of the format.
    pub format: String,
    /// Its id.
    pub id: MediumId,
    /// The image that it is a difference to.
    pub parent: Option<MediumId>,
}
