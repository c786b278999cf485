//! Taking snapshots of running machines, of one or of several at one instant.
//!
//! The order is what keeps machines safe and the time under a transient VirtualBox snapshot short:
//! freeze, read, let go, and only then make the snapshot visible. Whatever fails in between, the
//! machine is let go before the failure is told.

use jiff::Timestamp;
use vrs_progress::Progress;
use vrs_repository::store::{Ingest, SnapshotStore};

use super::plan::TakePlan;
use super::subject::Subject;
use super::{Taken, tracked};
use crate::capture::{Capture, CaptureMode, Frozen, LowWater, TrackerFate};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::machine::Machine;
use crate::manifest::{CaptureRecord, FileRecord};
use crate::tracking::{ChangeLists, Tracker, TrackerPlan};

/// A running machine on its way into the repository.
struct Member<'a> {
    plan: &'a TakePlan,
    mode: CaptureMode,
    /// The machine right before it was captured.
    before: Inventory,
    /// What happens to VirtualBox snapshots that stay between takes.
    tracker: TrackerPlan,
    capture: Capture<'a>,
}

/// Takes running machines at one instant. Each answer is that of the plan at its place.
pub(super) fn execute(
    host: &Host,
    store: &dyn SnapshotStore,
    plans: &[(&TakePlan, CaptureMode)],
    set: Option<&str>,
    progress: &dyn Progress,
) -> Result<Vec<Result<Taken>>> {
    let begun = Timestamp::now();
    let mut members = Vec::with_capacity(plans.len());
    let frozen = begin(host, store, plans, &mut members, progress)
        .and_then(|()| freeze_together(host, &mut members));
    match frozen {
        Ok(frozen) => {
            let taking = Taking {
                host,
                store,
                set,
                begun,
                progress,
            };
            let members = members.into_iter().zip(frozen);
            Ok(members
                .map(|(member, frozen)| taking.take(member, frozen))
                .collect())
        }
        Err(error) => {
            for member in members {
                let_go(host, member.capture, progress);
            }
            Err(error)
        }
    }
}

fn begin<'a>(
    host: &'a Host,
    store: &dyn SnapshotStore,
    plans: &[(&'a TakePlan, CaptureMode)],
    members: &mut Vec<Member<'a>>,
    progress: &'a dyn Progress,
) -> Result<()> {
    for (plan, mode) in plans {
        let machine = &plan.machine;
        machine.verify_unchanged(host)?;
        let before = Inventory::of(host, machine, Missing::Refuse)?;
        let tracker = TrackerPlan::make(host, store, machine, &before, Some(*mode), &plan.options);
        tracker.refuse_without_room(machine, &before)?;
        let capture = Capture::begin(host, machine, &before, *mode, tracker.intent(), progress)?;
        members.push(Member {
            plan,
            mode: *mode,
            before,
            tracker,
            capture,
        });
    }
    // One whose images tell nothing is gone before the machine holds still.
    let useless = |member: &&mut Member<'_>| {
        !member.tracker.former.is_empty() && member.tracker.counts.is_none()
    };
    for member in members.iter_mut().filter(useless) {
        member.capture.delete_former_trackers()?;
        member.before = Inventory::of(host, &member.plan.machine, Missing::Refuse)?;
        member.tracker.former.clear();
    }
    Ok(())
}

/// All members stand still at one moment: several of them are paused before the first is frozen.
fn freeze_together(host: &Host, members: &mut [Member<'_>]) -> Result<Vec<Frozen>> {
    let is_group = members.len() > 1;
    for member in &mut *members {
        member.capture.prepare()?;
    }
    for member in &mut *members {
        if is_group || member.mode == CaptureMode::DisksOnly {
            member.capture.hold()?;
        }
    }
    let mut frozen = Vec::with_capacity(members.len());
    for member in &mut *members {
        frozen.push(freeze(host, member)?);
    }
    for member in &mut *members {
        member.capture.release()?;
    }
    for member in &mut *members {
        member.capture.put_key_back()?;
    }
    Ok(frozen)
}

fn freeze(host: &Host, member: &mut Member<'_>) -> Result<Frozen> {
    if member.mode == CaptureMode::SaveState {
        return member.capture.save();
    }
    let Member {
        plan,
        before,
        tracker,
        ..
    } = &*member;
    let to_store = tracker.without_former(host, &plan.machine, before)?;
    member
        .capture
        .freeze(&member.before, &to_store.settings_text)
}

/// Undoes a capture whose failure is told already.
pub(super) fn let_go(host: &Host, mut capture: Capture<'_>, progress: &dyn Progress) {
    capture.set_tracker_fate(TrackerFate::Forgotten);
    let thawed = capture.thaw(host).and_then(|()| capture.finish());
    if let Err(error) = thawed {
        progress.warn(&format!("{error}; `vrs recover` tries it again"));
    }
}

/// A machine whose files were read.
struct ReadMachine<'a> {
    subject: Subject<'a>,
    files: Vec<FileRecord>,
    ingest: Box<dyn Ingest + 'a>,
    tracker: Option<Tracker<'a>>,
}

/// What all members have in common.
struct Taking<'a> {
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    set: Option<&'a str>,
    begun: Timestamp,
    progress: &'a dyn Progress,
}

