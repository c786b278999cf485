//! A repair: decided, shown, written to the journal, carried out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_vdisk::VdiHead;
use vrs_virtualbox::{MachineId, MediumId};

use super::finding::Cure;

/// A repair, decided and not yet begun.
#[derive(Debug, Clone)]
pub struct RepairPlan {
    /// Everything that will be done.
    pub intent: RepairIntent,
    /// What the user should know before: above all what is not as it was.
    pub notes: Vec<String>,
    /// Set if it is carried out only when the user names it.
    pub consent: Option<Consent>,
    /// The new heads of images, saved before the first change.
    pub(super) heads: Vec<NewHead>,
}

/// Why a repair is not carried out along with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// What the user has to name.
    pub key: String,
    /// Why, in a clause.
    pub reason: String,
}

/// A head that is to be saved at a place.
#[derive(Debug, Clone)]
pub(super) struct NewHead {
    pub(super) place: PathBuf,
    pub(super) head: VdiHead,
}

/// Everything that carrying out a repair needs, also after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairIntent {
    /// The machine; nil for VirtualBox's media registry.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// The settings file; empty for VirtualBox's media registry.
    pub settings_file: PathBuf,
    /// Where missing pieces come from.
    pub source: Option<RepairSource>,
    /// What is done, in order. Each may have been done before.
    pub actions: Vec<RepairAction>,
    /// The folder that gets copies of what is changed.
    pub keep_in: PathBuf,
}

/// A snapshot that has the missing piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairSource {
    /// The repository's id.
    pub repository: String,
    /// Where the repository was, for people.
    pub repository_location: String,
    /// The snapshot's id.
    pub snapshot: String,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RepairAction {
    /// A missing file is fetched from the snapshot.
    Fetch {
        /// In the snapshot.
        path: String,
        /// On this host.
        target: PathBuf,
        /// What it must be.
        what: FetchedFile,
        /// Where a damaged file that is in its place goes.
        aside: Option<PathBuf>,
    },
    /// The header and the block map of an image are written anew.
    WriteHead {
        /// The image.
        image: PathBuf,
        /// Its length, which tells whether it is still what was examined.
        image_bytes: u64,
        /// The file with the new header and block map.
        head: PathBuf,
    },
    /// An image is given the parent that the media registry names.
    SetParent {
        /// The image.
        image: PathBuf,
        /// Its UUID.
        own: Uuid,
        /// Its parent's.
        parent: Uuid,
    },
    /// The settings file is replaced.
    PutSettings {
        /// Its new content.
        content: String,
        /// Where the content comes from, for people.
        origin: String,
        /// Whether VirtualBox knows the machine and has to read them.
        registered: bool,
    },
    /// A file that nothing names any more gets another name, under which it passes for nothing else.
    PutAside {
        /// The file.
        file: PathBuf,
        /// Where it goes.
        aside: PathBuf,
    },
    /// VirtualBox forgets the saved state of the machine.
    DiscardState {
        /// The file, if it is there and damaged, and where it goes.
        damaged: Option<(PathBuf, PathBuf)>,
    },
    /// An item is taken out of the machine's extra data.
    RemoveExtraData {
        /// Its key.
        key: String,
    },
    /// VirtualBox writes the settings that it has in memory.
    SaveSettings,
    /// VirtualBox forgets an image.
    CloseMedium {
        /// The image.
        medium: MediumId,
        /// Where it is or was.
        location: PathBuf,
        /// Where its file goes, if it is there: under its own name it would pass for a lost image.
        aside: Option<PathBuf>,
    },
}

/// What a fetched file is, which is checked before it is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FetchedFile {
    /// An image.
    Image(ImageIdentity),
    /// A saved state; all of it is checked.
    SavedState,
    /// Non-volatile memory, about which nothing can be told.
    Nvram,
}

