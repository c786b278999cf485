//! Taking a snapshot of a machine.
//!
//! Guarantees: a machine at rest is not touched, not even with a VirtualBox snapshot, unless tracking leaves
//! one or deletes the last. One that runs is captured and let go again, see [`crate::capture`]; it never stays
//! paused, stopped or with a stray VirtualBox snapshot. The snapshot appears only if every file was the same before and after
//! reading and the machine's state did not change meanwhile. A file that is known unchanged is not
//! read. What is stored is ready to be registered as it stands.
//!
//! Not guaranteed: that a program which changes an image and puts back its size, inode and both
//! times in nanoseconds is noticed.

mod online;
mod plan;
mod subject;
mod tracked;

use jiff::Timestamp;
use uuid::Uuid;
use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{IngestStats, SnapshotStore};

pub use plan::{FilePlan, Previous, TakeOptions, TakePlan};

use self::subject::Subject;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::lock::MachineLock;
use crate::manifest::Manifest;
use crate::tracking::TrackingReport;
use crate::{preflight, recover};

/// A snapshot that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id.
    pub id: SnapshotId,
    /// What it says about the machine.
    pub manifest: Manifest,
    /// What it cost.
    pub stats: IngestStats,
    /// What tracking did, where it was asked for.
    pub tracking: Option<TrackingReport>,
}

/// Carries a plan out. Nothing may be owed to the machine, see [`recover::release_before_take`].
pub fn execute(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    progress: &dyn Progress,
) -> Result<Taken> {
    let mut taken = execute_all(host, store, std::slice::from_ref(plan), None, progress)?;
    taken.pop().unwrap_or_else(|| Err(not_taken(plan)))
}

/// Carries several plans out as one snapshot set: the machines that run are captured at one
/// instant. The set's id is in each manifest. Each answer is that of the plan at its place.
pub fn execute_together(
    host: &Host,
    store: &dyn SnapshotStore,
    plans: &[TakePlan],
    progress: &dyn Progress,
) -> Result<Vec<Result<Taken>>> {
    let set = Uuid::new_v4().to_string();
    execute_all(host, store, plans, Some(&set), progress)
}

/// Takes a machine at rest whose lock the caller holds.
pub(crate) fn execute_held(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    progress: &dyn Progress,
) -> Result<Taken> {
    if plan.capture.is_some() || plan.tracker.is_at_work() {
        return Err(not_taken(plan));
    }
    at_rest(host, store, plan, None, progress)
}

fn execute_all(
    host: &Host,
    store: &dyn SnapshotStore,
    plans: &[TakePlan],
    set: Option<&str>,
    progress: &dyn Progress,
) -> Result<Vec<Result<Taken>>> {
    let lock_of = |plan| lock(host, plan);
    let _locks = plans.iter().map(lock_of).collect::<Result<Vec<_>>>()?;
    for plan in plans {
        preflight::refuse_or_warn(&plan.machine, &plan.verdicts, progress)?;
    }
    let running = plans.iter().filter_map(|plan| Some((plan, plan.capture?)));
    let running: Vec<_> = running.collect();
    let mut captured = online::execute(host, store, &running, set, progress)?.into_iter();
    let taken = plans.iter().map(|plan| match plan.capture {
        None => at_rest(host, store, plan, set, progress),
        Some(_) => captured.next().unwrap_or_else(|| Err(not_taken(plan))),
    });
    Ok(taken.collect())
}

fn not_taken(plan: &TakePlan) -> Error {
    Error::ChangedWhileRead {
        name: plan.machine.name.clone(),
        what: "it was left out".to_owned(),
    }
}

fn lock(host: &Host, plan: &TakePlan) -> Result<MachineLock> {
    let machine = &plan.machine;
    let lock = MachineLock::take(&host.state_folder, machine.id, &machine.name)?;
    recover::refuse_if_owed(host, machine.id)?;
    Ok(lock)
}

fn at_rest(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    set: Option<&str>,
    progress: &dyn Progress,
) -> Result<Taken> {
    if plan.tracker.is_at_work() {
        return tracked::at_rest(host, store, plan, set, progress);
    }
    let begun = Timestamp::now();
    let mut ingest = store.ingest(progress)?;
    let mut subject = Subject::at_rest(host, plan)?;
    let tracker = subject.track(host, store, plan.tracker.lists(None), progress);
    let files = subject.store_files(ingest.as_mut(), progress)?;
    subject.verify(host, &files)?;
    let manifest = subject.store_manifest(host, files, begun, set, ingest.as_mut())?;
    let (id, stats) = ingest.commit(&subject.label(host, begun, set))?;
    let tracking = tracker.map(|tracker| tracker.finish(id, &manifest.files, None));
    Ok(Taken {
        id,
        manifest,
        stats,
        tracking,
    })
}
