//! Starting machines and powering them off.

use std::time::Duration;

use vrs_progress::Progress;

use super::VBoxManage;
use super::machines::MachineStatus;
use super::order::{Order, Standing};
use super::settle::TIME_TO_SETTLE;
use crate::error::{Error, Result};
use crate::id::MachineId;
use crate::state::MachineState;

/// Where a started machine shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontend {
    /// In a window.
    Gui,
    /// Nowhere.
    Headless,
}

impl VBoxManage {
    /// Starts the machine. Fails unless it is then running. Locks that a killed operation left on its
    /// images are waited for, with a note.
    pub fn start(&self, id: MachineId, frontend: Frontend, progress: &dyn Progress) -> Result<()> {
        let kind = match frontend {
            Frontend::Gui => "gui",
            Frontend::Headless => "headless",
        };
        let arguments = [
            "startvm".to_owned(),
            id.to_string(),
            "--type".to_owned(),
            kind.to_owned(),
        ];
        self.order(&arguments, progress)?;
        let status = self.machine(id)?;
        if status.state.is_online() {
            return Ok(());
        }
        Err(self.not_done(&arguments, format!("the machine is {}", status.state)))
    }

    /// Takes the power away from the machine, as it is. A machine that is not running is left alone;
    /// one on the way to another state is refused: during a live VirtualBox snapshot
    /// VirtualBox would never come back from it (seen on 7.2.22). When this returns, the machine's
    /// files are at rest and its session is closed.
    pub fn power_off(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        let arguments = ["controlvm", &id.to_string(), "poweroff"].map(ToOwned::to_owned);
        let outcome = self.achieve(&Order::new(&arguments), progress, |patience| {
            self.power_standing(id, patience, progress)
        });
        match outcome {
            Err(Error::Unsettled { ref state, .. }) if *state != MachineState::Stopping => outcome,
            Ok(()) | Err(Error::WrongState { .. }) => outcome,
            // A machine that was paused at the wrong moment never ends in this way (seen on 7.2.22).
            Err(error) => self.stop_in_an_emergency(id, &error, progress),
        }
    }

    fn power_standing(
        &self,
        id: MachineId,
        patience: Duration,
        progress: &dyn Progress,
    ) -> Result<Standing<()>> {
        let mut status = self.awaited(id, is_quiet, |waited| waited < patience, progress)?;
        if status.state == MachineState::Stopping || status.state.is_at_rest() {
            status = self.quiet(id, progress)?;
        }
        match status.state {
            _ if is_quiet(&status) => Ok(Standing::Done(())),
            state if state == MachineState::Stopping || state.is_at_rest() => {
                Err(Error::Unsettled {
                    machine: id,
                    state,
                    waited: TIME_TO_SETTLE,
                })
            }
            state if state.is_transitional() => Err(Error::WrongState {
                operation: "power off",
                machine: id,
                state,
            }),
            state => Ok(Standing::Due(format!("the machine is still {state}"))),
        }
    }

    /// Ends the machine's process. That is what is left when it does not react.
    fn stop_in_an_emergency(
        &self,
        id: MachineId,
        reason: &Error,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.warn(&format!(
            "powering off machine {id} did not work ({reason}); its process is ended instead"
        ));
        let arguments = [
            "startvm".to_owned(),
            id.to_string(),
            "--type".to_owned(),
            "emergencystop".to_owned(),
        ];
        self.order(&arguments, progress)?;
        let status = self.quiet(id, progress)?;
        if is_quiet(&status) {
            return Ok(());
        }
        Err(self.not_done(&arguments, format!("the machine is still {}", status.state)))
    }

    /// The machine's status once it is quiet, or what it is after a while.
    fn quiet(&self, id: MachineId, progress: &dyn Progress) -> Result<MachineStatus> {
        self.awaited(id, is_quiet, |waited| waited < TIME_TO_SETTLE, progress)
    }
}

fn is_quiet(status: &MachineStatus) -> bool {
    status.state.is_at_rest() && status.session.is_none()
}
