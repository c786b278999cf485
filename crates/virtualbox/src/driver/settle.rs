//! Waiting until a machine is on no way to another state.

use std::time::{Duration, Instant};

use vrs_progress::Progress;

use super::VBoxManage;
use super::machines::MachineStatus;
use super::process::Watch;
use super::successful;
use crate::error::{Error, Result};
use crate::id::MachineId;
use crate::state::MachineState;

/// How long VirtualBox may take from the end of a command to the state that it led to. The session
/// of a machine that was powered off is closed some 50 ms later (measured on 7.2.22).
pub(super) const TIME_TO_SETTLE: Duration = Duration::from_secs(5);

/// A wait that is longer is explained.
const QUIET_WAIT: Duration = Duration::from_secs(1);

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl VBoxManage {
    /// The machine's status once it is on no way to another state; nor is it at rest while its
    /// session is still being closed. Fails if that takes longer than `patience`.
    pub fn settled_machine(
        &self,
        id: MachineId,
        patience: Duration,
        progress: &dyn Progress,
    ) -> Result<MachineStatus> {
        let status = self.awaited(id, is_settled, |waited| waited < patience, progress)?;
        if is_settled(&status) {
            return Ok(status);
        }
        Err(Error::Unsettled {
            machine: id,
            state: status.state,
            waited: patience,
        })
    }

    /// The machine's status once it is as wanted, or when the wait is not to go on.
    pub(super) fn awaited(
        &self,
        id: MachineId,
        is_wanted: impl Fn(&MachineStatus) -> bool,
        goes_on: impl Fn(Duration) -> bool,
        progress: &dyn Progress,
    ) -> Result<MachineStatus> {
        let start = Instant::now();
        let mut is_explained = false;
        loop {
            let status = self.machine(id)?;
            let waited = start.elapsed();
            if is_wanted(&status) || !goes_on(waited) {
                return Ok(status);
            }
            if waited > QUIET_WAIT && !is_explained {
                is_explained = true;
                progress.note(&explanation(&status));
            }
            let pause = waited.checked_div(10).unwrap_or_default();
            std::thread::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        }
    }

    /// The machine's state while a command on it runs, which has the turn.
    pub(super) fn state_meanwhile(&self, id: MachineId) -> Result<MachineState> {
        let arguments = [
            "showvminfo".to_owned(),
            id.to_string(),
            "--machinereadable".to_owned(),
        ];
        let invocation = self.invocation(&arguments);
        let ended = successful(&invocation, invocation.run(&Watch::patient(self.patience))?)?;
        let status = MachineStatus::parse(&ended.stdout)
            .map_err(|problem| self.output_error(&arguments, problem))?;
        Ok(status.state)
    }
}

fn is_settled(status: &MachineStatus) -> bool {
    !(status.state.is_transitional() || status.state.is_at_rest() && status.session.is_some())
}

fn explanation(status: &MachineStatus) -> String {
    let id = status.id;
    if status.state.is_transitional() {
        format!(
            "machine {id} is {}; waiting until that is over",
            status.state
        )
    } else {
        format!(
            "machine {id} is {}, but its session is not closed yet; waiting for that",
            status.state
        )
    }
}
