//! Making the machine hold still.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vrs_progress::{Phase, Progress};
use vrs_virtualbox::{
    Hardware, MachineSettings, MachineState, SavedState, SettingsEdit, TakeVirtualBoxSnapshot,
    VBoxManage, VirtualBoxSnapshot, VirtualBoxSnapshotId,
};

use super::pause::PauseLog;
use super::take_watch::TakeWatch;
use super::tracker::TrackerFate;
use super::{CaptureIntent, CaptureMode, STATELESS_KEY, TrackerIntent};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::journal::{Intent, Journal, Step};
use crate::machine::Machine;

/// A capture under way: the machine, what is to be done to it, and the journal that says so first.
pub(crate) struct Capture<'a> {
    pub(super) virtualbox: &'a VBoxManage,
    pub(super) intent: CaptureIntent,
    pub(super) journal: Journal,
    pub(super) progress: &'a dyn Progress,
    /// The transient VirtualBox snapshot, once its id is known.
    pub(super) virtualbox_snapshot: Option<VirtualBoxSnapshotId>,
    pub(super) tracker_fate: TrackerFate,
    /// The furthest step that was announced.
    pub(super) furthest_step: Option<Step>,
    /// Whether an earlier run unregistered the machine, and perhaps did not register it again.
    pub(super) was_unregistered: bool,
    pub(super) pause_log: Option<PauseLog>,
    /// How long freezing took, the guest's standing still included.
    pub(super) frozen_within: Option<Duration>,
    /// When the state was saved, since which the guest stands still.
    pub(super) saved_since: Option<Instant>,
}

/// A machine that holds still.
pub(crate) struct Frozen {
    /// Its settings as they belong to what is frozen: they name its saved state and know nothing of
    /// the transient VirtualBox snapshot.
    pub(crate) settings: String,
    /// The settings on disk, of a machine that is at rest.
    pub(crate) settings_on_disk: Option<String>,
    /// Why the snapshot holds no RAM, though it should.
    pub(crate) memory_lost: Option<String>,
    /// The images that the machine writes to meanwhile.
    pub(crate) growing: Vec<PathBuf>,
}

impl<'a> Capture<'a> {
    /// Writes down what is going to be done to the machine.
    pub(crate) fn begin(
        host: &'a Host,
        machine: &Machine,
        before: &Inventory,
        mode: CaptureMode,
        tracker: Option<TrackerIntent>,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let intent = CaptureIntent::new(host, machine, before, mode, tracker)?;
        let journal =
            host.journals()
                .begin(machine.id, Intent::Capture(intent.clone()), progress)?;
        Ok(Self {
            virtualbox: host.require_virtualbox()?,
            intent,
            journal,
            progress,
            virtualbox_snapshot: None,
            tracker_fate: TrackerFate::Deleted,
            furthest_step: None,
            was_unregistered: false,
            pause_log: Some(PauseLog::begin(&before.local_folder)),
            frozen_within: None,
            saved_since: None,
        })
    }

    /// How long the guest has stood still for the capture so far, or at most so long.
    pub(crate) fn paused(&self) -> Option<Duration> {
        if let Some(since) = self.saved_since {
            return Some(since.elapsed());
        }
        let logged = self.pause_log.as_ref().and_then(PauseLog::paused);
        logged.or(self.frozen_within)
    }

    /// Nothing is owed to the machine any more.
    pub(crate) fn finish(self) -> Result<()> {
        self.journal.finish(self.progress)
    }

    /// Announces a step in the journal.
    pub(super) fn announce(&mut self, step: Step) -> Result<()> {
        self.journal.record(step, self.progress)?;
        self.furthest_step = self.furthest_step.max(Some(step));
        Ok(())
    }

