//! Taking a machine at rest that has a VirtualBox snapshot of vrs's own, or gets one: it is let go like one that
//! was captured, whatever fails.

use jiff::Timestamp;
use vrs_progress::Progress;
use vrs_repository::store::SnapshotStore;

use super::Taken;
use super::online::let_go;
use super::plan::TakePlan;
use super::subject::Subject;
use crate::capture::{Capture, CaptureMode, TrackerFate};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::tracking::{LeftTracker, Tracker, TrackerPlan};

/// Takes the machine. Its lock is held.
pub(super) fn at_rest(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    set: Option<&str>,
    progress: &dyn Progress,
) -> Result<Taken> {
    let machine = &plan.machine;
    machine.verify_unchanged(host)?;
    let before = Inventory::of(host, machine, Missing::Refuse)?;
    let tracker = TrackerPlan::make(host, store, machine, &before, None, &plan.options);
    tracker.refuse_without_room(machine, &before)?;
    // How it would be captured does not matter: it is not.
    let mode = CaptureMode::Memory;
    let mut capture = Capture::begin(host, machine, &before, mode, tracker.intent(), progress)?;
    let taking = Taking {
        host,
        store,
        plan,
        set,
        progress,
    };
    match taking.take(&tracker, &mut capture) {
        Ok(taken) => {
            let concluded = conclude(host, capture, &taken);
            let owed = |source| Error::ThawOwed {
                name: machine.name.clone(),
                snapshot: taken.id.short(),
                source: Box::new(source),
            };
            concluded.map_err(owed)?;
            Ok(taken)
        }
        Err(error) => {
            let_go(host, capture, progress);
            Err(error)
        }
    }
}

/// What is left of a tracker that is no use goes.
pub(super) fn conclude(host: &Host, mut capture: Capture<'_>, taken: &Taken) -> Result<()> {
    let tracking = taken.tracking.as_ref();
    let keeps = tracking.is_some_and(|tracking| tracking.leaves_virtualbox_snapshot);
    if !keeps {
        capture.set_tracker_fate(TrackerFate::Deleted);
        capture.thaw(host)?;
    }
    capture.finish()
}

/// Leaves a tracker for the next take. One that cannot be left fails no take.
pub(super) fn leave_tracker(
    capture: &mut Capture<'_>,
    tracker: Option<&mut Tracker<'_>>,
) -> Option<LeftTracker> {
    let tracker = tracker.filter(|tracker| tracker.has_heads())?;
    match capture.leave_tracker() {
        Ok(left) => {
            capture.set_tracker_fate(TrackerFate::Kept);
            Some(left)
        }
        Err(error) => {
            tracker.tell_failure(&error);
            None
        }
    }
}

/// What all steps need.
struct Taking<'a> {
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    plan: &'a TakePlan,
    set: Option<&'a str>,
    progress: &'a dyn Progress,
}

impl Taking<'_> {
    fn take(&self, tracker: &TrackerPlan, capture: &mut Capture<'_>) -> Result<Taken> {
        let (host, progress) = (self.host, self.progress);
        capture.refuse_if_written_to()?;
        let lists = match &tracker.counts {
            Some(disks) => tracker.lists(Some(capture.merge_tracker(disks)?)),
            None => {
                capture.delete_former_trackers()?;
                tracker.lists(None)
            }
        };
        let begun = Timestamp::now();
        let machine = self.plan.machine.again(host)?;
        let inventory = Inventory::of(host, &machine, Missing::Refuse)?;
        let mut ingest = self.store.ingest(progress)?;
        let mut subject = Subject::at_rest_again(host, self.plan, machine, inventory)?;
        let mut tracker = subject.track(host, self.store, lists, progress);
        let files = subject.store_files(ingest.as_mut(), progress)?;
        subject.verify(host, &files)?;
        let left = leave_tracker(capture, tracker.as_mut());
        let manifest = subject.store_manifest(host, files, begun, self.set, ingest.as_mut())?;
        let (id, stats) = ingest.commit(&subject.label(host, begun, self.set))?;
        let tracking = tracker.map(|tracker| tracker.finish(id, &manifest.files, left.as_ref()));
        Ok(Taken {
            id,
            manifest,
            stats,
            tracking,
        })
    }
}
