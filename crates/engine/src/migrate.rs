//! Moving a machine to another host, and back.
//!
//! On its first host the machine's state is saved, a snapshot is taken and compared with what lies on
//! the disk, and the machine is marked as moved: VirtualBox forgets it, and its settings file lies
//! beside under a name that VirtualBox does not open. The other host [accepts](AcceptPlan) the
//! snapshot: a restore that remembers it. The way back is the same; what still lies on the first host
//! need not be fetched again.
//!
//! Guarantees: from the moment on at which another host can see the snapshot the machine does not
//! start here unnoticed, unless somebody does so with VirtualBox between two steps of an interrupted
//! migration; then it stays, and that is said. Before that moment an interrupted migration leaves the
//! machine as it was; from then on it is finished. No host accepts a migration twice, or one that another
//! host claimed in the repository (see `claim`), or one after which it sees a newer snapshot of the
//! machine, unless it is forced.

mod accept;
mod claim;
mod plan;
mod returning;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vrs_progress::Progress;
use vrs_repository::store::{RestoreFile, RestoreRequest, SnapshotStore};
use vrs_virtualbox::MachineId;

pub use self::accept::{AcceptPlan, FORCE_ACCEPTED, latest};
pub(crate) use self::claim::{claim, delete_snapshots, withdraw};
pub use self::plan::{MigrateOptions, MigratePlan};
pub use self::returning::accepted_here;
pub(crate) use self::returning::{Ended, finish};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::journal::{Intent, Journal, Step};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::manifest::{FileRole, tree_path};
use crate::records::{self, MovedMachine};
use crate::snapshot::Snapshot;
use crate::take::{self, TakePlan, Taken};
use crate::{catalog, platform, preflight, recover, tracking};

/// A migration that is going to be made, with all that finishing or dropping it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateIntent {
    /// Id of the migration, by which its snapshot is found.
    pub migration: String,
    /// The repository's id.
    pub repository: String,
    /// Where the repository was, for people.
    pub repository_location: String,
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// Its settings file.
    pub settings_file: PathBuf,
    /// Where that is put.
    pub moved_file: PathBuf,
    /// Whether the machine was running or paused, so that its state is saved first.
    pub was_online: bool,
    /// Whether it was paused.
    pub was_paused: bool,
    /// Whether it had a window.
    pub had_window: bool,
}

impl MigrateIntent {
    /// What the user would call it.
    #[must_use]
    pub fn title(&self) -> String {
        format!("moving machine '{}'", self.machine_name)
    }
}

/// A machine that moved.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// Its snapshot.
    pub taken: Taken,
    /// What this host remembers.
    pub moved: MovedMachine,
}

/// The machines that moved away from this host.
pub fn moved_machines(host: &Host) -> Result<Vec<MovedMachine>> {
    records::moved(host).all()
}

/// Carries a plan out.
pub fn execute(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &MigratePlan,
    progress: &dyn Progress,
) -> Result<Migrated> {
    let intent = &plan.intent;
    let _lock = MachineLock::take(&host.state_folder, intent.machine, &intent.machine_name)?;
    recover::refuse_if_owed(host, intent.machine)?;
    preflight::refuse_or_warn(&plan.take.machine, &plan.take.verdicts, progress)?;
    tracking::delete_trackers(host, store, &plan.take.machine, progress)?;
    let begun = Intent::Migrate(intent.clone());
    let mut journal = host.journals().begin(intent.machine, begun, progress)?;
    let done = store_machine(host, store, plan, &mut journal, progress).and_then(|taken| {
        let snapshot = find(store, intent)?.ok_or_else(|| not_seen(intent))?;
        let moved = mark(host, store, intent, &snapshot, &mut journal, progress)?;
        Ok(Migrated { taken, moved })
    });
    match done {
        Ok(migrated) => {
            journal.finish(progress)?;
            Ok(migrated)
        }
        Err(error) => {
            // What went wrong first is what the user has to know.
            let _ = match error {
                Error::LivesOn { .. } => returning::stay(host, intent, journal, progress),
                _ => returning::drop_if_unseen(host, store, intent, journal, progress),
            };
            Err(error)
        }
    }
}