    /// Lets VirtualBox leave the RAM out, if that is wanted.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if self.intent.mode != CaptureMode::DisksOnly {
            return Ok(());
        }
        self.announce(Step::SetKey)?;
        self.progress.step("stateless-key-set");
        let machine = self.intent.machine;
        Ok(self
            .virtualbox
            .set_extra_data(machine, STATELESS_KEY, Some("1"), self.progress)?)
    }

    /// Pauses the machine.
    pub(crate) fn hold(&mut self) -> Result<()> {
        if self.intent.was_paused {
            return Ok(());
        }
        self.announce(Step::Pause)?;
        self.progress.step("pause");
        Ok(self.virtualbox.pause(self.intent.machine, self.progress)?)
    }

    /// Freezes the machine's files under a transient VirtualBox snapshot. `settings_text` is that of the
    /// machine before, as it is to be stored.
    pub(crate) fn freeze(&mut self, before: &Inventory, settings_text: &str) -> Result<Frozen> {
        let begun = Instant::now();
        let id = self.take_virtualbox_snapshot(before)?;
        self.frozen_within = Some(begun.elapsed());
        self.virtualbox_snapshot = Some(id);
        self.journal.record_virtualbox_snapshot(id, self.progress)?;
        let settings_file = self.virtualbox.machine(self.intent.machine)?.settings_file;
        let now = MachineSettings::read(&settings_file)?;
        let made = now
            .virtualbox_snapshots()
            .find(|made| made.id == id)
            .ok_or_else(|| self.not_as_expected("it has no settings of its VirtualBox snapshot"))?;
        if !is_same_hardware(&before.settings.hardware, &made.hardware) {
            return Err(Error::ChangedWhileRead {
                name: self.intent.machine_name.clone(),
                what: "its devices".to_owned(),
            });
        }
        let memory = self.memory(made, before);
        let state_file = memory.as_ref().ok().and_then(Option::as_deref);
        Ok(Frozen {
            settings: settings_with(settings_text, state_file)?,
            settings_on_disk: None,
            memory_lost: memory.err(),
            growing: growing(&now, before),
        })
    }

    fn take_virtualbox_snapshot(&mut self, before: &Inventory) -> Result<VirtualBoxSnapshotId> {
        self.announce(Step::TakeVirtualBoxSnapshot)?;
        self.progress.phase(Phase {
            name: "freezing",
            subject: self.intent.machine_name.clone(),
            total_bytes: None,
        });
        let live = self.intent.mode == CaptureMode::Live;
        match self.call_take(before, live)? {
            Called::Taken(id) => return Ok(id),
            Called::NeverEnds => self.progress.warn(&format!(
                "the guest of machine '{}' changes its memory faster than it can be written; it stands still for the rest",
                self.intent.machine_name
            )),
        }
        match self.call_take(before, false)? {
            Called::Taken(id) => Ok(id),
            Called::NeverEnds => Err(self.room_ran_out()),
        }
    }

    fn call_take(&self, before: &Inventory, live: bool) -> Result<Called> {
        self.progress.step("virtualbox-snapshot-take");
        let ram_bytes = before.settings.hardware.ram_bytes.unwrap_or(0);
        let watch = TakeWatch::new(&self.intent, ram_bytes, live);
        let options = TakeVirtualBoxSnapshot {
            name: self.intent.virtualbox_snapshot_name.clone(),
            description: "made by vrs for the time of a capture; `vrs recover` removes it"
                .to_owned(),
            live,
        };
        let stop = || self.progress.interrupted() || watch.is_full() || watch.never_ends();
        let taken = self.virtualbox.take_virtualbox_snapshot(
            self.intent.machine,
            &options,
            &stop,
            self.progress,
        );
        match taken {
            Ok(id) => Ok(Called::Taken(id)),
            Err(error) if !is_cancelled(&error) || self.progress.interrupted() => Err(error.into()),
            Err(_) if watch.is_full() => Err(self.room_ran_out()),
            Err(_) => Ok(Called::NeverEnds),
        }
    }

    fn room_ran_out(&self) -> Error {
        Error::RoomRanOut {
            name: self.intent.machine_name.clone(),
        }
    }

    /// Where the saved RAM is, as settings name it; or why there is none, though there should be.
    fn memory(
        &self,
        made: &VirtualBoxSnapshot,
        before: &Inventory,
    ) -> std::result::Result<Option<String>, String> {
        let location = made.state_file.as_ref();
        if !self.intent.mode.has_memory() {
            return if location.is_none() {
                Ok(None)
            } else {
                Err("this VirtualBox saved the RAM although it was told not to; that was thrown away".to_owned())
            };
        }
        let location = location.ok_or("VirtualBox saved no RAM, and did not say why")?;
        let file = before.settings.resolve(&before.local_folder, location);
        SavedState::verify(&file, self.progress).map_err(|error| error.to_string())?;
        Ok(Some(location.clone()))
    }

    /// Lets a machine run on that was paused for the capture.
    pub(crate) fn release(&mut self) -> Result<()> {
        let is_ours = self.furthest_step < Some(Step::Merge) && !self.intent.was_paused;
        let machine = self.intent.machine;
        if !is_ours || self.virtualbox.machine(machine)?.state != MachineState::Paused {
            return Ok(());
        }
        self.announce(Step::Resume)?;
        self.progress.step("resume");
        Ok(self.virtualbox.resume(machine, self.progress)?)
    }

    /// Gives the extra data item its old value.
    pub(crate) fn put_key_back(&mut self) -> Result<()> {
        if self.intent.mode != CaptureMode::DisksOnly && self.intent.tracker.is_none() {
            return Ok(());
        }
        let machine = self.intent.machine;
        let before = self.intent.stateless_key_before.clone();
        if self.virtualbox.extra_data(machine, STATELESS_KEY)? == before {
            return Ok(());
        }
        self.announce(Step::PutKeyBack)?;
        self.progress.step("stateless-key-put-back");
        Ok(self.virtualbox.set_extra_data(
            machine,
            STATELESS_KEY,
            before.as_deref(),
            self.progress,
        )?)
    }

    /// Saves the machine's state, which ends its process.
    pub(crate) fn save(&mut self) -> Result<Frozen> {
        self.announce(Step::SaveState)?;
        self.progress.step("save-state");
        let (machine, progress) = (self.intent.machine, self.progress);
        self.saved_since = Some(Instant::now());
        let status = self.virtualbox.save_state(machine, progress)?;
        let on_disk = std::fs::read_to_string(&status.settings_file)
            .map_err(|error| Error::io("read", &status.settings_file, error))?;
        let state_file = status.state_file.unwrap_or_default();
        let memory = SavedState::verify(&state_file, progress);
        let settings = match &memory {
            Ok(_) => on_disk.clone(),
            Err(_) => settings_with(&on_disk, None)?,
        };
        Ok(Frozen {
            settings,
            settings_on_disk: Some(on_disk),
            memory_lost: memory.err().map(|error| error.to_string()),
            growing: Vec::new(),
        })
    }

    fn not_as_expected(&self, what: &str) -> Error {
        Error::NotAsExpected {
            name: self.intent.machine_name.clone(),
            after: "taking the transient VirtualBox snapshot",
            what: what.to_owned(),
        }
    }
}

