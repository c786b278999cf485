//! Deleting snapshots.
//!
//! Guarantees: each snapshot goes with one atomic removal, so that an interruption leaves some
//! deleted and the others whole; nothing is owed. The space comes back with a later prune, and
//! chunks that other snapshots use stay.

use vrs_progress::Progress;
use vrs_repository::store::SnapshotStore;

use crate::error::Result;
use crate::migrate;
use crate::snapshot::Snapshot;

/// Snapshots that will be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletePlan {
    /// Each once, oldest first.
    pub snapshots: Vec<Snapshot>,
}

impl DeletePlan {
    /// Puts a selection in order.
    #[must_use]
    pub fn make(mut snapshots: Vec<Snapshot>) -> Self {
        snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        snapshots.dedup_by_key(|snapshot| snapshot.id);
        Self { snapshots }
    }
}

/// Carries a plan out.
pub fn execute(
    store: &dyn SnapshotStore,
    plan: &DeletePlan,
    progress: &dyn Progress,
) -> Result<()> {
    migrate::delete_snapshots(store, plan.snapshots.iter(), progress)
}
