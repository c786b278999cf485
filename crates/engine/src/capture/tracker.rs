//! Deleting the VirtualBox snapshot that an earlier take left for tracking, and leaving another.
//!
//! Guarantees: both are in the journal first. Until the caller says that the new one stays, letting the
//! machine go deletes it as well as the former one, and drops what is known about them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vrs_vdisk::VdiHead;
use vrs_virtualbox::{
    HardDisk, ListedVirtualBoxSnapshot, MachineSettings, TakeVirtualBoxSnapshot,
    VirtualBoxSnapshotId,
};

use super::freeze::Capture;
use super::{STATELESS_KEY, TrackerIntent};
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::tracking::{DESCRIPTION, LeftDisk, LeftTracker, ListedDisk, TrackerSnapshot};

/// What letting the machine go does about VirtualBox snapshots for tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrackerFate {
    /// None stays; what is known is what the take wrote down.
    Deleted,
    /// All is as the take wanted it.
    Kept,
    /// None stays, and nothing is known: the take failed.
    Forgotten,
}

impl Capture<'_> {
    /// Deletes the trackers that earlier takes left, which merges their images into the base images.
    pub(crate) fn delete_former_trackers(&mut self) -> Result<()> {
        let Some(tracker) = self.intent.tracker.clone() else {
            return Ok(());
        };
        for former in tracker.former {
            self.delete_tracker(former.id, Step::DeleteTracker)?;
        }
        Ok(())
    }

    /// The same, and tells what was merged into each base image. The differencing images hold still: nobody
    /// may write to a machine at rest, and of one that runs they are frozen.
    pub(crate) fn merge_tracker(
        &mut self,
        disks: &[ListedDisk],
    ) -> Result<BTreeMap<PathBuf, VdiHead>> {
        let mut merged = BTreeMap::new();
        for disk in disks {
            merged.insert(disk.base.clone(), VdiHead::of_image(&disk.active)?);
        }
        self.delete_former_trackers()?;
        Ok(merged)
    }

    /// A machine's process may outlive VirtualBox's service, which then takes it for one at rest.
    pub(crate) fn refuse_if_written_to(&self) -> Result<()> {
        super::thaw::refuse_if_orphaned(&self.intent.settings_file)
    }

    fn delete_tracker(&mut self, id: VirtualBoxSnapshotId, step: Step) -> Result<()> {
        self.delete(id, step, "tracker-delete")
    }

    /// Takes the VirtualBox snapshot that stays until the next take. One of a running machine holds no RAM.
    pub(crate) fn leave_tracker(&mut self) -> Result<LeftTracker> {
        let name = self.intent.tracker.as_ref();
        let name = name.and_then(|tracker| tracker.next_name.clone());
        let name = name.ok_or_else(|| self.tracker_fault("none was planned"))?;
        let machine = self.intent.machine;
        if self.virtualbox.machine(machine)?.state.is_online() {
            self.announce(Step::SetKey)?;
            self.progress.step("stateless-key-set");
            self.virtualbox
                .set_extra_data(machine, STATELESS_KEY, Some("1"), self.progress)?;
            self.hold()?;
        }
        self.announce(Step::LeaveTracker)?;
        self.progress.step("tracker-take");
        let options = TakeVirtualBoxSnapshot {
            name: name.clone(),
            description: DESCRIPTION.to_owned(),
            live: false,
        };
        let stop = || self.progress.interrupted();
        let id =
            self.virtualbox
                .take_virtualbox_snapshot(machine, &options, &stop, self.progress)?;
        self.release()?;
        self.put_key_back()?;
        self.left(TrackerSnapshot { id, name })
    }

    /// What is there now must be what was asked for.
    fn left(&self, snapshot: TrackerSnapshot) -> Result<LeftTracker> {
        let settings_file = self.virtualbox.machine(self.intent.machine)?.settings_file;
        let settings = MachineSettings::read(&settings_file)?;
        let made = settings
            .virtualbox_snapshots()
            .find(|made| made.id == snapshot.id);
        let made = made.ok_or_else(|| self.tracker_fault("it is not in the settings"))?;
        if made.state_file.is_some() {
            return Err(self.tracker_fault("VirtualBox saved the RAM with it"));
        }
        let folder = settings_file.parent().unwrap_or(&settings_file);
        let disks = settings.hard_disks.iter().map(|base| {
            let chain = chain_on(base).ok_or_else(|| self.tracker_fault("an image has several"))?;
            let Some((active, below)) = chain.split_last() else {
                return Ok(None);
            };
            let image = |disk: &HardDisk| settings.resolve(folder, &disk.location);
            let merged = match below {
                [] => None,
                [merged] => Some(VdiHead::of_image(&image(merged))?),
                _ => return Err(self.tracker_fault("there are more images than there should be")),
            };
            Ok(Some(LeftDisk {
                base: image(base),
                active: active.id,
                merged,
            }))
        });
        Ok(LeftTracker {
            disks: disks.filter_map(Result::transpose).collect::<Result<_>>()?,
            snapshot,
        })
    }

    fn tracker_fault(&self, what: &str) -> Error {
        Error::NotAsExpected {
            name: self.intent.machine_name.clone(),
            after: "taking the VirtualBox snapshot for tracking",
            what: what.to_owned(),
        }
    }

    /// Decides what letting the machine go does about them.
    pub(crate) const fn set_tracker_fate(&mut self, fate: TrackerFate) {
        self.tracker_fate = fate;
    }

    /// Deletes what is left of the trackers of earlier takes.
    pub(super) fn undo_former_trackers(&mut self) -> Result<()> {
        self.undo_trackers(Step::DeleteTracker, |tracker, made| {
            let mut former = tracker.former.iter();
            former.any(|former| former.id == made.id && former.name == made.name)
        })
    }

    /// Deletes the new one.
    pub(super) fn undo_next_tracker(&mut self) -> Result<()> {
        self.undo_trackers(Step::Merge, |tracker, made| {
            tracker.next_name.as_ref() == Some(&made.name)
        })
    }

    fn undo_trackers(
        &mut self,
        step: Step,
        is_meant: impl Fn(&TrackerIntent, &ListedVirtualBoxSnapshot) -> bool,
    ) -> Result<()> {
        let tracker = self.intent.tracker.clone();
        let Some(tracker) = tracker.filter(|_| self.tracker_fate != TrackerFate::Kept) else {
            return Ok(());
        };
        let listed = self.virtualbox.virtualbox_snapshots(self.intent.machine)?;
        let is_ours = |made: &&ListedVirtualBoxSnapshot| is_meant(&tracker, made);
        for made in listed.iter().filter(is_ours) {
            let children = listed.iter().filter(|other| other.parent == Some(made.id));
            if children
                .count()
                .saturating_add(usize::from(made.is_current))
                > 1
            {
                self.progress.warn(&format!(
                    "the VirtualBox snapshot '{}' of machine '{}', which vrs left, stays: other VirtualBox snapshots were made from it",
                    made.name, self.intent.machine_name
                ));
                continue;
            }
            self.delete_tracker(made.id, step)?;
        }
        Ok(())
    }

    /// Whether nothing is known about trackers once the machine was let go.
    pub(super) fn forgets_trackers(&self) -> bool {
        self.intent.tracker.is_some() && self.tracker_fate == TrackerFate::Forgotten
    }
}

/// The differencing images on a base image, if each has one child at most.
fn chain_on(base: &HardDisk) -> Option<Vec<&HardDisk>> {
    let mut chain = Vec::new();
    let mut last = base;
    loop {
        match last.children.as_slice() {
            [] => return Some(chain),
            [child] => {
                chain.push(child);
                last = child;
            }
            _ => return None,
        }
    }
}
