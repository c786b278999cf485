//! Settings files of machines (`.vbox`), read.
//!
//! Guarantees: what is returned stands in the file; bad input gives an error with the line, never a
//! panic or an endless run. Not guaranteed: that VirtualBox has nothing newer in memory; while a
//! machine runs or is being changed, ask the driver.
//!
//! Source of the format: files that VirtualBox 7.2.22 wrote (`tests/samples`), and the schema
//! `VirtualBox-settings.xsd` of its source.

mod document;
mod edit;
mod forget;
mod hard_disk;
mod hardware;
mod location;
mod registry_text;
mod roll_back;
mod splice;
mod tree;
mod virtualbox_snapshot;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use roxmltree::Node;

use self::document::{child, children, flag, required};
pub use self::edit::SettingsEdit;
use self::hard_disk::MediaRegistry;
pub use self::hard_disk::{HardDisk, RemovableImage};
pub use self::hardware::{Attachment, DeviceKind, Hardware, NetworkAdapter, SharedFolder};
pub use self::virtualbox_snapshot::VirtualBoxSnapshot;
use crate::error::{Error, Result};
use crate::id::{MachineId, VirtualBoxSnapshotId};
use crate::state::MachineState;

/// The settings of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSettings {
    /// Id of the machine.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// Version of the format and the system it was written on, such as `1.19-linux`.
    pub settings_version: String,
    /// VirtualBox's name of the guest system, such as `Debian_64`.
    pub os_type: String,
    /// Its description.
    pub description: Option<String>,
    /// Groups that it is in, such as `/servers`; none means the top.
    pub groups: Vec<String>,
    /// Folder of differencing images and saved states.
    pub snapshot_folder: String,
    /// Where its saved state is.
    pub state_file: Option<String>,
    /// Whether its process ended without powering it off.
    pub is_aborted: bool,
    /// When it last changed its state, as VirtualBox writes it.
    pub last_state_change: Option<String>,
    /// The VirtualBox snapshot that its current state is based on.
    pub current_virtualbox_snapshot: Option<VirtualBoxSnapshotId>,
    /// The first VirtualBox snapshot, with all others below.
    pub first_virtualbox_snapshot: Option<VirtualBoxSnapshot>,
    /// Base images in its media registry, with their differencing images. A linked clone's may be
    /// in the registry of the machine that it was cloned from.
    pub hard_disks: Vec<HardDisk>,
    /// DVD images in its media registry.
    pub dvd_images: Vec<RemovableImage>,
    /// Floppy images in its media registry.
    pub floppy_images: Vec<RemovableImage>,
    /// Its devices now.
    pub hardware: Hardware,
    /// Its extra data: options of VirtualBox that have no other place. VirtualBox writes the file
    /// whenever an item changes.
    pub extra_data: BTreeMap<String, String>,
    /// Name of the settings file without its extension, which names the nvram by default.
    file_stem: String,
}

