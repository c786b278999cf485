//! What the fake keeps of a registered machine: its settings as they were when it was registered,
//! as VirtualBox does, and its state.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::media::Medium;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) os_type: String,
    pub(super) settings: PathBuf,
    pub(super) snapshot_folder: PathBuf,
    pub(super) description: Option<String>,
    pub(super) memory_megabytes: u32,
    pub(super) video_megabytes: u32,
    pub(super) efi: bool,
    pub(super) audio: String,
    /// MAC addresses of the enabled adapters, by slot.
    pub(super) adapters: BTreeMap<u32, String>,
    /// Where it is said to be, if not at the usual place.
    pub(super) nvram: Option<PathBuf>,
    pub(super) controllers: Vec<Controller>,
    pub(super) media: Vec<Medium>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) current_snapshot: Option<Uuid>,
    /// As `VMState` has it.
    pub(super) state: String,
    pub(super) session: Option<String>,
    pub(super) state_changed: String,
    pub(super) saved_state: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Controller {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) ports: u32,
    pub(super) attachments: Vec<Attachment>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) port: u32,
    pub(super) device: u32,
    pub(super) is_hard_disk: bool,
    pub(super) image: Option<Uuid>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) images: Vec<Uuid>,
    pub(super) children: Vec<Self>,
}

impl Controller {
    pub(super) fn images(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.attachments
            .iter()
            .filter_map(|attachment| attachment.image)
    }
}

impl Machine {
    /// The images attached now.
    pub(super) fn images(&self) -> Vec<Uuid> {
        self.controllers
            .iter()
            .flat_map(Controller::images)
            .collect()
    }

    pub(super) fn medium(&self, id: Uuid) -> Option<&Medium> {
        self.media.iter().find(|medium| medium.id == id)
    }

    /// All VirtualBox snapshots with their position in the tree, as in the suffix "-1-2" of a key.
    pub(super) fn snapshots_with_position(&self) -> Vec<(String, &Snapshot)> {
        fn collect<'a>(
            position: &str,
            node: &'a Snapshot,
            found: &mut Vec<(String, &'a Snapshot)>,
        ) {
            found.push((position.to_owned(), node));
            for (number, child) in (1..).zip(&node.children) {
                collect(&format!("{position}-{number}"), child, found);
            }
        }
        let mut found = Vec::new();
        self.snapshots
            .iter()
            .for_each(|root| collect("", root, &mut found));
        found
    }

    pub(super) fn is_running(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn set_state(&mut self, state: &str) {
        let at_rest = [
            "poweroff",
            "saved",
            "aborted",
            "aborted-saved",
            "teleported",
            "inaccessible",
        ];
        self.session = (!at_rest.contains(&state)).then(|| "headless".to_owned());
        state.clone_into(&mut self.state);
    }
}
