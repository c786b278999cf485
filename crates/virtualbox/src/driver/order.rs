//! Having VirtualBox do something.
//!
//! Guarantees: the machine or medium is looked at right before a command is sent, and after it
//! ended, however it ended. A command that VirtualBox is still working on is not ended.

use std::ffi::OsStr;
use std::time::Duration;

use vrs_progress::Progress;

use super::failure::{claims_error, is_media_lock, is_unexplained_start};
use super::process::{Invocation, Watch};
use super::settle::TIME_TO_SETTLE;
use super::{DELAYS, VBoxManage, exit_error, is_passing};
use crate::error::{Error, Result};
use crate::id::MachineId;

/// VirtualBox's service ends about 5 seconds after its last client (seen on 7.2.22). We are one.
pub const SERVICE_ENDS_WITHIN: Duration = Duration::from_secs(7);

/// Locks that a killed operation left on images go away with VirtualBox's service.
const WAITS_FOR_SERVICE: [Duration; 2] = [SERVICE_ENDS_WITHIN; 2];

/// How a change stands.
pub(super) enum Standing<T> {
    /// It is made.
    Done(T),
    /// It may be made; so is the machine or medium now.
    Due(String),
}

/// A change that VirtualBox is to make.
pub(super) struct Order<'a> {
    /// Arguments of the command.
    pub(super) arguments: &'a [String],
    /// Whether to send the command without looking first.
    pub(super) at_once: bool,
    /// Whether the command is to be cancelled.
    pub(super) stop: &'a dyn Fn() -> bool,
    /// The machine that is on the way to another state while VirtualBox works on the command.
    pub(super) machine: Option<MachineId>,
}

impl<'a> Order<'a> {
    pub(super) const fn new(arguments: &'a [String]) -> Self {
        Self {
            arguments,
            at_once: false,
            stop: &|| false,
            machine: None,
        }
    }
}

impl VBoxManage {
    /// Has something done. That it worked is for the caller to see.
    pub(super) fn order<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let invocation = self.invocation(arguments);
        let mut retries = Retries::new(progress);
        while let Err(error) = self.attempt(&invocation, &Watch::patient(self.patience)) {
            retries.wait_after(error)?;
        }
        Ok(())
    }

    /// Has something done, if it is not yet, and sees that it is. `standing` is asked with the time
    /// that a machine may take to settle; it fails if the command must not be sent now.
    pub(super) fn achieve<T>(
        &self,
        order: &Order<'_>,
        progress: &dyn Progress,
        standing: impl Fn(Duration) -> Result<Standing<T>>,
    ) -> Result<T> {
        let invocation = self.invocation(order.arguments);
        let mut retries = Retries::new(progress);
        if !order.at_once
            && let Standing::Done(done) = standing(Duration::ZERO)?
        {
            return Ok(done);
        }
        loop {
            let outcome = self.attempt_watched(&invocation, order, progress);
            let error = match (outcome, standing(TIME_TO_SETTLE)) {
                (Ok(()), Ok(Standing::Done(done))) => return Ok(done),
                (Ok(()), Ok(Standing::Due(problem))) => {
                    return Err(self.not_done(order.arguments, problem));
                }
                (Ok(()), Err(error)) => return Err(error),
                (Err(error), Ok(Standing::Done(done))) => {
                    progress.note(&format!("it is done, although {error}"));
                    return Ok(done);
                }
                (Err(error), _) => error,
            };
            retries.wait_after(error)?;
            if let Standing::Done(done) = standing(Duration::ZERO)? {
                return Ok(done);
            }
        }
    }

    fn attempt_watched(
        &self,
        invocation: &Invocation,
        order: &Order<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let is_working = || {
            let state = order.machine.map(|machine| self.state_meanwhile(machine));
            matches!(state, Some(Ok(state)) if state.is_transitional())
        };
        let watch = Watch {
            stop: order.stop,
            is_working: &is_working,
            percent: &|percent| progress.percent(percent),
            ..Watch::patient(self.patience)
        };
        self.attempt(invocation, &watch)
    }

    fn attempt(&self, invocation: &Invocation, watch: &Watch<'_>) -> Result<()> {
        let ended = self.run(invocation, watch)?;
        if claims_error(&ended.stderr) {
            return Err(exit_error(invocation, &ended));
        }
        Ok(())
    }
}

