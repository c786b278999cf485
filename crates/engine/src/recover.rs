//! Finishing what an earlier run began.
//!
//! Guarantees: an operation that is owed is finished with the intent it wrote, never with a new
//! one. A machine that was registered already is not touched again: its owner may have started it.

use vrs_progress::Progress;
use vrs_repository::store::{RestoreStats, SnapshotStore};
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::{Intent, Journal, Step, Unfinished};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::restore::{self, RestoreIntent};

/// Everything that is owed on this host, oldest first. Operations of a vrs that is running now are
/// not owed.
pub fn owed(host: &Host) -> Result<Vec<Unfinished>> {
    let unfinished = host.journals().unfinished()?;
    let is_dead = |journal: &Unfinished| {
        let lock = MachineLock::take(&host.state_folder, journal.machine, &journal.intent.title());
        !matches!(lock, Err(Error::MachineBusy { .. }))
    };
    Ok(unfinished.into_iter().filter(is_dead).collect())
}

/// Refuses to begin anything with a machine to which something is owed. The caller holds its lock.
pub(crate) fn refuse_if_owed(host: &Host, machine: MachineId) -> Result<()> {
    match host.journals().of_machine(machine)? {
        Some(unfinished) => Err(Error::NeedsRecovery {
            title: unfinished.intent.title(),
        }),
        None => Ok(()),
    }
}

/// How an owed operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It was carried out to the end.
    Finished(RestoreStats),
    /// It had changed nothing yet, and was dropped.
    Dropped,
}

/// Finishes one operation, or drops it if it had changed nothing. `store` must be the repository
/// that it used.
pub fn finish(
    host: &Host,
    store: &dyn SnapshotStore,
    unfinished: &Unfinished,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let Intent::Restore(intent) = &unfinished.intent;
    let _lock = MachineLock::take(&host.state_folder, unfinished.machine, &intent.machine_name)?;
    if intent.repository != store.id().to_string() {
        return Err(Error::OtherRepository {
            title: unfinished.intent.title(),
            wanted: intent.repository_location.clone(),
        });
    }
    let mut journal = host.journals().resume(unfinished.machine)?;
    let outcome = match progress_of(host, intent, unfinished.furthest_step)? {
        Reached::Nothing => Recovered::Dropped,
        Reached::Something => Recovered::Finished(restore::carry_out(
            host,
            store,
            intent,
            &mut journal,
            progress,
        )?),
        Reached::Everything => Recovered::Finished(RestoreStats::default()),
    };
    journal.finish(progress)?;
    Ok(outcome)
}

/// Drops the journal of an operation that failed before it had changed anything; the caller holds
/// the machine's lock. Where that cannot be told, it stays owed.
pub(crate) fn drop_if_unchanged(
    host: &Host,
    intent: &RestoreIntent,
    journal: Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(unfinished) = host.journals().of_machine(intent.machine)? else {
        return Ok(());
    };
    match progress_of(host, intent, unfinished.furthest_step)? {
        Reached::Nothing => journal.finish(progress),
        Reached::Something | Reached::Everything => Ok(()),
    }
}

enum Reached {
    Nothing,
    Something,
    Everything,
}

/// How far the real state says that an operation came.
fn progress_of(
    host: &Host,
    intent: &RestoreIntent,
    furthest_step: Option<Step>,
) -> Result<Reached> {
    let registered = Machine::registered(host, intent.machine)?;
    let is_usable = registered.is_some_and(|machine| !machine.state.is_inaccessible());
    Ok(match furthest_step {
        None | Some(Step::PowerOff) => Reached::Nothing,
        Some(Step::Unregister) if is_usable => Reached::Nothing,
        Some(Step::Register) if is_usable => Reached::Everything,
        Some(_) => Reached::Something,
    })
}
