//! What the fake keeps of a registered machine: its settings as they were when it was registered and
//! as it changed them since, as VirtualBox does, and its state.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clock::Moment;
use super::document::{Document, Element};
use super::media::Medium;
use super::settings;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) os_type: String,
    pub(super) settings: PathBuf,
    /// The settings, which VirtualBox writes over whatever is in the file.
    pub(super) text: String,
    pub(super) groups: Vec<String>,
    pub(super) snapshot_folder: PathBuf,
    pub(super) snapshot_folder_location: String,
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
    pub(super) saved_state_location: Option<String>,
    /// Whether the guest stands still for good.
    pub(super) is_frozen: bool,
    /// Images that VirtualBox's service takes for attached until it is started anew.
    pub(super) strays: Vec<Uuid>,
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
    /// Its saved state and its nvram.
    pub(super) files: Vec<PathBuf>,
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

    /// Whether the service could not read it.
    pub(super) fn is_inaccessible(&self) -> bool {
        self.state == "inaccessible"
    }

    /// Puts it into a state, by the name that `VMState` has for it, and writes that down.
    pub(super) fn set_state(&mut self, state: &str) {
        self.put_into_state(state);
        self.note_state_change();
    }

    /// Puts it into a state that VirtualBox does not write down.
    pub(super) fn put_into_state(&mut self, state: &str) {
        let at_rest = [
            "poweroff",
            "saved",
            "aborted",
            "aborted-saved",
            "teleported",
            "inaccessible",
        ];
        let is_at_rest = at_rest.contains(&state);
        self.session = (!is_at_rest).then(|| "headless".to_owned());
        self.is_frozen &= !is_at_rest;
        state.clone_into(&mut self.state);
    }

    /// Writes down that the state changed just now.
    pub(super) fn note_state_change(&mut self) {
        let now = Moment::now();
        self.state_changed = now.in_status();
        let aborted = self.state.starts_with("aborted").then_some("true");
        self.change(|settings| {
            settings.set("lastStateChange", Some(&now.in_settings()));
            settings.set("aborted", aborted);
        });
    }

    /// Changes the settings and writes the file.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Element)) {
        let mut document = Document::parse(&self.text);
        change(document.machine());
        let text = document.render();
        let _ = fs::rename(&self.settings, self.settings.with_extension("vbox-prev"));
        fs::write(&self.settings, &text).expect("room for the settings file");
        let changed = settings::parse(&self.settings, &text).expect("settings just written");
        *self = Self {
            state: self.state.clone(),
            session: self.session.clone(),
            state_changed: self.state_changed.clone(),
            is_frozen: self.is_frozen,
            strays: self.strays.clone(),
            ..changed
        };
    }

    /// Whether it is on the way from one state to another.
    pub(super) fn is_in_transition(&self) -> bool {
        let state = self.state.as_str();
        state != "running" && (state.contains("snapshot") || state.ends_with("ing"))
    }

    /// The state's name in VirtualBox's own messages.
    pub(super) fn api_state(&self) -> String {
        let names = [
            ("poweroff", "PoweredOff"),
            ("livesnapshotting", "LiveSnapshotting"),
            ("onlinesnapshotting", "OnlineSnapshotting"),
            ("deletingsnapshotlive", "DeletingSnapshotOnline"),
        ];
        let known = names.iter().find(|(name, _)| *name == self.state);
        known.map_or_else(
            || self.state[..1].to_uppercase() + &self.state[1..],
            |(_, name)| (*name).to_owned(),
        )
    }

    /// Where a location in the settings leads.
    pub(super) fn resolve(&self, location: &str) -> PathBuf {
        self.folder().join(location)
    }

    pub(super) fn folder(&self) -> &Path {
        self.settings
            .parent()
            .expect("a settings file lies in a folder")
    }

    pub(super) fn nvram_path(&self) -> PathBuf {
        self.nvram
            .clone()
            .unwrap_or_else(|| self.settings.with_extension("nvram"))
    }

    /// The attached hard disks, in the order of controllers and ports.
    pub(super) fn hard_disks(&self) -> Vec<Uuid> {
        let attachments = self
            .controllers
            .iter()
            .flat_map(|controller| &controller.attachments);
        attachments
            .filter(|attachment| attachment.is_hard_disk)
            .filter_map(|attachment| attachment.image)
            .collect()
    }

    /// An image attached now that others stand on. VirtualBox reads no machine that has one.
    pub(super) fn image_with_children(&self) -> Option<&Medium> {
        let has_children = |id: &Uuid| self.media.iter().any(|child| child.parent == Some(*id));
        self.medium(self.hard_disks().into_iter().find(has_children)?)
    }

    /// The image and those that it stands on, as far as the machine's own registry has them.
    pub(super) fn chain(&self, leaf: Uuid) -> Vec<&Medium> {
        let parent = |medium: &&Medium| self.medium(medium.parent?);
        std::iter::successors(self.medium(leaf), parent).collect()
    }

    pub(super) fn takes_part_in_snapshots(&self, id: Uuid) -> bool {
        let outside = ["writethrough", "shareable", "readonly"];
        let base = self.chain(id).pop().map(|base| base.kind.clone());
        !outside.contains(&base.expect("an image of the machine").as_str())
    }

    /// The VirtualBox snapshot of this name or id.
    pub(super) fn snapshot(&self, name_or_id: &str) -> Option<&Snapshot> {
        let id: Option<Uuid> = name_or_id.parse().ok();
        let all = self.snapshots_with_position();
        let mut all = all.into_iter().map(|(_, snapshot)| snapshot);
        all.find(|snapshot| id.map_or(snapshot.name == name_or_id, |id| snapshot.id == id))
    }

    /// The VirtualBox snapshot that another was made from.
    pub(super) fn parent_of(&self, id: Uuid) -> Option<Uuid> {
        let all = self.snapshots_with_position();
        let mut all = all.into_iter().map(|(_, snapshot)| snapshot);
        all.find(|snapshot| snapshot.children.iter().any(|child| child.id == id))
            .map(|parent| parent.id)
    }

    /// Saved state and nvram of a VirtualBox snapshot.
    pub(super) fn files_of_snapshot(&self, id: Uuid) -> Vec<PathBuf> {
        let snapshot = self.snapshot(&id.to_string());
        snapshot.map_or_else(Vec::new, |snapshot| snapshot.files.clone())
    }

    /// The saved states and nvram files of the machine and its VirtualBox snapshots.
    pub(super) fn saved_states(&self) -> Vec<PathBuf> {
        let of_snapshots = self.snapshots_with_position();
        let of_snapshots = of_snapshots
            .into_iter()
            .flat_map(|(_, snapshot)| snapshot.files.clone());
        of_snapshots.chain(self.saved_state.clone()).collect()
    }
}
