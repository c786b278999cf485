//! Taking a machine over that moved into the repository.

use vrs_progress::Progress;
use vrs_repository::store::SnapshotStore;

use super::claim;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::records;
use crate::restore::{RestoreOptions, RestorePlan};
use crate::snapshot::Snapshot;

/// What `--force` takes to take a machine over that somebody took over already.
pub const FORCE_ACCEPTED: &str = "accepted";

/// A machine to take over, decided and not yet begun: a restore that makes this host remember it.
#[derive(Debug, Clone)]
pub struct AcceptPlan {
    /// What will be done. Carried out like every restore.
    pub restore: RestorePlan,
}

/// The migration that the machine is in: the last snapshot, if it is one.
#[must_use]
pub fn latest<'a>(of_machine: &[&'a Snapshot]) -> Option<&'a Snapshot> {
    let last = of_machine.last().copied();
    last.filter(|snapshot| snapshot.migration.is_some())
}

impl AcceptPlan {
    /// Decides how to take a machine over. `snapshots` are all of the repository, oldest first.
    pub fn make(
        host: &Host,
        store: &dyn SnapshotStore,
        snapshots: &[Snapshot],
        snapshot: &Snapshot,
        options: &RestoreOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (accepts, force): (Vec<_>, Vec<_>) = options
            .force
            .iter()
            .cloned()
            .partition(|name| name == FORCE_ACCEPTED);
        let is_forced = !accepts.is_empty();
        let migration = migration_of(snapshot)?;
        if !is_forced {
            refuse_if_accepted(host, store, snapshots, snapshot, migration)?;
        }
        let options = RestoreOptions {
            accept: true,
            accept_forced: is_forced,
            force,
            ..options.clone()
        };
        Ok(Self {
            restore: RestorePlan::make(host, store, snapshot, &options, progress)?,
        })
    }
}

fn migration_of(snapshot: &Snapshot) -> Result<&str> {
    snapshot.migration.as_deref().ok_or_else(|| Error::Usage {
        message: format!(
            "snapshot {} is not one that a machine moved into; `vrs restore` and `vrs clone` are for others",
            snapshot.id.short()
        ),
    })
}

fn refuse_if_accepted(
    host: &Host,
    store: &dyn SnapshotStore,
    snapshots: &[Snapshot],
    snapshot: &Snapshot,
    migration: &str,
) -> Result<()> {
    let name = || snapshot.machine_name.clone();
    let is_newer = |other: &&Snapshot| {
        other.machine == snapshot.machine && (other.time, other.id) > (snapshot.time, snapshot.id)
    };
    if let Some(newer) = snapshots.iter().rev().find(is_newer) {
        return Err(Error::AcceptedAlready {
            name: name(),
            how: format!(
                "snapshot {} was taken of it since, on {}",
                newer.id.short(),
                newer.hostname
            ),
        });
    }
    let here = records::accepted(host).of_machine(snapshot.machine)?;
    match here.filter(|here| here.migration == migration) {
        Some(here) => Err(Error::AcceptedAlready {
            name: name(),
            how: format!("this computer did so at {:.0}", here.at),
        }),
        None => claim::refuse_if_claimed(
            host,
            store,
            snapshot.machine,
            &snapshot.machine_name,
            migration,
        ),
    }
}
