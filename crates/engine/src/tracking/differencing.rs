//! The tracker: a VirtualBox snapshot of vrs's own that stays between takes, so that the block maps of the
//! differencing images on top of it list what the guest changes.
//!
//! Guarantees: a VirtualBox snapshot is taken for a tracker only if its name and description are those that vrs
//! gives, and, where a record knows one, if it is that one. It counts only if all is as vrs left it: the
//! images, their stamps, no other VirtualBox snapshot. Nothing is changed here, only looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_repository::id::RepositoryId;
use vrs_repository::store::{FileStamp, SnapshotStore};
use vrs_vdisk::VdiHead;
use vrs_virtualbox::{
    Attachment, DeviceKind, MachineSettings, MediumId, SettingsEdit, VirtualBoxSnapshot,
    VirtualBoxSnapshotId,
};

use super::record::{self, Found, KnownImages, Method, TrackingRecord};
use super::suitability::{reason_against, wants_lists};
use crate::capture::{CaptureMode, TrackerIntent};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::machine::Machine;
use crate::manifest::{MediumRecord, Stamp};
use crate::platform;
use crate::take::TakeOptions;

/// How the name of every tracker begins.
const PREFIX: &str = "vrs tracker ";

/// The description of every tracker.
pub(crate) const DESCRIPTION: &str =
    "left by vrs to know what changes until the next take; a take with tracking off deletes it";

/// A name that no tracker has.
fn new_name() -> String {
    format!("{PREFIX}{}", Uuid::new_v4())
}

/// A VirtualBox snapshot that stays between takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerSnapshot {
    /// Its id.
    pub id: VirtualBoxSnapshotId,
    /// Its name, which no other one ever has.
    pub name: String,
}

/// What a take does about trackers of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrackerPlan {
    /// Those that are there; they are deleted.
    pub(crate) former: Vec<TrackerSnapshot>,
    /// The disks, if the former one's images tell what changed in them.
    pub(crate) counts: Option<Vec<ListedDisk>>,
    /// Whether a new one stays.
    pub(crate) leaves: bool,
    /// Why not all is as it could be.
    pub(crate) notes: Vec<String>,
}

/// A disk whose changes are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedDisk {
    /// Its base image.
    pub(crate) base: PathBuf,
    /// The differencing image that the guest writes to.
    pub(crate) active: PathBuf,
}

/// What is known from change lists about base images, for one take.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangeLists {
    /// The head of what was merged into each base image just now, if the lists count.
    pub(crate) merged: Option<BTreeMap<PathBuf, VdiHead>>,
    /// Whether there will be lists for the next take.
    pub(crate) leaves: bool,
    pub(crate) notes: Vec<String>,
}

impl TrackerPlan {
    /// Looks at a machine that is about to be taken, as it is now. `mode` tells how it is captured.
    pub(crate) fn make(
        host: &Host,
        store: &dyn SnapshotStore,
        machine: &Machine,
        inventory: &Inventory,
        mode: Option<CaptureMode>,
        options: &TakeOptions,
    ) -> Self {
        let settings = &inventory.settings;
        let mut plan = Self::default();
        if !machine.registered || host.virtualbox().is_none() {
            return plan;
        }
        let named: Vec<_> = settings
            .virtualbox_snapshots()
            .filter(|made| is_tracker(made))
            .collect();
        for made in &named {
            match dependents(settings, made) {
                0 | 1 => plan.former.push(snapshot_of(made)),
                several => plan.notes.push(format!(
                    "the VirtualBox snapshot '{}', which vrs left, stays: {several} states are based on it",
                    made.name
                )),
            }
        }
        if !options.track || store.chunk_lists().is_none() {
            plan.tell_deletion();
            return plan;
        }
        let record = match record::read(host, machine.id) {
            Ok(Found::Record(record)) => record,
            _ => TrackingRecord::new(machine.id),
        };
        let known = record.known_for(store.id());
        let has_known = known.is_some_and(|known| known.tracker.is_some());
        if !plan.former.is_empty() || has_known {
            let lists = known_tracker(&record, store.id(), settings, &plan.former)
                .and_then(|(known, tracker)| lists_that_count(inventory, known, tracker));
            match lists {
                Ok(_) if mode == Some(CaptureMode::SaveState) => {}
                Ok(disks) => plan.counts = Some(disks),
                Err(why) => plan.notes.push(format!("all is read: {why}")),
            }
        }
        if wants_lists(inventory) {
            match reason_against(host, machine, inventory, &plan.former, mode) {
                None => plan.leaves = true,
                Some(why) => plan.notes.push(format!(
                    "no VirtualBox snapshot is left for tracking: {why}"
                )),
            }
        }
        plan
    }

