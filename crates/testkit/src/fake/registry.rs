//! The machines and media that the fake knows, shared by all its processes through a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer::{Failure, OBJECT_NOT_FOUND, VIRTUALBOX};
use super::machine::Machine;
use super::media::Medium;

const REGISTRY: &str = "registry.json";

/// Everything that VirtualBox would hold in memory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Registry {
    pub(super) machines: Vec<Machine>,
    /// The fake's folder.
    #[serde(skip)]
    pub(super) home: PathBuf,
    /// Media that were opened without a machine.
    pub(super) opened: Vec<Medium>,
}

/// Keeps other processes out until dropped.
pub(super) fn lock(home: &Path) -> File {
    let file = File::create(home.join("lock")).expect("the lock file");
    file.lock().expect("the lock");
    file
}

impl Registry {
    /// Reads the registry, lets `change` change it and stores it.
    pub(super) fn change<T>(home: &Path, change: impl FnOnce(&mut Self) -> T) -> T {
        let _lock = lock(home);
        let path = home.join(REGISTRY);
        let mut registry = fs::read(&path).map_or_else(
            |_| Self::default(),
            |text| serde_json::from_slice(&text).expect("the registry as stored"),
        );
        home.clone_into(&mut registry.home);
        let result = change(&mut registry);
        fs::write(path, serde_json::to_vec(&registry).expect("JSON"))
            .expect("room for the registry");
        result
    }

    /// The machine that a name or UUID stands for.
    pub(super) fn find(&mut self, name_or_id: &str) -> Result<&mut Machine, Failure> {
        let id: Option<Uuid> = name_or_id.parse().ok();
        let text = id.map_or_else(
            || format!("Could not find a registered machine named '{name_or_id}'"),
            |id| format!("Could not find a registered machine with UUID {{{id}}}"),
        );
        let matches =
            |machine: &&mut Machine| id.map_or(machine.name == name_or_id, |id| machine.id == id);
        let found = self.machines.iter_mut().find(matches);
        found.ok_or(Failure {
            text,
            code: OBJECT_NOT_FOUND,
            component: VIRTUALBOX,
        })
    }

    pub(super) fn is_inaccessible(&mut self, name_or_id: &str) -> bool {
        let found = self.find(name_or_id);
        found.is_ok_and(|machine| machine.is_inaccessible())
    }

    /// What a new service makes of the files.
    pub(super) fn read_anew(&mut self) {
        for machine in &mut self.machines {
            machine.strays.clear();
            if machine.image_with_children().is_some() {
                machine.put_into_state("inaccessible");
            }
        }
    }

    pub(super) fn by_id_mut(&mut self, id: Uuid) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.id == id)
    }

    /// All media, machine by machine; those of machines that cannot be read are not known.
    pub(super) fn media(&self) -> impl Iterator<Item = &Medium> {
        self.machines
            .iter()
            .filter(|machine| !machine.is_inaccessible())
            .flat_map(|machine| &machine.media)
            .chain(&self.opened)
    }

    pub(super) fn children_of(&self, id: Uuid) -> Vec<Uuid> {
        self.media()
            .filter(|medium| medium.parent == Some(id))
            .map(|medium| medium.id)
            .collect()
    }
}
