//! Pausing and resuming a running machine, saving and discarding its state.
//!
//! Guarantees: nothing is sent to a machine that is on the way to another state. A pause or a save
//! during a live VirtualBox snapshot would freeze the guest for good (seen on 7.2.22).

use std::path::Path;
use std::time::Duration;

use vrs_progress::Progress;

use super::VBoxManage;
use super::machines::MachineStatus;
use super::order::{Order, Standing};
use crate::error::{Error, Result};
use crate::id::MachineId;
use crate::state::MachineState;

impl VBoxManage {
    /// Pauses the machine. One that is paused stays so; any other than a running one is refused.
    pub fn pause(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        let arguments = control(id, "pause");
        self.achieve(&Order::new(&arguments), progress, |patience| {
            let state = self.settled(id, "pause", patience, progress)?.state;
            standing(state, &[MachineState::Paused], &[MachineState::Running])
                .map_err(|state| refused("pause", id, state))
        })
    }

    /// Resumes the machine. One that runs goes on; any other than a paused one is refused.
    pub fn resume(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        let arguments = control(id, "resume");
        let order = Order {
            // The guest waits, and VirtualBox refuses by itself what is not paused.
            at_once: true,
            ..Order::new(&arguments)
        };
        self.achieve(&order, progress, |patience| {
            let state = self.settled(id, "resume", patience, progress)?.state;
            standing(state, &[MachineState::Running], &[MachineState::Paused])
                .map_err(|state| refused("resume", id, state))
        })
    }

    /// Saves the state of the running or paused machine, ends it, and tells how it stands. When this
    /// returns, its files are at rest, its session is closed and its settings on disk name the saved
    /// state. One that is saved stays so.
    pub fn save_state(&self, id: MachineId, progress: &dyn Progress) -> Result<MachineStatus> {
        const DUE: [MachineState; 2] = [MachineState::Running, MachineState::Paused];
        let arguments = control(id, "savestate");
        let order = Order {
            machine: Some(id),
            ..Order::new(&arguments)
        };
        // VBoxManage may report a failure although the machine is saved (1 in 100 on 7.2.22).
        let saved = self.achieve(&order, progress, |patience| {
            let status = self.settled(id, "save the state of", patience, progress)?;
            match standing(status.state.clone(), &[MachineState::Saved], &DUE) {
                Ok(Standing::Done(())) => Ok(Standing::Done(status)),
                Ok(Standing::Due(problem)) => Ok(Standing::Due(problem)),
                Err(state) => Err(refused("save the state of", id, state)),
            }
        })?;
        // The guest stands still: VirtualBox is not asked again for what it has just told.
        if saved.is_saved_state_named()? {
            return Ok(saved);
        }
        self.have_saved_state_named(&saved, &arguments, progress)
    }

    /// VirtualBox may save the state and then fail to write the machine's settings, when the machine's
    /// process ends first (1 in 20 after a deleted VirtualBox snapshot on 7.2.22). Whoever reads the
    /// settings takes the saved state for a file that nobody needs then. VirtualBox itself may forget it
    /// before it writes them: see [`HeldClient`](super::HeldClient).
    fn have_saved_state_named(
        &self,
        saved: &MachineStatus,
        arguments: &[String],
        progress: &dyn Progress,
    ) -> Result<MachineStatus> {
        self.save_settings(saved.id, progress)?;
        let mut now = self.machine(saved.id)?;
        if let Some(file) = saved.state_file.as_ref().filter(|_| now.state.is_off()) {
            self.adopt_state(saved.id, file, progress)?;
            now = self.machine(saved.id)?;
        }
        if now.is_saved_state_named()? {
            return Ok(now);
        }
        let problem = format!(
            "the machine is {}, and its settings do not name its saved state",
            now.state
        );
        Err(self.not_done(arguments, problem))
    }

    /// Throws the machine's saved state away; it is powered off then. One without a saved state stays
    /// as it is.
    pub fn discard_state(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        const DUE: [MachineState; 2] = [MachineState::Saved, MachineState::AbortedSaved];
        let arguments = ["discardstate".to_owned(), id.to_string()];
        self.achieve(&Order::new(&arguments), progress, |patience| {
            let status = self.settled(id, "discard the saved state of", patience, progress)?;
            if status.state_file.is_none() && status.state.is_at_rest() {
                return Ok(Standing::Done(()));
            }
            standing(status.state, &[], &DUE)
                .map_err(|state| refused("discard the saved state of", id, state))
        })
    }

    /// Makes a file the saved state of a machine that is off. VirtualBox looks at no byte of it, and
    /// leaves it there when the machine has started from it (tried on 7.2.22). When this returns, the
    /// settings on disk name it. A machine that has it stays as it is.
    pub fn adopt_state(&self, id: MachineId, file: &Path, progress: &dyn Progress) -> Result<()> {
        let file_text = file.to_str().ok_or_else(|| Error::Io {
            operation: "name to VirtualBox",
            path: file.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not Unicode"),
        })?;
        let arguments = ["adoptstate", &id.to_string(), file_text].map(ToOwned::to_owned);
        self.achieve(&Order::new(&arguments), progress, |patience| {
            let status = self.settled(id, "give a saved state to", patience, progress)?;
            let is_it = status.state_file.as_deref() == Some(file);
            if is_it && status.is_saved_state_named()? {
                return Ok(Standing::Done(()));
            }
            match status.state {
                state if state.is_off() => Ok(Standing::Due(format!("the machine is {state}"))),
                state => Err(refused("give a saved state to", id, state)),
            }
        })
    }

    /// The machine's status, if it is on no way to another state.
    fn settled(
        &self,
        id: MachineId,
        operation: &'static str,
        patience: Duration,
        progress: &dyn Progress,
    ) -> Result<MachineStatus> {
        match self.settled_machine(id, patience, progress) {
            Err(Error::Unsettled { state, .. }) => Err(refused(operation, id, state)),
            other => other,
        }
    }
}

fn control(id: MachineId, action: &str) -> [String; 3] {
    ["controlvm".to_owned(), id.to_string(), action.to_owned()]
}

/// How a change stands that leads from the states `due` to those in `done`; other states come back.
fn standing(
    state: MachineState,
    done: &[MachineState],
    due: &[MachineState],
) -> std::result::Result<Standing<()>, MachineState> {
    if done.contains(&state) {
        Ok(Standing::Done(()))
    } else if due.contains(&state) {
        Ok(Standing::Due(format!("the machine is {state}")))
    } else {
        Err(state)
    }
}

fn refused(operation: &'static str, machine: MachineId, state: MachineState) -> Error {
    Error::WrongState {
        operation,
        machine,
        state,
    }
}
