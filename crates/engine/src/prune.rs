//! Applying the retention policy, and giving space back.
//!
//! Neither VirtualBox nor anything of a host is needed. Snapshots go first, one atomic removal
//! each; then the storage gives back what nobody uses, see [`SnapshotStore::prune`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{PruneOptions, PruneStats, SnapshotStore};
use vrs_virtualbox::MachineId;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::migrate;
use crate::policy::Policy;
use crate::retention::{Candidate, Reason, reasons};
use crate::snapshot::Snapshot;

/// A snapshot, and why it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// None: it is not kept.
    pub reasons: Vec<Reason>,
}

/// What a prune will do.
#[derive(Debug, Clone)]
pub struct PrunePlan {
    /// All snapshots, machine by machine, latest first.
    pub judged: Vec<Judged>,
}

impl PrunePlan {
    /// Judges the snapshots of a repository by a policy, as they are at the time `now`.
    ///
    /// # Errors
    /// When a snapshot could not be read: a rule would count the others wrongly.
    pub fn make(catalog: &Catalog, policy: &Policy, now: Timestamp) -> Result<Self> {
        if let Some(reason) = catalog.unreadable.first() {
            return Err(Error::CannotJudge {
                reason: reason.clone(),
            });
        }
        let zone = policy.zone()?;
        let judged = by_machine(&catalog.snapshots)
            .into_values()
            .flat_map(|snapshots| judge(snapshots, policy, &zone, now));
        Ok(Self {
            judged: judged.collect(),
        })
    }

    /// The snapshots that will be deleted.
    pub fn deleted(&self) -> impl Iterator<Item = &Snapshot> {
        let not_kept = self
            .judged
            .iter()
            .filter(|judged| judged.reasons.is_empty());
        not_kept.map(|judged| &judged.snapshot)
    }

    fn deleted_ids(&self) -> Vec<SnapshotId> {
        self.deleted().map(|snapshot| snapshot.id).collect()
    }

    /// What space the storage will give back.
    pub fn space(
        &self,
        store: &dyn SnapshotStore,
        options: &PruneOptions,
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        Ok(store.plan_prune(options, &self.deleted_ids(), progress)?)
    }

    /// Carries it out.
    pub fn execute(
        &self,
        store: &dyn SnapshotStore,
        options: &PruneOptions,
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        migrate::delete_snapshots(store, self.deleted(), progress)?;
        Ok(store.prune(options, progress)?)
    }
}

/// The snapshots of each machine, latest first.
pub(crate) fn by_machine(snapshots: &[Snapshot]) -> BTreeMap<MachineId, Vec<&Snapshot>> {
    let mut machines: BTreeMap<MachineId, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots.iter().rev() {
        machines.entry(snapshot.machine).or_default().push(snapshot);
    }
    machines
}

fn judge(
    snapshots: Vec<&Snapshot>,
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Judged> {
    let Some(first) = snapshots.first() else {
        return Vec::new();
    };
    let candidates: Vec<Candidate> = snapshots.iter().map(|one| Candidate::from(*one)).collect();
    let reasons = reasons(&candidates, policy.rules(first.machine), zone, now);
    let judged = snapshots.iter().zip(reasons);
    judged
        .map(|(snapshot, reasons)| Judged {
            snapshot: (*snapshot).clone(),
            reasons,
        })
        .collect()
}
