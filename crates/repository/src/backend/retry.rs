//! Trying again what may succeed next time.
//!
//! Bounded: a server that was never reached is given up after a second, one that was reached before
//! after some two minutes, which a restart or a laptop's way to another network takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::storage::{Failure, Outcome};
use crate::access::Interrupted;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const ATTEMPTS_BEFORE_SUCCESS: u32 = 3;
const ATTEMPTS: u32 = 15;
/// How often a pause looks for the wish to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// What was learnt about a storage.
pub(super) struct Retry {
    reached: AtomicBool,
    interrupted: Interrupted,
}

impl Retry {
    pub(super) const fn new(interrupted: Interrupted) -> Self {
        Self {
            reached: AtomicBool::new(false),
            interrupted,
        }
    }

    /// Does it until it succeeds or there is no hope. `attempt` learns how often it was tried before.
    pub(super) fn run<T>(&self, mut attempt: impl FnMut(u32) -> Outcome<T>) -> Outcome<T> {
        let mut pause = FIRST_PAUSE;
        for number in 0.. {
            match attempt(number) {
                Err(failure) if self.is_worth_another(number, &failure) => {
                    self.sleep(jittered(pause));
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                outcome => {
                    if outcome
                        .as_ref()
                        .err()
                        .is_none_or(|failure| !failure.is_passing())
                    {
                        self.reached.store(true, Ordering::Relaxed);
                    }
                    return outcome;
                }
            }
        }
        attempt(u32::MAX)
    }

    fn is_worth_another(&self, number: u32, failure: &Failure) -> bool {
        let attempts = if self.reached.load(Ordering::Relaxed) {
            ATTEMPTS
        } else {
            ATTEMPTS_BEFORE_SUCCESS
        };
        failure.is_passing() && number.saturating_add(1) < attempts && !self.interrupted.is_set()
    }

    fn sleep(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.interrupted.is_set() {
            let glance = left.min(GLANCE);
            std::thread::sleep(glance);
            left = left.saturating_sub(glance);
        }
    }
}

/// Between half of a pause and all of it, so that several clients do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without random numbers it is half.
    let _ = getrandom::fill(&mut random);
    let [random] = random;
    pause.mul_f32(0.5 + f32::from(random) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::super::storage::FailureKind;
    use super::*;

    fn fail(kind: FailureKind) -> Outcome<()> {
        Err(Failure::new(kind, "no"))
    }

    fn attempts(retry: &Retry, outcome: impl Fn(u32) -> Outcome<()>) -> u32 {
        let mut count = 0;
        let _ = retry.run(|number| {
            count = number.saturating_add(1);
            outcome(number)
        });
        count
    }

    #[test]
    fn what_cannot_succeed_is_tried_once() {
        let retry = Retry::new(Interrupted::default());
        for kind in [
            FailureKind::Missing,
            FailureKind::LoginRefused,
            FailureKind::Full,
        ] {
            assert_eq!(attempts(&retry, |_| fail(kind)), 1);
        }
    }

    #[test]
    fn a_server_that_was_never_there_is_soon_given_up() {
        let retry = Retry::new(Interrupted::default());
        assert_eq!(
            attempts(&retry, |_| fail(FailureKind::Unreachable)),
            ATTEMPTS_BEFORE_SUCCESS
        );
    }

    #[test]
    fn a_server_that_comes_back_is_waited_for_unless_the_user_wants_to_stop() {
        let retry = Retry::new(Interrupted::default());
        assert_eq!(attempts(&retry, |_| Ok(())), 1);
        let back_at = |number| {
            if number < 4 {
                fail(FailureKind::Unwell)
            } else {
                Ok(())
            }
        };
        assert_eq!(attempts(&retry, back_at), 5);
        let stopped = Retry::new(Interrupted::new(|| true));
        stopped.reached.store(true, Ordering::Relaxed);
        assert_eq!(attempts(&stopped, |_| fail(FailureKind::Unwell)), 1);
    }
}
