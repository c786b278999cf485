//! Progress as people and programs see it.
//!
//! [`Reporter`] is the one receiver of progress. It counts; what is shown, and how often, is up to a
//! [`View`]: bars on a terminal, lines elsewhere, JSON events with `--json`.

mod bars;
mod events;
mod lines;
mod tally;

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vrs_progress::{Counter, Phase, Progress};

use crate::signals::Interrupt;

pub use bars::Bars;
pub use events::Events;
pub use lines::Lines;
pub use tally::{Status, Tally};

/// One way of showing progress.
pub trait View: Send {
    /// How often [`Self::show`] is wanted; never if there is nothing to show.
    fn interval(&self) -> Option<Duration>;

    /// A phase begins.
    fn begin(&mut self, status: &Status);

    /// A phase goes on.
    fn show(&mut self, status: &Status);

    /// A phase is over.
    fn end(&mut self, status: &Status);

    /// Something is to be known.
    fn warn(&mut self, warning: &str);

    /// Something is good to know.
    fn note(&mut self, note: &str);
}

/// The receiver of progress. What is shown goes away when it is dropped.
pub struct Reporter {
    shared: Arc<Shared>,
    interrupt: Interrupt,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Shared {
    tally: Tally,
    view: Mutex<Box<dyn View>>,
}

impl Shared {
    // A view that panicked while it drew is still good enough to draw the next time.
    fn view(&self) -> MutexGuard<'_, Box<dyn View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_phase(&self, view: &mut dyn View) {
        if let Some(status) = self.tally.status() {
            view.end(&status);
        }
    }
}

impl Reporter {
    pub fn new(view: Box<dyn View>, interrupt: Interrupt) -> Self {
        let interval = view.interval();
        let shared = Arc::new(Shared {
            tally: Tally::default(),
            view: Mutex::new(view),
        });
        let ticker = interval.map(|interval| start_ticker(Arc::clone(&shared), interval));
        Self {
            shared,
            interrupt,
            ticker,
        }
    }
}

fn start_ticker(shared: Arc<Shared>, interval: Duration) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let handle = std::thread::spawn(move || {
        while receiver.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let mut view = shared.view();
            if let Some(status) = shared.tally.status() {
                view.show(&status);
            }
        }
    });
    (sender, handle)
}

impl Progress for Reporter {
    fn phase(&self, phase: Phase) {
        let mut view = self.shared.view();
        self.shared.end_phase(view.as_mut());
        view.begin(&self.shared.tally.begin(phase));
    }

    fn add(&self, counter: Counter, bytes: u64) {
        self.shared.tally.add(counter, bytes);
    }

    fn percent(&self, percent: u8) {
        self.shared.tally.reach(percent);
    }

    fn warn(&self, warning: &str) {
        self.shared.view().warn(warning);
    }

    fn note(&self, note: &str) {
        self.shared.view().note(note);
    }

    fn interrupted(&self) -> bool {
        self.interrupt.is_set()
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some((sender, handle)) = self.ticker.take() {
            drop(sender);
            // Only a panic in a view could make this fail, and it was shown already.
            let _ = handle.join();
        }
        let mut view = self.shared.view();
        self.shared.end_phase(view.as_mut());
    }
}