impl Taking<'_> {
    fn take(&self, member: Member<'_>, frozen: Frozen) -> Result<Taken> {
        let low_water = LowWater::new(self.progress, frozen.growing.clone());
        let Member {
            plan,
            mode,
            tracker,
            mut capture,
            ..
        } = member;
        let lists = match &tracker.counts {
            Some(disks) => capture.merge_tracker(disks).map(Some),
            None => Ok(None),
        };
        let read = lists.and_then(|merged| {
            let lists = tracker.lists(merged);
            self.read(plan, mode, frozen, lists, &low_water)
        });
        let ReadMachine {
            mut subject,
            files,
            mut ingest,
            mut tracker,
        } = match read {
            Ok(read) => read,
            Err(error) => {
                let_go(self.host, capture, self.progress);
                return Err(if low_water.is_low() {
                    Error::RoomRanOut {
                        name: plan.machine.name.clone(),
                    }
                } else {
                    error
                });
            }
        };
        // Before the other one goes, or what the guest writes in between would not be listed.
        let left = tracked::leave_tracker(&mut capture, tracker.as_mut());
        let thawed = capture.thaw(self.host);
        subject.set_paused(capture.paused());
        let thawed = thawed.and_then(|()| self.tell_what_ended(plan));
        let mut held = Some(capture);
        let thawed = match (thawed, &left) {
            (Ok(()), None) => held.take().map_or(Ok(()), Capture::finish),
            // The journal has the new one until the record does.
            (thawed, _) => thawed,
        };
        let left = left.filter(|_| thawed.is_ok());
        let committed = subject
            .store_manifest(self.host, files, self.begun, self.set, ingest.as_mut())
            .and_then(|manifest| {
                let label = subject.label(self.host, self.begun, self.set);
                Ok((manifest, ingest.commit(&label)?))
            });
        let (manifest, (id, stats)) = match committed {
            Ok(committed) => committed,
            Err(error) => {
                if let Some(capture) = held {
                    let_go(self.host, capture, self.progress);
                }
                return Err(error);
            }
        };
        let tracking = tracker.map(|tracker| tracker.finish(id, &manifest.files, left.as_ref()));
        let taken = Taken {
            id,
            manifest,
            stats,
            tracking,
        };
        let ended = thawed.and_then(|()| {
            held.map_or(Ok(()), |capture| {
                tracked::conclude(self.host, capture, &taken)
            })
        });
        match ended {
            Ok(()) => Ok(taken),
            Err(source) => Err(Error::ThawOwed {
                name: plan.machine.name.clone(),
                snapshot: id.short(),
                source: Box::new(source),
            }),
        }
    }

    /// Stores the machine's files.
    fn read<'b>(
        &'b self,
        plan: &'b TakePlan,
        mode: CaptureMode,
        frozen: Frozen,
        lists: ChangeLists,
        low_water: &'b LowWater<'b>,
    ) -> Result<ReadMachine<'b>> {
        let mut subject = self.subject(plan, mode, frozen)?;
        let tracker = subject.track(self.host, self.store, lists, low_water);
        let mut ingest = self.store.ingest(low_water)?;
        let files = subject.store_files(ingest.as_mut(), low_water)?;
        subject.verify(self.host, &files)?;
        Ok(ReadMachine {
            subject,
            files,
            ingest,
            tracker,
        })
    }

    fn subject<'b>(
        &self,
        plan: &'b TakePlan,
        mode: CaptureMode,
        frozen: Frozen,
    ) -> Result<Subject<'b>> {
        self.tell_what_was_lost(plan, mode, &frozen)?;
        let record = CaptureRecord {
            mode,
            was: plan.machine.state.to_string(),
            memory: mode.has_memory() && frozen.memory_lost.is_none(),
            paused_ms: None,
        };
        let is_at_rest = frozen.settings_on_disk.is_some();
        let machine = if is_at_rest {
            plan.machine.again(self.host)?
        } else {
            plan.machine.clone()
        };
        let inventory =
            Inventory::with_settings(self.host, &machine, frozen.settings, Missing::Refuse)?;
        let on_disk = frozen.settings_on_disk;
        Subject::captured(self.host, plan, machine, &inventory, on_disk, record)
    }

    /// A machine that ran before runs on, unless somebody else ended it.
    fn tell_what_ended(&self, plan: &TakePlan) -> Result<()> {
        let machine = Machine::registered(self.host, plan.machine.id)?;
        if let Some(machine) = machine.filter(|machine| !machine.state.is_online()) {
            let (name, state) = (&machine.name, &machine.state);
            self.progress.warn(&format!(
                "machine '{name}' is {state}: it ended while it was captured, and vrs did not end it"
            ));
        }
        Ok(())
    }

    fn tell_what_was_lost(
        &self,
        plan: &TakePlan,
        mode: CaptureMode,
        frozen: &Frozen,
    ) -> Result<()> {
        let Some(reason) = &frozen.memory_lost else {
            return Ok(());
        };
        let name = plan.machine.name.clone();
        if !mode.has_memory() {
            self.progress.warn(&format!("machine '{name}': {reason}"));
        } else if plan.options.strict {
            let reason = reason.clone();
            return Err(Error::MemoryLost { name, reason });
        } else {
            self.progress.warn(&format!(
                "the snapshot of machine '{name}' holds no memory: {reason}; restored, it boots from its disks"
            ));
        }
        Ok(())
    }
}
