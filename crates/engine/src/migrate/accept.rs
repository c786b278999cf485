//! Taking a machine over that moved into the repository.

use vrs_progress::Progress;
use vrs_repository::store::SnapshotStore;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::records;
use crate::restore::{RestoreOptions, RestorePlan};
use crate::snapshot::Snapshot;

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
        refuse_if_accepted(host, snapshots, snapshot)?;
        let options = RestoreOptions {
            accept: true,
            ..options.clone()
        };
        Ok(Self {
            restore: RestorePlan::make(host, store, snapshot, &options, progress)?,
        })
    }
}

fn refuse_if_accepted(host: &Host, snapshots: &[Snapshot], snapshot: &Snapshot) -> Result<()> {
    let name = || snapshot.machine_name.clone();
    let Some(migration) = &snapshot.migration else {
        return Err(Error::Usage {
            message: format!(
                "snapshot {} is not one that a machine moved into; `vrs restore` and `vrs clone` are for others",
                snapshot.id.short()
            ),
        });
    };
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
    match here.filter(|here| here.migration == *migration) {
        Some(here) => Err(Error::AcceptedAlready {
            name: name(),
            how: format!("this computer did so at {}", here.at),
        }),
        None => Ok(()),
    }
}
