//! Giving up a capture before it fills a disk.
//!
//! VirtualBox refuses to merge where less is free than the images to be merged take, even if
//! everything would fit in place (source: `SnapshotImpl.cpp`). While a transient VirtualBox snapshot
//! exists, its images grow; once the room they need to go away comes near what is left, the capture
//! has to end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vrs_progress::{Counter, Phase, Progress};

use crate::{platform, preflight};

/// How often the disks are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Hands everything on, and says "interrupted" too when room runs out.
pub(crate) struct LowWater<'a> {
    progress: &'a dyn Progress,
    images: Vec<PathBuf>,
    last_look: Mutex<Option<Instant>>,
    is_low: AtomicBool,
}

impl<'a> LowWater<'a> {
    /// Watches the room that merging `images` needs.
    pub(crate) fn new(progress: &'a dyn Progress, images: Vec<PathBuf>) -> Self {
        Self {
            progress,
            images,
            last_look: Mutex::new(None),
            is_low: AtomicBool::new(false),
        }
    }

    /// Whether room ran out.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::SeqCst)
    }

    fn look(&self) {
        let mut last = self
            .last_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        drop(last);
        let low = self.images.iter().any(|image| {
            // Images share volumes, so each is held against the room for all on its volume.
            let free = platform::free_bytes(image);
            free.is_ok_and(|free| free < self.needed_beside(image))
        });
        if low {
            self.is_low.store(true, Ordering::SeqCst);
        }
    }

    fn needed_beside(&self, image: &Path) -> u64 {
        let volume = platform::volume_of(image);
        let together = self
            .images
            .iter()
            .filter(|other| platform::volume_of(other) == volume);
        let sizes = together.map(|other| std::fs::metadata(other).map_or(0, |file| file.len()));
        preflight::low_water_bytes(sizes)
    }
}

impl Progress for LowWater<'_> {
    fn phase(&self, phase: Phase) {
        self.progress.phase(phase);
    }

    fn add(&self, counter: Counter, bytes: u64) {
        self.progress.add(counter, bytes);
    }

    fn warn(&self, warning: &str) {
        self.progress.warn(warning);
    }

    fn note(&self, note: &str) {
        self.progress.note(note);
    }

    fn percent(&self, percent: u8) {
        self.progress.percent(percent);
    }

    fn step(&self, step: &'static str) {
        self.progress.step(step);
    }

    fn interrupted(&self) -> bool {
        self.look();
        self.is_low() || self.progress.interrupted()
    }
}
