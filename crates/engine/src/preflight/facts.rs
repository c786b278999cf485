//! What the checks look at, gathered before any of them judges.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineSettings, Medium, MediumId, Version};

use super::PreflightRequest;
use super::disk::{AttachedDisk, attached_disks, skipped};
use crate::capture::CaptureMode;
use crate::error::Result;
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::{platform, tracking};

/// A machine and what is around it.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub(super) machine: &'a Machine,
    pub(super) inventory: &'a Inventory,
    pub(super) mode: CaptureMode,
    /// The program that has the machine open.
    pub(super) session: Option<String>,
    /// VirtualBox's version, where it is there.
    pub(super) version: Option<Version>,
    /// All images that VirtualBox knows.
    pub(super) media: Vec<Medium>,
    /// The attached hard disks.
    pub(super) disks: Vec<AttachedDisk>,
    /// Those of them that are to be left out, by the image that is attached.
    pub(super) skipped: BTreeSet<MediumId>,
    /// Where saved states and differencing images are written.
    pub(super) snapshot_folder: PathBuf,
    /// Those with the snapshot folder and the attached images, where something will be written.
    pub(super) volumes: Vec<Volume>,
}

/// A volume of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// What is on it.
    pub(super) places: Vec<PathBuf>,
    pub(super) free_bytes: u64,
}

impl Volume {
    pub(super) fn holds(&self, place: &Path) -> bool {
        self.places.iter().any(|held| held == place)
    }
}

impl<'a> Facts<'a> {
    pub(super) fn gather(
        host: &Host,
        machine: &'a Machine,
        inventory: &'a Inventory,
        request: &PreflightRequest,
    ) -> Result<Self> {
        let virtualbox = host.virtualbox();
        let mut media = Vec::new();
        let mut session = None;
        if let Some(virtualbox) = virtualbox {
            media = virtualbox.media()?;
            if machine.registered {
                session = virtualbox.machine(machine.id)?.session;
            }
        }
        let disks = attached_disks(inventory, &media);
        let skipped = skipped(&disks, &request.skip_disks)?;
        let settings = &inventory.settings;
        let snapshot_folder = settings.resolve(machine.folder(), &settings.snapshot_folder);
        let mut facts = Self {
            machine,
            inventory,
            mode: request.mode,
            session,
            version: virtualbox.map(|driver| driver.version().clone()),
            media,
            disks,
            skipped,
            snapshot_folder,
            volumes: Vec::new(),
        };
        if facts.machine.state.is_online() {
            facts.volumes = volumes(facts.places())?;
        }
        Ok(facts)
    }

    fn places(&self) -> impl Iterator<Item = &Path> {
        let images = self
            .disks
            .iter()
            .filter_map(|disk| disk.location.as_deref());
        let bases = self.disks.iter().map(|disk| disk.base_location.as_path());
        let bases = bases.filter(|base| self.has_tracker() && base.is_absolute());
        std::iter::once(self.snapshot_folder.as_path())
            .chain(images)
            .chain(bases)
    }

    /// Whether there is a VirtualBox snapshot that a take left, and that this one merges.
    pub(super) fn has_tracker(&self) -> bool {
        let mut made = self.settings().virtualbox_snapshots();
        made.any(tracking::is_tracker)
    }

    pub(super) const fn settings(&self) -> &MachineSettings {
        &self.inventory.settings
    }

    /// Whether disks are frozen by a VirtualBox snapshot, to be merged afterwards.
    pub(super) fn makes_differencing_images(&self) -> bool {
        self.machine.state.is_online() && self.mode != CaptureMode::SaveState
    }

    /// Whether the guest's memory is written to disk.
    pub(super) fn saves_memory(&self) -> bool {
        self.machine.state.is_online() && self.mode != CaptureMode::DisksOnly
    }

    /// Whether the snapshot will hold memory, saved now or before.
    pub(super) fn stores_memory(&self) -> bool {
        self.saves_memory() || self.settings().state_file.is_some()
    }

    pub(super) fn medium(&self, id: MediumId) -> Option<&Medium> {
        self.media.iter().find(|medium| medium.id == id)
    }

    pub(super) fn is_skipped(&self, disk: &AttachedDisk) -> bool {
        self.skipped.contains(&disk.attached)
    }
}

/// The volumes of some places, each once.
fn volumes<'a>(places: impl Iterator<Item = &'a Path>) -> Result<Vec<Volume>> {
    let mut volumes: Vec<Volume> = Vec::new();
    for place in places {
        let id = platform::volume_of(existing(place));
        let is_same = |volume: &Volume| {
            let known = volume.places.first();
            known.is_some_and(|known| id.is_some() && platform::volume_of(existing(known)) == id)
        };
        match volumes.iter_mut().find(|volume| is_same(volume)) {
            Some(volume) => volume.places.push(place.to_owned()),
            None => volumes.push(Volume {
                places: vec![place.to_owned()],
                free_bytes: platform::free_bytes(existing(place))?,
            }),
        }
    }
    Ok(volumes)
}

/// The place itself, or the folder in which it will come into being.
fn existing(place: &Path) -> &Path {
    let mut ancestors = place.ancestors();
    ancestors
        .find(|ancestor| ancestor.exists())
        .unwrap_or(place)
}