/// What an image must say about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// Its id.
    pub id: MediumId,
    /// The image that it is a difference to.
    pub parent: Option<MediumId>,
}

impl RepairPlan {
    pub(super) const fn new(intent: RepairIntent) -> Self {
        Self {
            intent,
            notes: Vec::new(),
            consent: None,
            heads: Vec::new(),
        }
    }

    pub(super) fn with_source(mut self, source: RepairSource) -> Self {
        self.intent.source = Some(source);
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// `kind` is that of the problem, `id` that of the image or machine.
    pub(super) fn only_if_named(mut self, kind: &str, id: Uuid, reason: impl Into<String>) -> Self {
        self.consent = Some(Consent {
            key: format!("{kind}:{id}"),
            reason: reason.into(),
        });
        self
    }

    pub(super) fn into_cure(self) -> Cure {
        Cure::Repair(Box::new(self))
    }
}

impl RepairIntent {
    /// What the user would call it.
    #[must_use]
    pub fn title(&self) -> String {
        if self.is_about_registry() {
            "repairing VirtualBox's media registry".to_owned()
        } else {
            format!("repairing machine '{}'", self.machine_name)
        }
    }

    /// Whether it is about no machine.
    #[must_use]
    pub fn is_about_registry(&self) -> bool {
        self.machine.uuid().is_nil()
    }

    /// Where damaged files are put aside.
    pub(super) fn put_aside(&self) -> impl Iterator<Item = &Path> {
        self.actions.iter().filter_map(|action| match action {
            RepairAction::Fetch { aside, .. } | RepairAction::CloseMedium { aside, .. } => {
                aside.as_deref()
            }
            RepairAction::PutAside { aside, .. } => Some(aside.as_path()),
            RepairAction::DiscardState { damaged } => {
                damaged.as_ref().map(|(_, place)| place.as_path())
            }
            _ => None,
        })
    }

    /// Where the repository is that carrying it out needs.
    #[must_use]
    pub fn needed_repository(&self) -> Option<&str> {
        let fetches = |action: &RepairAction| matches!(action, RepairAction::Fetch { .. });
        let source = self.source.as_ref()?;
        self.actions
            .iter()
            .any(fetches)
            .then_some(&source.repository_location)
    }
}

/// A name beside a file for putting it aside, which no other file has.
pub(super) fn aside(file: &Path, what: &str) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ");
    let mut name = file.to_owned().into_os_string();
    name.push(format!(".{what}-{now}"));
    name.into()
}

impl RepairAction {
    /// What it does, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let shown = |path: &Path| path.display().to_string();
        match self {
            Self::Fetch { target, aside, .. } => {
                let replacing = aside
                    .as_ref()
                    .map_or("", |_| ", and put the damaged one aside");
                format!("fetch '{}' from the repository{replacing}", shown(target))
            }
            Self::WriteHead { image, .. } => {
                format!("write the header and block map of '{}'", shown(image))
            }
            Self::SetParent { image, parent, .. } => {
                format!("name {parent} as the parent in '{}'", shown(image))
            }
            Self::PutSettings { origin, .. } => format!("put back the settings: {origin}"),
            Self::PutAside { file, aside } => {
                format!("put '{}' aside as '{}'", shown(file), shown(aside))
            }
            Self::DiscardState { .. } => "discard the saved state".to_owned(),
            Self::RemoveExtraData { key } => format!("remove '{key}' from the extra data"),
            Self::SaveSettings => {
                "let VirtualBox, which has the settings in memory, write them".to_owned()
            }
            Self::CloseMedium {
                medium,
                location,
                aside: None,
            } => format!(
                "take image {medium}, '{}', out of the media registry",
                shown(location)
            ),
            Self::CloseMedium {
                medium,
                location,
                aside: Some(aside),
            } => format!(
                "take image {medium} out of the media registry and put its file '{}' aside as '{}'",
                shown(location),
                shown(aside)
            ),
        }
    }
}
