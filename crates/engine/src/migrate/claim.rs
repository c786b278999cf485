//! Which host took a machine over, written in the repository, where every host sees it.
//!
//! A claim is a snapshot of its own without a machine, as the retention policy is: the only thing that
//! can be added through every kind of storage. Its tags are `vrs-accepted=<id of the migration>`,
//! `vrs-machine=<id>` and `vrs-claim=<id>`; it holds one small file. It goes together with the snapshot that the machine moved into.
//!
//! Guarantees: of several hosts that accept one migration, at most one goes on without force, wherever a
//! listing shows what was written before it began. Each looks before it writes and again after that, and
//! gives up when it sees another's claim: two that meet may both have to try again. A host recognises a
//! claim of its own after an interruption. Not guaranteed: anything between a repository and a copy of
//! it.

use uuid::Uuid;
use vrs_progress::Progress;
use vrs_repository::store::{SnapshotLabel, SnapshotRecord, SnapshotStore};
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::tree_path;
use crate::records::{self, AcceptedMachine, ClaimedMachine};
use crate::snapshot::{ACCEPTED, CLAIM, MACHINE, Snapshot};

const FILE: &str = "vrs-accepted.json";

/// Fails if another host claims the migration.
pub(super) fn refuse_if_claimed(
    host: &Host,
    store: &dyn SnapshotStore,
    machine: MachineId,
    machine_name: &str,
    migration: &str,
) -> Result<()> {
    let own = own_claim(host, machine, migration)?;
    let (_, others) = claims(store, migration, own.as_deref())?;
    others
        .first()
        .map_or(Ok(()), |other| Err(taken_over(machine_name, other)))
}

/// Claims the migration for this host, before anything is done here. With `force` claims of others go.
pub(crate) fn claim(
    host: &Host,
    store: &dyn SnapshotStore,
    accepted: &AcceptedMachine,
    machine_name: &str,
    force: bool,
    progress: &dyn Progress,
) -> Result<()> {
    let AcceptedMachine {
        machine, migration, ..
    } = accepted;
    if !force {
        refuse_if_claimed(host, store, *machine, machine_name, migration)?;
    }
    let own = match own_claim(host, *machine, migration)? {
        Some(own) => own,
        None => remember(host, *machine, migration)?,
    };
    if claims(store, migration, Some(&own))?.0.is_empty() {
        progress.step("claim");
        write(host, store, accepted, &own, progress)?;
    }
    let (ours, others) = claims(store, migration, Some(&own))?;
    match others.first() {
        Some(other) if !force => {
            let error = taken_over(machine_name, other);
            delete(store, &ours, progress)?;
            Err(error)
        }
        _ => delete(store, &others, progress),
    }
}

/// Takes back what [`claim`] wrote, where nothing came of it.
pub(crate) fn withdraw(
    host: &Host,
    store: &dyn SnapshotStore,
    accepted: &AcceptedMachine,
    progress: &dyn Progress,
) -> Result<()> {
    let own = own_claim(host, accepted.machine, &accepted.migration)?;
    let (ours, _) = claims(store, &accepted.migration, own.as_deref())?;
    delete(store, &ours, progress)
}

/// Deletes snapshots, and then the claims on machines that had moved into them.
pub(crate) fn delete_snapshots<'a>(
    store: &dyn SnapshotStore,
    snapshots: impl Iterator<Item = &'a Snapshot>,
    progress: &dyn Progress,
) -> Result<()> {
    let snapshots: Vec<_> = snapshots.collect();
    let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
    store.delete(&ids, progress)?;
    let migrations = snapshots
        .iter()
        .filter_map(|snapshot| snapshot.migration.as_ref());
    for migration in migrations {
        let (_, claims) = claims(store, migration, None)?;
        delete(store, &claims, progress)?;
    }
    Ok(())
}

/// The id of this host's claim, written or about to be.
fn own_claim(host: &Host, machine: MachineId, migration: &str) -> Result<Option<String>> {
    let claimed = records::claimed(host).of_machine(machine)?;
    let claimed = claimed.filter(|claimed| claimed.migration == migration);
    Ok(claimed.map(|claimed| claimed.claim))
}

fn remember(host: &Host, machine: MachineId, migration: &str) -> Result<String> {
    let claim = Uuid::new_v4().to_string();
    let claimed = ClaimedMachine {
        machine,
        migration: migration.to_owned(),
        claim: claim.clone(),
    };
    records::claimed(host).write(machine, &claimed)?;
    Ok(claim)
}

/// This host's claims on a migration, and those of others.
fn claims(
    store: &dyn SnapshotStore,
    migration: &str,
    own: Option<&str>,
) -> Result<(Vec<SnapshotRecord>, Vec<SnapshotRecord>)> {
    let tag = format!("{ACCEPTED}{migration}");
    let own = own.map(|own| format!("{CLAIM}{own}"));
    let all = store.snapshots()?.snapshots.into_iter();
    let claims = all.filter(|record| record.tags.contains(&tag));
    Ok(claims.partition(|record| own.as_ref().is_some_and(|own| record.tags.contains(own))))
}

fn write(
    host: &Host,
    store: &dyn SnapshotStore,
    accepted: &AcceptedMachine,
    claim: &str,
    progress: &dyn Progress,
) -> Result<()> {
    let path = tree_path(FILE)?;
    let json = serde_json::to_vec_pretty(accepted)
        .map_err(|error| Error::io("write", FILE.as_ref(), error.into()))?;
    let mut ingest = store.ingest(progress)?;
    ingest.bytes(&path, &json)?;
    ingest.commit(&SnapshotLabel {
        time: accepted.at,
        hostname: host.name.clone(),
        tags: vec![
            format!("{ACCEPTED}{}", accepted.migration),
            format!("{MACHINE}{}", accepted.machine),
            format!("{CLAIM}{claim}"),
        ],
        description: Some("who took a machine over, see 'vrs migrate'".to_owned()),
    })?;
    Ok(())
}

fn delete(
    store: &dyn SnapshotStore,
    claims: &[SnapshotRecord],
    progress: &dyn Progress,
) -> Result<()> {
    if claims.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = claims.iter().map(|claim| claim.id).collect();
    progress.step("claim-delete");
    Ok(store.delete(&ids, progress)?)
}

fn taken_over(machine_name: &str, by: &SnapshotRecord) -> Error {
    Error::AcceptedAlready {
        name: machine_name.to_owned(),
        how: format!("{} did so at {:.0}", by.hostname, by.time),
    }
}
