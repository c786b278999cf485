//! Ctrl-C and the polite ways of ending a process.
//!
//! Guarantees: the first one lets the operation stop where nothing is left half done; a second one
//! ends the process at once, which the journal is made for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    interrupted: AtomicBool,
    asking: AtomicBool,
}

impl Interrupt {
    /// Listens to Ctrl-C, SIGTERM and SIGHUP from now on.
    pub fn listen() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        ctrlc::set_handler(move || {
            if heard.set() || heard.0.asking.load(Ordering::SeqCst) {
                exit_at_once();
            }
        })?;
        Ok(interrupt)
    }

    /// Notes the wish to stop, and says whether it is not the first one.
    fn set(&self) -> bool {
        self.0.interrupted.swap(true, Ordering::SeqCst)
    }

    pub fn is_set(&self) -> bool {
        self.0.interrupted.load(Ordering::SeqCst)
    }

    /// Waits for the user inside `ask`: nothing is under way that an interruption could hurt.
    pub fn while_asking<T>(&self, ask: impl FnOnce() -> T) -> T {
        self.0.asking.store(true, Ordering::SeqCst);
        let answer = ask();
        self.0.asking.store(false, Ordering::SeqCst);
        answer
    }
}

#[expect(
    clippy::exit,
    reason = "the user insists, and the main thread does not listen"
)]
fn exit_at_once() {
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_wish_to_stop_is_told_from_the_first() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.is_set());
        assert!(!interrupt.set());
        assert!(interrupt.is_set());
        assert!(interrupt.set());
    }
}
