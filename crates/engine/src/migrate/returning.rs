//! What becomes of a migration that was interrupted, and of a machine that came from elsewhere.

use std::time::Duration;

use vrs_progress::Progress;
use vrs_repository::store::SnapshotStore;
use vrs_virtualbox::{Frontend, MachineState};

use super::{MigrateIntent, find, mark};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::{Journal, Step};
use crate::machine::Machine;
use crate::records::{self, AcceptedMachine};

/// How long VirtualBox may be on the way from one state to another.
const PATIENCE: Duration = Duration::from_secs(600);

/// How an interrupted migration ended.
pub(crate) enum Ended {
    /// The machine moved.
    Moved,
    /// The machine is as it was before.
    Released,
}

/// Where a machine came from that this host took over, if it did.
pub fn accepted_here(host: &Host, machine: &Machine) -> Result<Option<AcceptedMachine>> {
    records::accepted(host).of_machine(machine.id)
}

/// Ends what an earlier run began; the caller holds the machine's lock. With a snapshot to be seen the
/// machine is marked as moved, without one it goes on as before.
pub(crate) fn finish(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &MigrateIntent,
    furthest_step: Option<Step>,
    mut journal: Journal,
    progress: &dyn Progress,
) -> Result<Ended> {
    let Some(snapshot) = find(store, intent)? else {
        go_on(host, intent, furthest_step, &mut journal, progress)?;
        journal.finish(progress)?;
        return Ok(Ended::Released);
    };
    match mark(host, store, intent, &snapshot, &mut journal, progress) {
        Ok(_) => {
            journal.finish(progress)?;
            Ok(Ended::Moved)
        }
        Err(error @ Error::LivesOn { .. }) => {
            progress.warn(&error.to_string());
            stay(host, intent, journal, progress)?;
            Ok(Ended::Released)
        }
        Err(error) => Err(error),
    }
}

/// The machine lives on here.
pub(super) fn stay(
    host: &Host,
    intent: &MigrateIntent,
    journal: Journal,
    progress: &dyn Progress,
) -> Result<()> {
    progress.step("moved-unmark");
    records::moved(host).remove(intent.machine)?;
    journal.finish(progress)
}

/// Drops a migration that failed before another host could see it; else it stays owed.
pub(super) fn drop_if_unseen(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &MigrateIntent,
    mut journal: Journal,
    progress: &dyn Progress,
) -> Result<()> {
    if find(store, intent)?.is_some() {
        return Ok(());
    }
    let unfinished = host.journals().of_machine(intent.machine)?;
    let furthest_step = unfinished.and_then(|journal| journal.furthest_step);
    go_on(host, intent, furthest_step, &mut journal, progress)?;
    journal.finish(progress)
}

/// A machine whose state was saved for the migration runs again.
fn go_on(
    host: &Host,
    intent: &MigrateIntent,
    furthest_step: Option<Step>,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<()> {
    let is_ours = intent.was_online && furthest_step >= Some(Step::SaveState);
    if !is_ours || Machine::registered(host, intent.machine)?.is_none() {
        return Ok(());
    }
    let virtualbox = host.require_virtualbox()?;
    let machine = intent.machine;
    if virtualbox
        .settled_machine(machine, PATIENCE, progress)?
        .state
        != MachineState::Saved
    {
        return Ok(());
    }
    journal.record(Step::Start, progress)?;
    progress.step("start");
    let frontend = if intent.had_window {
        Frontend::Gui
    } else {
        Frontend::Headless
    };
    virtualbox.start(machine, frontend, progress)?;
    if intent.was_paused {
        progress.step("pause");
        virtualbox.pause(machine, progress)?;
    }
    Ok(())
}
