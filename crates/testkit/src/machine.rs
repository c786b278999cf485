//! What a sample machine's settings file describes.

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A machine with its media and VirtualBox snapshots. Paths are written as in the settings file:
/// relative to the machine's folder, or absolute.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) folder: PathBuf,
    pub(crate) media: Vec<Medium>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) current_snapshot: Option<Uuid>,
    pub(crate) state: State,
}

/// An image.
#[derive(Debug, Clone)]
pub(crate) struct Medium {
    pub(crate) id: Uuid,
    pub(crate) parent: Option<Uuid>,
    pub(crate) location: String,
}

/// A VirtualBox snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) id: Uuid,
    pub(crate) parent: Option<Uuid>,
    pub(crate) name: String,
    pub(crate) state: State,
}

/// What differs between the current state and the VirtualBox snapshots.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The attached image of each port.
    pub(crate) attachments: Vec<Uuid>,
    pub(crate) saved: Option<String>,
    pub(crate) nvram: Option<String>,
}

impl Machine {
    pub(crate) fn medium(&self, id: Uuid) -> &Medium {
        self.media
            .iter()
            .find(|medium| medium.id == id)
            .expect("a medium of the machine")
    }

    pub(crate) fn snapshot(&self, id: Uuid) -> &Snapshot {
        self.snapshots
            .iter()
            .find(|snapshot| snapshot.id == id)
            .expect("a VirtualBox snapshot of the machine")
    }

    pub(crate) fn has_children(&self, medium: Uuid) -> bool {
        self.media.iter().any(|child| child.parent == Some(medium))
    }

    pub(crate) fn resolve(&self, location: &str) -> PathBuf {
        self.folder.join(location)
    }

    pub(crate) fn path(&self, medium: Uuid) -> PathBuf {
        self.resolve(&self.medium(medium).location)
    }

    /// The image and those below it, the base last.
    pub(crate) fn chain(&self, leaf: Uuid) -> Vec<Uuid> {
        std::iter::successors(Some(leaf), |id| self.medium(*id).parent).collect()
    }

    /// Every state that there is: of the VirtualBox snapshots and the current one.
    pub(crate) fn states_mut(&mut self) -> impl Iterator<Item = &mut State> {
        self.snapshots
            .iter_mut()
            .map(|snapshot| &mut snapshot.state)
            .chain([&mut self.state])
    }

    pub(crate) fn settings_path(&self) -> PathBuf {
        self.folder
            .join(format!("{}.vbox", folder_name(&self.name)))
    }
}

/// The folder that VirtualBox makes for a machine of this name.
pub(crate) fn folder_name(name: &str) -> String {
    let safe = |character: char| !character.is_control() && !"\"'$/\\<>{}:*?|".contains(character);
    let mut folder: String = name
        .chars()
        .map(|character| if safe(character) { character } else { '_' })
        .collect();
    if folder.starts_with(['-', ' ']) {
        folder.replace_range(..1, "_");
    }
    folder
}

/// `path` as VirtualBox writes it for a machine in `folder`.
pub(crate) fn location(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder)
        .unwrap_or(path)
        .to_str()
        .expect("a location is Unicode")
        .to_owned()
}