/// Settings that name a saved state, or none.
fn settings_with(text: &str, state_file: Option<&str>) -> Result<String> {
    let mut edit = SettingsEdit::new(text)?;
    edit.set_state_file(state_file)?;
    Ok(edit.finish())
}

/// The nvram of a VirtualBox snapshot is a copy with a place of its own.
fn is_same_hardware(before: &Hardware, made: &Hardware) -> bool {
    let without_nvram = |hardware: &Hardware| Hardware {
        nvram: None,
        ..hardware.clone()
    };
    without_nvram(before) == without_nvram(made)
}

/// The images that came with the transient VirtualBox snapshot.
fn growing(now: &MachineSettings, before: &Inventory) -> Vec<PathBuf> {
    let is_new = |id| before.media.iter().all(|medium| medium.id != id);
    now.all_hard_disks()
        .filter(|disk| is_new(disk.id))
        .map(|disk| now.resolve(&before.local_folder, &disk.location))
        .collect()
}

/// How a call that takes a VirtualBox snapshot ended.
enum Called {
    Taken(VirtualBoxSnapshotId),
    /// It was cancelled, because the guest changes its RAM too fast.
    NeverEnds,
}

fn is_cancelled(error: &vrs_virtualbox::Error) -> bool {
    matches!(error, vrs_virtualbox::Error::Cancelled { .. })
}
