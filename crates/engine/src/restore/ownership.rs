//! Whose a file or an image is: what a restore may change, remove, or must leave alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineId, MachineSettings, Medium, MediumId};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::machine::Machine;
use crate::manifest::FileRole;
use crate::records::MovedMachine;

/// The machine as it is on this host before the restore, as far as it is there.
pub(super) struct Present {
    id: MachineId,
    /// The machine, registered or lying at the expected place.
    pub(super) machine: Option<Machine>,
    /// Its files, where its settings can be read.
    pub(super) inventory: Option<Inventory>,
}

impl Present {
    /// The machine that moved away from this host, as it was left.
    pub(super) fn left(host: &Host, moved: &MovedMachine) -> Self {
        let read = |text: String| {
            let settings = MachineSettings::parse(&text, &moved.settings_file).ok()?;
            let machine = Machine {
                id: settings.id,
                name: settings.name.clone(),
                state: settings.resting_state(),
                settings_file: moved.settings_file.clone(),
                registered: false,
            };
            let inventory = Inventory::with_settings(host, &machine, text, Missing::Skip).ok();
            Some(Self {
                id: moved.machine,
                machine: Some(machine),
                inventory,
            })
        };
        let text = std::fs::read_to_string(&moved.moved_file).ok();
        text.and_then(read).unwrap_or(Self {
            id: moved.machine,
            machine: None,
            inventory: None,
        })
    }

    /// Looks for the machine in VirtualBox and at `expected`, where its settings file was.
    pub(super) fn find(host: &Host, id: MachineId, expected: &Path) -> Result<Self> {
        let registered = Machine::registered(host, id)?;
        let machine = match registered {
            Some(machine) => Some(machine),
            None => lying_at(host, id, expected),
        };
        let inventory = machine
            .as_ref()
            .map(|machine| Inventory::of(host, machine, Missing::Skip))
            .transpose();
        let inventory = match inventory {
            Err(error) if !is_silence(&error) => None,
            found => found?,
        };
        Ok(Self {
            id,
            machine,
            inventory,
        })
    }

    /// Whether VirtualBox made or uses this file for the machine.
    pub(super) fn owns(&self, path: &Path) -> bool {
        self.of_role(|_| true).any(|file| file == path)
    }

    /// Files that stay as they are while those in `targets` are written. Settings files do not:
    /// they are put aside first.
    pub(super) fn seeds(&self, targets: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let is_settings = |role| matches!(role, FileRole::Settings | FileRole::PreviousSettings);
        self.of_role(|role| !is_settings(role))
            .filter(|path| !targets.contains(path))
            .collect()
    }

    /// Where the machine's settings files are now.
    pub(super) fn settings_files(&self) -> Vec<PathBuf> {
        self.of_role(|role| role == FileRole::Settings).collect()
    }

    /// Where a medium of the machine is now.
    pub(super) fn location_of(&self, medium: MediumId) -> Option<&Path> {
        let media = &self.inventory.as_ref()?.media;
        media
            .iter()
            .find(|known| known.id == medium)
            .map(|known| known.location.as_path())
    }

    /// Files of the machine that a restore to `targets` leaves without use: differencing images,
    /// saved states, nvram copies and old settings. A base image may be somebody's only copy and
    /// stays.
    pub(super) fn superfluous(&self, targets: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let disposable = self
            .of_role(|role| role != FileRole::Disk)
            .chain(self.differencing_files());
        let unused: BTreeSet<PathBuf> = disposable.filter(|path| !targets.contains(path)).collect();
        unused.into_iter().collect()
    }

    /// Base images that a restore to `targets` detaches from the machine and leaves where they are.
    pub(super) fn left_behind(&self, targets: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let differencing: BTreeSet<PathBuf> = self.differencing_files().collect();
        self.of_role(|role| role == FileRole::Disk)
            .filter(|path| !differencing.contains(path) && !targets.contains(path))
            .collect()
    }

    fn of_role(&self, wanted: impl Fn(FileRole) -> bool) -> impl Iterator<Item = PathBuf> {
        let files = self.inventory.iter().flat_map(|inventory| &inventory.files);
        files
            .filter(move |file| wanted(file.role))
            .map(|file| file.local.clone())
    }

    fn differencing_files(&self) -> impl Iterator<Item = PathBuf> {
        self.inventory.iter().flat_map(|inventory| {
            let is_differencing = |id| {
                inventory
                    .media
                    .iter()
                    .any(|medium| Some(medium.id) == id && medium.parent.is_some())
            };
            let files = inventory
                .files
                .iter()
                .filter(move |file| file.role == FileRole::Disk);
            files
                .filter(move |file| is_differencing(file.medium))
                .map(|file| file.local.clone())
        })
    }
}

/// Whether VirtualBox just does not answer. Any other failure is a reason to restore the machine:
/// its settings or images are lost.
fn is_silence(error: &Error) -> bool {
    use vrs_virtualbox::ErrorKind;
    let Error::VirtualBox(error) = error else {
        return false;
    };
    let is_signal = matches!(error.as_ref(), vrs_virtualbox::Error::Signal { .. });
    let kind = error.kind();
    is_signal
        || matches!(
            kind,
            ErrorKind::Busy | ErrorKind::Timeout | ErrorKind::NoVirtualBox
        )
}

/// A machine that was unregistered and left where it was.
fn lying_at(host: &Host, id: MachineId, settings_file: &Path) -> Option<Machine> {
    let settings = MachineSettings::read(settings_file).ok()?;
    (settings.id == id).then(|| Machine::find(host, settings_file.to_str()?).ok())?
}

/// Machines that use an image or one that depends on it.
pub(crate) fn related_users(image: MediumId, media: &[Medium]) -> Vec<MachineId> {
    let mut family = vec![image];
    // Parents may be listed after their children, so look until nothing is added.
    loop {
        let known = family.len();
        let children = media
            .iter()
            .filter(|medium| medium.parent.is_some_and(|parent| family.contains(&parent)));
        let new: Vec<MediumId> = children
            .map(|medium| medium.id)
            .filter(|id| !family.contains(id))
            .collect();
        family.extend(new);
        if family.len() == known {
            break;
        }
    }
    let users = media
        .iter()
        .filter(|medium| family.contains(&medium.id))
        .flat_map(|medium| medium.used_by.clone());
    users.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Refuses to overwrite what belongs to somebody else.
pub(super) fn refuse_if_in_the_way(
    present: &Present,
    machine: &str,
    target: &Path,
    medium: Option<MediumId>,
) -> Result<()> {
    let is_settings = || MachineSettings::read(target).is_ok_and(|found| found.id == present.id);
    if !target.exists() || present.owns(target) || is_image(target, medium) || is_settings() {
        return Ok(());
    }
    Err(Error::InTheWay {
        path: target.to_owned(),
        name: machine.to_owned(),
    })
}

/// Whether a file is the very image that belongs there, left by an earlier registration.
fn is_image(path: &Path, medium: Option<MediumId>) -> bool {
    let header = vrs_vdisk::VdiHeader::read(path).ok();
    medium.is_some_and(|medium| header.is_some_and(|header| header.uuids.creation == medium.uuid()))
}
