//! Finishing what an earlier run began.
//!
//! Guarantees: an operation that is owed is finished with the intent it wrote, never with a new
//! one. A machine that was registered already is not touched again: its owner may have started it.

use vrs_progress::Progress;
use vrs_repository::store::{RestoreStats, SnapshotStore};
use vrs_virtualbox::MachineId;

use crate::capture::Capture;
use crate::doctor::{self, RepairIntent};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::{Intent, Journal, Step, Unfinished};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::migrate::{self, MigrateIntent};
use crate::restore::{self, Former, RestoreIntent};

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
    /// A machine that was captured or about to move was let go: it is as it was before.
    Released,
    /// A machine that was about to move did so.
    Moved,
}

/// Finishes one operation, or drops it if it had changed nothing. `store` must be the repository
/// that it used.
pub fn finish(
    host: &Host,
    store: &dyn SnapshotStore,
    unfinished: &Unfinished,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let intent = match &unfinished.intent {
        Intent::Restore(intent) => intent,
        Intent::Migrate(intent) => {
            return finish_migration(host, store, unfinished, intent, progress);
        }
        Intent::Repair(intent) => {
            return finish_repair(host, Some(store), intent, unfinished, progress);
        }
        Intent::Capture(_) => return finish_without_repository(host, unfinished, progress),
    };
    let _lock = MachineLock::take(&host.state_folder, unfinished.machine, &intent.machine_name)?;
    let location = &intent.repository_location;
    refuse_another_repository(store, unfinished, &intent.repository, location)?;
    let mut journal = host.journals().resume(unfinished.machine)?;
    let outcome = match progress_of(host, intent, unfinished.furthest_step)? {
        Reached::Nothing => {
            withdraw_claim(host, store, intent, progress)?;
            Recovered::Dropped
        }
        Reached::Something => Recovered::Finished(restore::carry_out(
            host,
            store,
            intent,
            &Former::default(),
            &mut journal,
            progress,
        )?),
        Reached::Everything => Recovered::Finished(RestoreStats::default()),
    };
    journal.finish(progress)?;
    Ok(outcome)
}

fn finish_migration(
    host: &Host,
    store: &dyn SnapshotStore,
    unfinished: &Unfinished,
    intent: &MigrateIntent,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let _lock = MachineLock::take(&host.state_folder, unfinished.machine, &intent.machine_name)?;
    let location = &intent.repository_location;
    refuse_another_repository(store, unfinished, &intent.repository, location)?;
    let journal = host.journals().resume(unfinished.machine)?;
    let furthest_step = unfinished.furthest_step;
    let ended = migrate::finish(host, store, intent, furthest_step, journal, progress)?;
    Ok(match ended {
        migrate::Ended::Moved => Recovered::Moved,
        migrate::Ended::Released => Recovered::Released,
    })
}

fn refuse_another_repository(
    store: &dyn SnapshotStore,
    unfinished: &Unfinished,
    repository: &str,
    location: &str,
) -> Result<()> {
    if repository == store.id().to_string() {
        return Ok(());
    }
    Err(Error::OtherRepository {
        title: unfinished.intent.title(),
        wanted: location.to_owned(),
    })
}

/// Finishes an operation that needs no repository: a capture is let go, a repair is carried out.
pub fn finish_without_repository(
    host: &Host,
    unfinished: &Unfinished,
    progress: &dyn Progress,
) -> Result<Recovered> {
    match &unfinished.intent {
        Intent::Restore(_) | Intent::Migrate(_) => Err(Error::NeedsRecovery {
            title: unfinished.intent.title(),
        }),
        Intent::Repair(intent) => finish_repair(host, None, intent, unfinished, progress),
        Intent::Capture(_) => {
            release(host, unfinished, progress)?;
            Ok(Recovered::Released)
        }
    }
}

fn finish_repair(
    host: &Host,
    store: Option<&dyn SnapshotStore>,
    intent: &RepairIntent,
    unfinished: &Unfinished,
    progress: &dyn Progress,
) -> Result<Recovered> {
    let _lock = MachineLock::take(&host.state_folder, unfinished.machine, &intent.title())?;
    let mut journal = host.journals().resume(unfinished.machine)?;
    let outcome = if unfinished.furthest_step.is_none() {
        Recovered::Dropped
    } else {
        doctor::carry_out(host, store, intent, &mut journal, progress)?;
        Recovered::Finished(RestoreStats::default())
    };
    journal.finish(progress)?;
    Ok(outcome)
}

/// Drops the journal of a repair that failed before its first change; the caller holds the lock.
pub(crate) fn drop_if_not_begun(
    host: &Host,
    machine: MachineId,
    journal: Journal,
    progress: &dyn Progress,
) -> Result<()> {
    match host.journals().of_machine(machine)? {
        Some(unfinished) if unfinished.furthest_step.is_none() => journal.finish(progress),
        _ => Ok(()),
    }
}

/// Lets a machine go that an earlier run captured. Needs no repository: what was not stored by then is
/// taken anew.
pub fn release(host: &Host, unfinished: &Unfinished, progress: &dyn Progress) -> Result<()> {
    let _lock = MachineLock::take(
        &host.state_folder,
        unfinished.machine,
        &unfinished.intent.title(),
    )?;
    release_captured(host, unfinished.machine, progress)
}

/// Lets a machine go that is about to be taken, if an earlier run captured it and ended. Says whether
/// that was so.
pub fn release_before_take(
    host: &Host,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<bool> {
    let owed = host.journals().of_machine(machine.id)?;
    let Some(captured) = owed.filter(|owed| matches!(owed.intent, Intent::Capture(_))) else {
        return Ok(false);
    };
    release(host, &captured, progress)?;
    Ok(true)
}

/// Lets the machine go, if an earlier run captured it; the caller holds the machine's lock.
fn release_captured(host: &Host, machine: MachineId, progress: &dyn Progress) -> Result<()> {
    let Some(unfinished) = host.journals().of_machine(machine)? else {
        return Ok(());
    };
    let Intent::Capture(intent) = &unfinished.intent else {
        return Ok(());
    };
    let mut capture = Capture::take_up(host, intent.clone(), &unfinished, progress)?;
    capture.thaw(host)?;
    capture.finish()
}

/// Drops the journal of an operation that failed before it had changed anything; the caller holds
/// the machine's lock. Where that cannot be told, it stays owed.
pub(crate) fn drop_if_unchanged(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    journal: Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(unfinished) = host.journals().of_machine(intent.machine)? else {
        return Ok(());
    };
    match progress_of(host, intent, unfinished.furthest_step)? {
        Reached::Nothing => {
            withdraw_claim(host, store, intent, progress)?;
            journal.finish(progress)
        }
        Reached::Something | Reached::Everything => Ok(()),
    }
}

/// Others may accept the migration that this host did not.
fn withdraw_claim(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &RestoreIntent,
    progress: &dyn Progress,
) -> Result<()> {
    let accepted = intent.accepts.as_ref();
    accepted.map_or(Ok(()), |accepted| {
        migrate::withdraw(host, store, accepted, progress)
    })
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
