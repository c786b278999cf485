//! Starting machines and powering them off.

use std::time::{Duration, Instant};

use vrs_progress::Progress;

use super::VBoxManage;
use super::machines::MachineStatus;
use crate::error::{Error, Result};
use crate::id::MachineId;

/// How long VirtualBox may take from the end of a command to the state that it led to. The session
/// of a machine that was powered off is closed some 50 ms later (measured on 7.2.22).
const TIME_TO_SETTLE: Duration = Duration::from_secs(5);

/// Where a started machine shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontend {
    /// In a window.
    Gui,
    /// Nowhere.
    Headless,
}

impl VBoxManage {
    /// Starts the machine. Fails unless it is then running.
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

    /// Takes the power away from the machine, as it is. A machine that is not running is left alone.
    /// When this returns, its files are at rest and its session is closed.
    pub fn power_off(&self, id: MachineId, progress: &dyn Progress) -> Result<()> {
        if is_quiet(&self.machine(id)?) {
            return Ok(());
        }
        let arguments = [
            "controlvm".to_owned(),
            id.to_string(),
            "poweroff".to_owned(),
        ];
        match self
            .order(&arguments, progress)
            .and_then(|_| self.settled(id))
        {
            Ok(status) if is_quiet(&status) => Ok(()),
            Ok(status) => {
                self.stop_in_an_emergency(id, &format!("it is still {}", status.state), progress)
            }
            // Another may have powered it off just now; and a machine that was paused at the wrong
            // moment never ends in this way (seen on 7.2.22).
            Err(error) => self.after_failed_power_off(id, &error, progress),
        }
    }

    fn after_failed_power_off(
        &self,
        id: MachineId,
        error: &Error,
        progress: &dyn Progress,
    ) -> Result<()> {
        match self.settled(id) {
            Ok(status) if is_quiet(&status) => {
                progress.warn(&format!(
                    "machine {id} is {}, although {error}",
                    status.state
                ));
                Ok(())
            }
            _ => self.stop_in_an_emergency(id, &error.to_string(), progress),
        }
    }

    /// Ends the machine's process. That is what is left when it does not react.
    fn stop_in_an_emergency(
        &self,
        id: MachineId,
        reason: &str,
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
        let status = self.settled(id)?;
        if is_quiet(&status) {
            return Ok(());
        }
        Err(self.not_done(&arguments, format!("the machine is still {}", status.state)))
    }

    /// The machine's status once it is quiet, or what it is after a while.
    fn settled(&self, id: MachineId) -> Result<MachineStatus> {
        let start = Instant::now();
        loop {
            let status = self.machine(id)?;
            if is_quiet(&status) || start.elapsed() > TIME_TO_SETTLE {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn is_quiet(status: &MachineStatus) -> bool {
    status.state.is_at_rest() && status.session.is_none()
}