    fn tell_deletion(&mut self) {
        let deleted = self.former.iter().map(|former| {
            let name = &former.name;
            format!("the VirtualBox snapshot '{name}', which an earlier take left for tracking, is deleted")
        });
        self.notes.extend(deleted);
    }

    /// Whether anything is done to the machine.
    pub(crate) const fn is_at_work(&self) -> bool {
        !self.former.is_empty() || self.leaves
    }

    /// Refuses where VirtualBox would refuse to merge.
    pub(crate) fn refuse_without_room(
        &self,
        machine: &Machine,
        inventory: &Inventory,
    ) -> Result<()> {
        if self.former.is_empty() {
            return Ok(());
        }
        let merges = merges(inventory);
        for (base, bytes) in platform::needed_on_volumes(&merges) {
            if platform::free_bytes(base)? < bytes {
                return Err(Error::NoRoomToMerge {
                    name: machine.name.clone(),
                    base: base.to_owned(),
                    needed_mib: bytes.div_ceil(1 << 20),
                });
            }
        }
        Ok(())
    }

    /// What the journal says of it.
    pub(crate) fn intent(&self) -> Option<TrackerIntent> {
        self.is_at_work().then(|| TrackerIntent {
            former: self.former.clone(),
            next_name: self.leaves.then(new_name),
        })
    }

    /// The machine without the tracker, as it is once that was deleted.
    pub(crate) fn without_former(
        &self,
        host: &Host,
        machine: &Machine,
        inventory: &Inventory,
    ) -> Result<Inventory> {
        let [former] = self.former.as_slice() else {
            return Ok(inventory.clone());
        };
        let mut edit = SettingsEdit::new(&inventory.settings_text)?;
        match edit.forget_only(former.id) {
            Ok(()) => Inventory::with_settings(host, machine, edit.finish(), Missing::Refuse),
            // Others were made from it: it is deleted all the same, and what there is then is looked at.
            Err(_) => Ok(inventory.clone()),
        }
    }

    /// What the lists say now, of images that may still be written to.
    pub(crate) fn foreseen(&self) -> ChangeLists {
        let heads = |disks: &Vec<ListedDisk>| {
            let heads = disks
                .iter()
                .map(|disk| Ok((disk.base.clone(), VdiHead::of_image(&disk.active)?)));
            heads.collect::<Result<BTreeMap<_, _>>>().ok()
        };
        self.lists(self.counts.as_ref().and_then(heads))
    }

    /// With the heads of what was merged.
    pub(crate) fn lists(&self, merged: Option<BTreeMap<PathBuf, VdiHead>>) -> ChangeLists {
        ChangeLists {
            merged,
            leaves: self.leaves,
            notes: self.notes.clone(),
        }
    }
}

fn snapshot_of(made: &VirtualBoxSnapshot) -> TrackerSnapshot {
    TrackerSnapshot {
        id: made.id,
        name: made.name.clone(),
    }
}

/// By the name and the description that only vrs gives. One that was renamed is its owner's.
pub(crate) fn is_tracker(made: &VirtualBoxSnapshot) -> bool {
    let number = made.name.strip_prefix(PREFIX);
    number.is_some_and(|number| Uuid::try_parse(number).is_ok())
        && made.description.as_deref() == Some(DESCRIPTION)
}

/// How many states are based on a VirtualBox snapshot, the current one included. VirtualBox deletes it only
/// if it is no more than one.
fn dependents(settings: &MachineSettings, made: &VirtualBoxSnapshot) -> usize {
    let is_current = settings.current_virtualbox_snapshot == Some(made.id);
    made.children.len().saturating_add(usize::from(is_current))
}

pub(super) fn hard_disks(settings: &MachineSettings) -> impl Iterator<Item = &Attachment> {
    let attached = settings.hardware.attachments.iter();
    attached.filter(|attachment| attachment.kind == DeviceKind::HardDisk)
}

