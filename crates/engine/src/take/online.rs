//! Taking snapshots of running machines, of one or of several at one instant.
//!
//! The order is what keeps machines safe and the time under a transient VirtualBox snapshot short:
//! freeze, read, let go, and only then make the snapshot visible. Whatever fails in between, the
//! machine is let go before the failure is told.

use jiff::Timestamp;
use vrs_progress::Progress;
use vrs_repository::store::{Ingest, SnapshotStore};

use super::Taken;
use super::plan::TakePlan;
use super::subject::Subject;
use crate::capture::{Capture, CaptureMode, Frozen, LowWater};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::machine::Machine;
use crate::manifest::{CaptureRecord, FileRecord};
use crate::tracking::Tracker;

/// A running machine on its way into the repository.
struct Member<'a> {
    plan: &'a TakePlan,
    mode: CaptureMode,
    /// The machine right before it was captured.
    before: Inventory,
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
    let frozen =
        begin(host, plans, &mut members, progress).and_then(|()| freeze_together(&mut members));
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
    plans: &[(&'a TakePlan, CaptureMode)],
    members: &mut Vec<Member<'a>>,
    progress: &'a dyn Progress,
) -> Result<()> {
    for (plan, mode) in plans {
        let machine = &plan.machine;
        machine.verify_unchanged(host)?;
        let before = Inventory::of(host, machine, Missing::Refuse)?;
        let capture = Capture::begin(host, machine, &before, *mode, progress)?;
        members.push(Member {
            plan,
            mode: *mode,
            before,
            capture,
        });
    }
    Ok(())
}

/// All members stand still at one moment: several of them are paused before the first is frozen.
fn freeze_together(members: &mut [Member<'_>]) -> Result<Vec<Frozen>> {
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
        frozen.push(freeze(member)?);
    }
    for member in &mut *members {
        member.capture.release()?;
    }
    for member in &mut *members {
        member.capture.put_key_back()?;
    }
    Ok(frozen)
}

fn freeze(member: &mut Member<'_>) -> Result<Frozen> {
    if member.mode == CaptureMode::SaveState {
        return member.capture.save();
    }
    member.capture.freeze(&member.before)
}

/// Undoes a capture whose failure is told already.
fn let_go(host: &Host, mut capture: Capture<'_>, progress: &dyn Progress) {
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
            mut capture,
            ..
        } = member;
        let read = self.read(plan, mode, frozen, &low_water);
        let ReadMachine {
            mut subject,
            files,
            mut ingest,
            tracker,
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
        let thawed = capture.thaw(self.host);
        subject.set_paused(capture.paused());
        let thawed = thawed
            .and_then(|()| self.tell_what_ended(plan))
            .and_then(|()| capture.finish());
        let manifest =
            subject.store_manifest(self.host, files, self.begun, self.set, ingest.as_mut())?;
        let (id, stats) = ingest.commit(&subject.label(self.host, self.begun, self.set))?;
        let tracking = tracker.map(|tracker| tracker.finish(id, &manifest.files));
        match thawed {
            Ok(()) => Ok(Taken {
                id,
                manifest,
                stats,
                tracking,
            }),
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
        low_water: &'b LowWater<'b>,
    ) -> Result<ReadMachine<'b>> {
        let mut subject = self.subject(plan, mode, frozen)?;
        let tracker = subject.track(self.host, self.store, low_water);
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