impl MachineSettings {
    /// Reads a settings file.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(&read_text(file)?, file)
    }

    /// Reads the text of the settings file `file`, which itself is not opened.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        Self::parse_text(text, file).map_err(|error| error.in_file(file))
    }

    fn parse_text(text: &str, file: &Path) -> Result<Self> {
        let document = document::parse(text)?;
        let machine = document::machine(&document)?;
        let registry = MediaRegistry::parse(machine)?;
        let attribute = |name| {
            machine
                .attribute(name)
                .filter(|value| !value.is_empty())
                .map(ToOwned::to_owned)
        };
        Ok(Self {
            id: required(machine, "uuid", "UUID")?,
            name: required(machine, "name", "name")?,
            settings_version: document
                .root_element()
                .attribute("version")
                .unwrap_or_default()
                .to_owned(),
            os_type: attribute("OSType").unwrap_or_default(),
            description: virtualbox_snapshot::description(machine),
            groups: groups(machine),
            snapshot_folder: attribute("snapshotFolder").unwrap_or_else(|| "Snapshots".to_owned()),
            state_file: attribute("stateFile"),
            is_aborted: flag(machine, "aborted"),
            last_state_change: attribute("lastStateChange"),
            current_virtualbox_snapshot: attribute("currentSnapshot")
                .map(|_| required(machine, "currentSnapshot", "UUID"))
                .transpose()?,
            first_virtualbox_snapshot: child(machine, "Snapshot")
                .map(VirtualBoxSnapshot::parse)
                .transpose()?,
            hard_disks: registry.hard_disks,
            dvd_images: registry.dvd_images,
            floppy_images: registry.floppy_images,
            hardware: Hardware::parse(machine)?,
            extra_data: extra_data(machine),
            file_stem: file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        })
    }

    /// The state in which VirtualBox registers a machine with these settings.
    #[must_use]
    pub fn resting_state(&self) -> MachineState {
        match (self.state_file.is_some(), self.is_aborted) {
            (true, true) => MachineState::AbortedSaved,
            (true, false) => MachineState::Saved,
            (false, true) => MachineState::Aborted,
            (false, false) => MachineState::PoweredOff,
        }
    }

    /// All VirtualBox snapshots, parents first.
    pub fn virtualbox_snapshots(&self) -> impl Iterator<Item = &VirtualBoxSnapshot> {
        self.first_virtualbox_snapshot
            .iter()
            .flat_map(VirtualBoxSnapshot::walk)
    }

    /// All hard disks in the media registry, parents first.
    pub fn all_hard_disks(&self) -> impl Iterator<Item = &HardDisk> {
        self.hard_disks.iter().flat_map(HardDisk::walk)
    }

    /// What is attached now or at any VirtualBox snapshot.
    pub fn all_attachments(&self) -> impl Iterator<Item = &Attachment> {
        let of_snapshots = self
            .virtualbox_snapshots()
            .flat_map(|snapshot| &snapshot.hardware.attachments);
        self.hardware.attachments.iter().chain(of_snapshots)
    }

    /// Whether a hard disk is attached nowhere, now or at any VirtualBox snapshot, and no other one is
    /// based on it.
    pub fn is_unused(&self, disk: &HardDisk) -> bool {
        let mut attached = self.all_attachments();
        disk.children.is_empty() && !attached.any(|attachment| attachment.medium == Some(disk.id))
    }

    /// Locations of all saved states, as written.
    pub fn state_files(&self) -> impl Iterator<Item = &str> {
        let of_snapshots = self
            .virtualbox_snapshots()
            .filter_map(|snapshot| snapshot.state_file.as_deref());
        self.state_file.as_deref().into_iter().chain(of_snapshots)
    }

    /// Locations of all nvram files that the settings name, as written.
    pub fn nvram_files(&self) -> impl Iterator<Item = &str> {
        let of_snapshots = self
            .virtualbox_snapshots()
            .filter_map(|snapshot| snapshot.hardware.nvram.as_deref());
        self.hardware
            .nvram
            .as_deref()
            .into_iter()
            .chain(of_snapshots)
    }

    /// Location of the machine's nvram: as written, or VirtualBox's default, which is named after the
    /// settings file. Machines without EFI and TPM have no such file.
    #[must_use]
    pub fn nvram_location(&self) -> String {
        self.hardware
            .nvram
            .clone()
            .unwrap_or_else(|| format!("{}.nvram", self.file_stem))
    }

    /// The place that a location in these settings names. `folder` is the machine folder.
    #[must_use]
    pub fn resolve(&self, folder: &Path, location: &str) -> PathBuf {
        location::resolve(
            folder,
            location,
            self.settings_version.ends_with("-windows"),
        )
    }
}

fn groups(machine: Node<'_, '_>) -> Vec<String> {
    let groups = child(machine, "Groups")
        .into_iter()
        .flat_map(|list| children(list, "Group"));
    groups
        .filter_map(|group| group.attribute("name"))
        .map(ToOwned::to_owned)
        .collect()
}

fn extra_data(machine: Node<'_, '_>) -> BTreeMap<String, String> {
    let items = child(machine, "ExtraData")
        .into_iter()
        .flat_map(|list| children(list, "ExtraDataItem"));
    items
        .filter_map(|item| {
            let (name, value) = (item.attribute("name")?, item.attribute("value")?);
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A settings file's text, never more of it than is accepted.
fn read_text(file: &Path) -> Result<String> {
    let failed = |source| Error::Io {
        operation: "read",
        path: file.to_owned(),
        source,
    };
    let limit = u64::try_from(document::MAX_TEXT_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut text = String::new();
    std::fs::File::open(file)
        .map_err(failed)?
        .take(limit)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}