/// How often, and after which time, a failed command is sent again.
struct Retries<'a> {
    progress: &'a dyn Progress,
    delays: std::array::IntoIter<Duration, 5>,
    waits_for_service: std::array::IntoIter<Duration, 2>,
}

impl<'a> Retries<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            delays: DELAYS.into_iter(),
            waits_for_service: WAITS_FOR_SERVICE.into_iter(),
        }
    }

    /// Waits, or gives the error back if sending the command again will not help.
    fn wait_after(&mut self, error: Error) -> Result<()> {
        std::thread::sleep(self.delay_after(error)?);
        Ok(())
    }

    /// How long to wait, which is announced.
    fn delay_after(&mut self, error: Error) -> Result<Duration> {
        let leftover_lock = leftover_lock(&error);
        let (delay, what) = if leftover_lock.is_some() {
            let what = "waiting until VirtualBox's service has ended, then trying again";
            (self.waits_for_service.next(), what)
        } else {
            let delay = self.delays.next().filter(|_| is_passing(&error));
            (delay, "trying again")
        };
        match delay.filter(|_| !self.progress.interrupted()) {
            Some(delay) => {
                self.progress.note(&format!("{error}; {what}"));
                Ok(delay)
            }
            None => Err(leftover_lock.unwrap_or(error)),
        }
    }
}

fn leftover_lock(error: &Error) -> Option<Error> {
    match error {
        Error::Exit {
            command, message, ..
        } if is_media_lock(message) || is_unexplained_start(command, message) => {
            Some(Error::MediaLocked {
                command: command.clone(),
                message: message.clone(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use vrs_progress::NoProgress;

    use super::super::failure::Failure;
    use super::*;

    fn error(stderr: &str) -> Error {
        let failure = Failure::parse(stderr);
        Error::Exit {
            command: "VBoxManage snapshot m delete s".to_owned(),
            status: "exit status: 1".into(),
            code: failure.code,
            message: failure.message,
            stderr: stderr.into(),
            is_busy: failure.is_busy,
            is_passing: failure.is_passing,
        }
    }

    #[test]
    fn leftover_locks_are_given_time_to_go_with_the_service() {
        let locked = || {
            error(include_str!(
                "../../tests/recorded/7.2.22/error-merge-lock.txt"
            ))
        };
        let mut retries = Retries::new(&NoProgress);
        for wait in WAITS_FOR_SERVICE {
            assert_eq!(retries.delay_after(locked()).unwrap(), wait);
        }
        let given_up = retries.delay_after(locked()).unwrap_err();
        assert!(
            matches!(given_up, Error::MediaLocked { .. }),
            "{given_up:?}"
        );
    }

    #[test]
    fn a_start_that_fails_without_a_reason_is_tried_again() {
        let failed = |command: &str| {
            let failure = Failure::parse(include_str!(
                "../../tests/recorded/7.2.22/error-start-lock.txt"
            ));
            Error::Exit {
                command: command.to_owned(),
                status: "exit status: 1".into(),
                code: failure.code,
                message: failure.message,
                stderr: "".into(),
                is_busy: failure.is_busy,
                is_passing: failure.is_passing,
            }
        };
        let start = || failed("VBoxManage startvm m --type headless");
        let mut retries = Retries::new(&NoProgress);
        for wait in WAITS_FOR_SERVICE {
            assert_eq!(retries.delay_after(start()).unwrap(), wait);
        }
        let given_up = retries.delay_after(start()).unwrap_err();
        assert!(
            matches!(given_up, Error::MediaLocked { .. }),
            "{given_up:?}"
        );
        let other = failed("VBoxManage unregistervm m");
        assert!(Retries::new(&NoProgress).delay_after(other).is_err());
    }

    #[test]
    fn passing_failures_are_tried_again_and_others_are_not() {
        let passing = || error(include_str!("../../tests/recorded/7.2.22/error-locked.txt"));
        let mut retries = Retries::new(&NoProgress);
        for delay in DELAYS {
            assert_eq!(retries.delay_after(passing()).unwrap(), delay);
        }
        assert!(matches!(
            retries.delay_after(passing()),
            Err(Error::Exit { .. })
        ));
        let lasting = error(include_str!(
            "../../tests/recorded/7.2.22/error-not-found.txt"
        ));
        assert!(Retries::new(&NoProgress).delay_after(lasting).is_err());
    }
}
