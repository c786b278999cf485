//! What killed writers left beside objects, under names that no object has.
//!
//! Lists come past it anyway, and looking for it would take as many requests again. Not guaranteed: that it goes before
//! its folder was listed.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::storage::TEMPORARY;
use crate::parallel::lock;

/// Longer than any write takes.
const LEAST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Places of files that were seen.
pub(super) struct Leftovers<P>(Mutex<BTreeSet<P>>);

impl<P: Ord> Leftovers<P> {
    pub(super) const fn none() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    /// Remembers a file that nobody writes any more.
    pub(super) fn note(
        &self,
        name: &str,
        modified: impl FnOnce() -> Option<SystemTime>,
        place: impl FnOnce() -> P,
    ) {
        let age = || modified()?.elapsed().ok();
        if name.contains(TEMPORARY) && age().is_some_and(|age| age > LEAST_AGE) {
            lock(&self.0).insert(place());
        }
    }

    /// All that were seen since the last time.
    pub(super) fn take(&self) -> BTreeSet<P> {
        mem::take(&mut *lock(&self.0))
    }
}