fn store_machine(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &MigratePlan,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<Taken> {
    let planned = &plan.take;
    let machine = &planned.machine;
    machine.verify_unchanged(host)?;
    if plan.intent.was_online {
        journal.record(Step::SaveState, progress)?;
        progress.step("save-state");
        host.require_virtualbox()?
            .save_state(machine.id, progress)?;
    }
    let options = planned.options.clone();
    let take = TakePlan::make(host, store, &machine.again(host)?, options)?;
    let taken = take::execute_held(host, store, &take, progress)?;
    if let Err(error) = verify(store, &taken, progress) {
        progress.step("snapshot-delete");
        store.delete(&[taken.id], progress)?;
        return Err(error);
    }
    Ok(taken)
}

/// Compares what was stored with what lies on the disk, all of it.
fn verify(store: &dyn SnapshotStore, taken: &Taken, progress: &dyn Progress) -> Result<()> {
    let is_kept = |role| !matches!(role, FileRole::Settings | FileRole::PreviousSettings);
    let files = taken
        .manifest
        .files
        .iter()
        .filter(|file| is_kept(file.role));
    let files = files.map(|file| {
        Ok(RestoreFile {
            path: tree_path(&file.path)?,
            target: file.original.clone(),
            local_chunking: None,
            known: None,
        })
    });
    let request = RestoreRequest {
        snapshot: taken.id,
        files: files.collect::<Result<_>>()?,
        seeds: Vec::new(),
    };
    let stats = store.plan_restore(&request, progress)?;
    if stats.fetched_bytes == 0 {
        return Ok(());
    }
    Err(Error::ChangedWhileRead {
        name: taken.manifest.machine.name.clone(),
        what: format!("{} bytes differ from what was stored", stats.fetched_bytes),
    })
}

/// The snapshot of a migration, once it can be seen.
fn find(store: &dyn SnapshotStore, intent: &MigrateIntent) -> Result<Option<Snapshot>> {
    let snapshots = catalog::snapshots(store)?.snapshots.into_iter();
    let is_ours = |snapshot: &Snapshot| snapshot.migration.as_ref() == Some(&intent.migration);
    let mut ours = snapshots.filter(is_ours);
    Ok(ours.next())
}

fn not_seen(intent: &MigrateIntent) -> Error {
    Error::SnapshotNotFound {
        wanted: intent.machine_name.clone(),
        reason: "it was taken and is not in the repository's list".to_owned(),
    }
}

/// Makes the machine unable to start here. Every step may have been made before.
fn mark(
    host: &Host,
    store: &dyn SnapshotStore,
    intent: &MigrateIntent,
    snapshot: &Snapshot,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<MovedMachine> {
    let registered = Machine::registered(host, intent.machine)?;
    let marked = records::moved(host).of_machine(intent.machine)?;
    let is_marked = marked.is_some_and(|marked| marked.migration == intent.migration);
    refuse_if_it_lives_on(store, intent, snapshot, registered.as_ref(), is_marked)?;
    let moved = MovedMachine {
        machine: intent.machine,
        machine_name: intent.machine_name.clone(),
        migration: intent.migration.clone(),
        snapshot: snapshot.id.to_string(),
        repository_location: intent.repository_location.clone(),
        at: Timestamp::now(),
        settings_file: intent.settings_file.clone(),
        moved_file: intent.moved_file.clone(),
    };
    journal.record(Step::MarkMoved, progress)?;
    progress.step("moved-mark");
    records::moved(host).write(intent.machine, &moved)?;
    records::accepted(host).remove(intent.machine)?;
    if registered.is_some() {
        journal.record(Step::Unregister, progress)?;
        progress.step("unregister");
        host.require_virtualbox()?
            .unregister(intent.machine, progress)?;
    }
    if intent.settings_file.exists() {
        journal.record(Step::SetAside, progress)?;
        progress.step("settings-set-aside");
        rename(&intent.settings_file, &intent.moved_file)?;
    }
    Ok(moved)
}

/// Somebody may have started the machine after its snapshot was taken.
fn refuse_if_it_lives_on(
    store: &dyn SnapshotStore,
    intent: &MigrateIntent,
    snapshot: &Snapshot,
    registered: Option<&Machine>,
    is_marked: bool,
) -> Result<()> {
    if !intent.settings_file.exists() || (is_marked && registered.is_none()) {
        return Ok(());
    }
    let manifest = catalog::manifest(store, &snapshot.id)?;
    let stored = manifest.original_settings.as_ref();
    let stored = stored.unwrap_or(&manifest.settings);
    let stored = catalog::settings_text(store, &snapshot.id, stored)?;
    let now = std::fs::read_to_string(&intent.settings_file)
        .map_err(|error| Error::io("read", &intent.settings_file, error))?;
    if now == stored && registered.is_none_or(|machine| machine.state.is_at_rest()) {
        return Ok(());
    }
    Err(Error::LivesOn {
        name: intent.machine_name.clone(),
        snapshot: snapshot.id.short(),
    })
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| Error::io("rename", from, error))?;
    from.parent().map_or(Ok(()), platform::sync_folder)
}
