//! Letting the machine go again, from wherever a capture ended.

use std::path::Path;
use std::time::Duration;

use vrs_progress::{Phase, Progress};
use vrs_virtualbox::{Frontend, MachineSettings, MachineStatus, VirtualBoxSnapshotId};

use super::freeze::Capture;
use super::tracker::TrackerFate;
use super::{CaptureIntent, CaptureMode, strays};
use crate::error::Result;
use crate::host::Host;
use crate::journal::{Step, Unfinished};
use crate::machine::Machine;
use crate::{platform, tracking};

/// How long VirtualBox may be on the way from one state to another before that is an error. A merge
/// is waited for by its own call.
const PATIENCE: Duration = Duration::from_secs(600);

impl<'a> Capture<'a> {
    /// Takes up a capture that an earlier run left.
    pub(crate) fn take_up(
        host: &'a Host,
        intent: CaptureIntent,
        unfinished: &Unfinished,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        Ok(Self {
            virtualbox: host.require_virtualbox()?,
            journal: host.journals().resume(unfinished.machine)?,
            intent,
            progress,
            virtualbox_snapshot: unfinished.virtualbox_snapshot,
            tracker_fate: TrackerFate::Forgotten,
            furthest_step: unfinished.furthest_step,
            was_unregistered: unfinished.was_registered,
            pause_log: None,
            frozen_within: None,
            saved_since: None,
        })
    }

    /// Undoes all that the capture did to the machine. May be called again after any interruption.
    pub(crate) fn thaw(&mut self, host: &Host) -> Result<()> {
        let outcome = self.undo(host);
        if outcome.is_err() && matches!(self.is_inaccessible(host), Ok(true)) {
            // VirtualBox may find only meanwhile that it cannot read the machine, for images that its
            // process left when it died (seen on 7.2.22, on a busy computer).
            return self.undo(host);
        }
        outcome
    }

    fn is_inaccessible(&self, host: &Host) -> Result<bool> {
        let machine = Machine::registered(host, self.intent.machine)?;
        Ok(machine.is_some_and(|machine| machine.state.is_inaccessible()))
    }

    fn undo(&mut self, host: &Host) -> Result<()> {
        match Machine::registered(host, self.intent.machine)? {
            Some(machine) if machine.state.is_inaccessible() => self.take_leftovers_out(true)?,
            Some(_) => {}
            None if self.was_unregistered => self.take_leftovers_out(false)?,
            None => {
                self.progress.warn(&format!(
                    "machine '{}' is not registered any more; nothing is left to do for it",
                    self.intent.machine_name
                ));
                return Ok(());
            }
        }
        let status = self.settle()?;
        if status.state.is_at_rest() {
            refuse_if_orphaned(&status.settings_file)?;
        }
        let _client = self.keep_unnamed_state(&status)?;
        self.put_key_back()?;
        self.release()?;
        self.undo_former_trackers()?;
        self.merge()?;
        self.undo_next_tracker()?;
        strays::remove_images(self.virtualbox, &self.intent, self.progress)?;
        self.outlast_leftovers()?;
        self.start_again()?;
        strays::remove_files(self.virtualbox, &self.intent, self.progress)?;
        if self.forgets_trackers() {
            tracking::forget(host, self.intent.machine, self.progress);
        }
        Ok(())
    }

    pub(super) fn settle(&self) -> Result<MachineStatus> {
        let machine = self.intent.machine;
        Ok(self
            .virtualbox
            .settled_machine(machine, PATIENCE, self.progress)?)
    }

    fn merge(&mut self) -> Result<()> {
        let Some(id) = self.transient_virtualbox_snapshot()? else {
            return Ok(());
        };
        self.delete(id, Step::Merge, "virtualbox-snapshot-delete")
    }

    /// Deletes a VirtualBox snapshot of vrs's own, which merges its images.
    pub(super) fn delete(
        &mut self,
        id: VirtualBoxSnapshotId,
        step: Step,
        announced: &'static str,
    ) -> Result<()> {
        self.announce(step)?;
        self.progress.phase(Phase {
            name: "merging",
            subject: self.intent.machine_name.clone(),
            total_bytes: None,
        });
        self.progress.step(announced);
        let machine = self.intent.machine;
        Ok(self
            .virtualbox
            .delete_virtualbox_snapshot(machine, id, self.progress)?)
    }

    /// Ours, where it exists: by its id, or by its name where a crash came before the id was known.
    fn transient_virtualbox_snapshot(&self) -> Result<Option<VirtualBoxSnapshotId>> {
        let listed = self.virtualbox.virtualbox_snapshots(self.intent.machine)?;
        let ours = listed.iter().find(|listed| match self.virtualbox_snapshot {
            Some(id) => listed.id == id,
            None => listed.name == self.intent.virtualbox_snapshot_name,
        });
        Ok(ours.map(|ours| ours.id))
    }

    /// Starts a machine that was saved for the capture.
    fn start_again(&mut self) -> Result<()> {
        let is_ours = self.intent.mode == CaptureMode::SaveState
            && self.furthest_step >= Some(Step::SaveState);
        if !is_ours || !self.has_state_again()? {
            return Ok(());
        }
        self.announce(Step::Start)?;
        self.progress.step("start");
        let frontend = if self.intent.had_window {
            Frontend::Gui
        } else {
            Frontend::Headless
        };
        self.virtualbox
            .start(self.intent.machine, frontend, self.progress)?;
        if self.intent.was_paused {
            self.progress.step("pause");
            self.virtualbox.pause(self.intent.machine, self.progress)?;
        }
        Ok(())
    }
}

/// A machine's process outlives VirtualBox's daemon (tried on 7.2.22). A new daemon takes the machine
/// for one at rest, and would merge images that the process still writes to.
pub(super) fn refuse_if_orphaned(settings_file: &Path) -> Result<()> {
    let folder = settings_file.parent().unwrap_or(Path::new("/"));
    let settings = MachineSettings::read(settings_file)?;
    for disk in settings.all_hard_disks() {
        let image = settings.resolve(folder, &disk.location);
        if image.is_file() {
            platform::refuse_if_written_to(&image)?;
        }
    }
    Ok(())
}