pub(super) fn medium(inventory: &Inventory, id: MediumId) -> Option<&MediumRecord> {
    inventory.media.iter().find(|medium| medium.id == id)
}

/// What is known since the one tracker that there is was left; or why it tells nothing.
fn known_tracker<'a>(
    record: &'a TrackingRecord,
    repository: RepositoryId,
    settings: &MachineSettings,
    former: &[TrackerSnapshot],
) -> std::result::Result<(&'a KnownImages, &'a TrackerSnapshot), String> {
    let is_left_for = |known: &&KnownImages| {
        let mut former = former.iter();
        former.any(|former| known.tracker.as_ref() == Some(former))
    };
    let left_for = record.known.iter().find(is_left_for);
    let known = record.known_for(repository);
    match known.and_then(|known| Some((known, known.tracker.as_ref()?))) {
        Some((known, tracker)) if former == [tracker.clone()] => Ok((known, tracker)),
        _ if left_for.is_some_and(|known| known.repository != repository) => Err("the VirtualBox snapshot that was left tells what changed since a snapshot in another repository: there can be one for one repository only".to_owned()),
        Some((_, tracker)) if stays(settings, former, tracker) => {
            Err("several states are based on the VirtualBox snapshot that was left".to_owned())
        }
        Some(_) => Err("the VirtualBox snapshot that was left is gone or is another".to_owned()),
        None => Err("nothing is known about the VirtualBox snapshot that was left".to_owned()),
    }
}

/// Whether a tracker is there, and cannot be deleted.
fn stays(
    settings: &MachineSettings,
    former: &[TrackerSnapshot],
    tracker: &TrackerSnapshot,
) -> bool {
    let mut made = settings.virtualbox_snapshots();
    !former.contains(tracker) && made.any(|made| is_tracker(made) && snapshot_of(made) == *tracker)
}

/// The disks, if all is as the record says; or what is not.
fn lists_that_count(
    inventory: &Inventory,
    known: &KnownImages,
    tracker: &TrackerSnapshot,
) -> std::result::Result<Vec<ListedDisk>, String> {
    let settings = &inventory.settings;
    let is_current = settings.current_virtualbox_snapshot == Some(tracker.id);
    if !is_current || settings.virtualbox_snapshots().count() != 1 {
        return Err("there are other VirtualBox snapshots than the one that was left".to_owned());
    }
    let attached = hard_disks(settings).map(|attachment| {
        let id = attachment.medium.ok_or("a disk has no image")?;
        listed_disk(inventory, known, id)
    });
    let disks = attached.collect::<std::result::Result<Vec<_>, String>>()?;
    match disks.len() == known.images.len() {
        true => Ok(disks),
        false => Err("the machine has other disks".to_owned()),
    }
}

fn listed_disk(
    inventory: &Inventory,
    known: &KnownImages,
    id: MediumId,
) -> std::result::Result<ListedDisk, String> {
    let other = || "the machine has other disks".to_owned();
    let active = medium(inventory, id).ok_or_else(other)?;
    let base = active.parent.and_then(|parent| medium(inventory, parent));
    let base = base
        .filter(|base| base.parent.is_none())
        .ok_or_else(other)?;
    let image = known.image(&base.location).ok_or_else(other)?;
    match &image.method {
        Method::ChangeList(list) if list.active == id => {}
        _ => return Err("the guest writes to another image than was left to it".to_owned()),
    }
    let now = FileStamp::of(&base.location).map(Stamp::from);
    if now.ok() != Some(image.stamp) {
        return Err(format!("'{}' was changed", base.location.display()));
    }
    Ok(ListedDisk {
        base: base.location.clone(),
        active: active.location.clone(),
    })
}

/// The base images, and how much is merged into each with the tracker.
fn merges(inventory: &Inventory) -> Vec<(PathBuf, u64)> {
    let attached = hard_disks(&inventory.settings)
        .filter_map(|attachment| medium(inventory, attachment.medium?));
    let merges = attached.filter_map(|active| {
        let base = medium(inventory, active.parent?)?;
        let bytes = std::fs::metadata(&active.location).map_or(0, |file| file.len());
        Some((base.location.clone(), bytes))
    });
    merges.collect()
}
