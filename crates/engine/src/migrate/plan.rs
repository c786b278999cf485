//! What moving a machine away will do.

use std::collections::BTreeSet;

use uuid::Uuid;
use vrs_repository::store::SnapshotStore;
use vrs_virtualbox::MachineState;

use super::MigrateIntent;
use crate::capture::CaptureMode;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::restore::related_users;
use crate::take::{TakeOptions, TakePlan};

/// What the user says about the snapshot that a machine moves into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrateOptions {
    /// A name to find it by.
    pub name: Option<String>,
    /// A description.
    pub description: Option<String>,
}

/// A migration, decided and not yet begun.
#[derive(Debug, Clone)]
pub struct MigratePlan {
    /// The snapshot that will be taken. That of a machine that runs is planned anew once its state
    /// is saved.
    pub take: TakePlan,
    /// Everything that will be done.
    pub intent: MigrateIntent,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl MigratePlan {
    /// Decides how to move a machine away.
    pub fn make(
        host: &Host,
        store: &dyn SnapshotStore,
        machine: &Machine,
        options: MigrateOptions,
    ) -> Result<Self> {
        let migration = Uuid::new_v4().to_string();
        let options = TakeOptions {
            mode: Some(CaptureMode::SaveState),
            name: options.name,
            description: options.description,
            migration: Some(migration.clone()),
            ..TakeOptions::default()
        };
        let take = TakePlan::make(host, store, machine, options)?;
        refuse_if_others_use_its_images(host, machine, &take.inventory)?;
        let intent = intent(host, store, &take, migration)?;
        if intent.moved_file.exists() {
            return Err(Error::InTheWay {
                path: intent.moved_file,
                name: intent.machine_name,
            });
        }
        Ok(Self {
            notes: take.advice_for_moving().into_iter().collect(),
            take,
            intent,
        })
    }
}

fn intent(
    host: &Host,
    store: &dyn SnapshotStore,
    take: &TakePlan,
    migration: String,
) -> Result<MigrateIntent> {
    let machine = &take.machine;
    let was_online = take.capture.is_some();
    let session = if was_online {
        host.require_virtualbox()?.machine(machine.id)?.session
    } else {
        None
    };
    let mut moved_file = machine.settings_file.clone().into_os_string();
    moved_file.push(".moved");
    Ok(MigrateIntent {
        migration,
        repository: store.id().to_string(),
        repository_location: store.location(),
        machine: machine.id,
        machine_name: machine.name.clone(),
        settings_file: machine.settings_file.clone(),
        moved_file: moved_file.into(),
        was_online,
        was_paused: machine.state == MachineState::Paused,
        had_window: session.is_some_and(|session| session != "headless"),
    })
}

/// VirtualBox forgets the images together with the machine, and machines that depend on them would
/// be inaccessible.
fn refuse_if_others_use_its_images(
    host: &Host,
    machine: &Machine,
    inventory: &Inventory,
) -> Result<()> {
    let Some(virtualbox) = host.virtualbox() else {
        return Ok(());
    };
    let media = virtualbox.media()?;
    let own = inventory.settings.all_hard_disks();
    let users = own.flat_map(|disk| related_users(disk.id, &media));
    let others: BTreeSet<_> = users.filter(|user| *user != machine.id).collect();
    if others.is_empty() {
        return Ok(());
    }
    let name = |id| Ok(Machine::registered(host, id)?.map_or_else(|| id.to_string(), |of| of.name));
    Err(Error::OthersUse {
        name: machine.name.clone(),
        users: others.into_iter().map(name).collect::<Result<_>>()?,
    })
}
