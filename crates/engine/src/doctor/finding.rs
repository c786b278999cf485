//! What doctor finds, and what can be done about it.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_virtualbox::{MachineId, MediumId};

use super::repair::RepairPlan;

/// Something that is wrong with a machine or with VirtualBox's media registry.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The machine; none if it is about VirtualBox's media registry alone.
    pub machine: Option<FoundMachine>,
    /// What is wrong.
    pub problem: Problem,
    /// What can be done about it.
    pub cure: Cure,
}

/// The machine that something is wrong with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMachine {
    /// Its id.
    pub id: MachineId,
    /// Its name, as far as it is known.
    pub name: String,
}

/// What can be done about a finding.
#[derive(Debug, Clone)]
pub enum Cure {
    /// Doctor can do it.
    Repair(Box<RepairPlan>),
    /// Only the user can: what, in a sentence without a full stop.
    Advice(String),
}

impl Finding {
    /// The repair, where doctor can do it.
    #[must_use]
    pub fn plan(&self) -> Option<&RepairPlan> {
        match &self.cure {
            Cure::Repair(plan) => Some(plan),
            Cure::Advice(_) => None,
        }
    }

    /// Whether both are about the same trouble, maybe at different times.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.machine.as_ref().map(|machine| machine.id)
            == other.machine.as_ref().map(|machine| machine.id)
            && self.problem.kind() == other.problem.kind()
            && self.problem.subject() == other.problem.subject()
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The settings file is gone, empty, cut short or garbage.
    SettingsUnreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings do not name images that are based on those that they name.
    SettingsLostSnapshots {
        /// The settings file.
        file: PathBuf,
        /// The images that they should name.
        images: Vec<PathBuf>,
    },
    /// VirtualBox does not open the machine, and its settings do not tell why.
    MachineInaccessible {
        /// The settings file.
        file: PathBuf,
    },
    /// The settings name images that nothing uses on one that the machine writes to.
    ImagesLeftOver {
        /// Where they are.
        images: Vec<PathBuf>,
    },
    /// The machine uses an image that no media registry knows.
    MediumUnknown {
        /// The image.
        medium: MediumId,
    },
    /// The file of an image is gone.
    ImageMissing {
        /// The image.
        medium: MediumId,
        /// Where it should be.
        location: PathBuf,
    },
    /// The header or the block map of an image is damaged.
    ImageDamaged {
        /// The image.
        medium: MediumId,
        /// Where it is.
        location: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Another image lies where an image should be.
    ImageReplaced {
        /// The image.
        medium: MediumId,
        /// Where it should be.
        location: PathBuf,
        /// The UUID of what is there.
        found: Uuid,
    },
    /// An image names another parent than the media registry does.
    ParentMismatch {
        /// The image.
        medium: MediumId,
        /// Where it is.
        location: PathBuf,
        /// The parent that its header names.
        recorded: Option<Uuid>,
        /// The parent that the registry names.
        registered: Option<MediumId>,
    },
    /// VirtualBox does not open an image, and nothing else is known to be wrong with it.
    ImageInaccessible {
        /// The image.
        medium: MediumId,
        /// Where it is.
        location: PathBuf,
        /// What VirtualBox says.
        reason: String,
    },
    /// A saved state is gone.
    StateMissing {
        /// Where it should be.
        location: PathBuf,
        /// The VirtualBox snapshot that it belongs to, if it is not the machine's own.
        virtualbox_snapshot: Option<String>,
    },
    /// A saved state is damaged or incomplete.
    StateDamaged {
        /// Where it is.
        location: PathBuf,
        /// The VirtualBox snapshot that it belongs to, if it is not the machine's own.
        virtualbox_snapshot: Option<String>,
        /// What is wrong with it.
        fault: String,
    },
    /// The non-volatile memory is gone.
    NvramMissing {
        /// Where it should be.
        location: PathBuf,
    },
    /// A differencing image that nobody uses lies on an image in use.
    StrayImage {
        /// The image.
        medium: MediumId,
        /// Where it is.
        location: PathBuf,
        /// The image that it is based on.
        parent: PathBuf,
    },
    /// The media registry knows an image that is gone and that nobody uses.
    EntryWithoutFile {
        /// The image.
        medium: MediumId,
        /// Where it was.
        location: PathBuf,
    },
    /// Two settings files contradict each other about an image.
    EntriesConflict {
        /// What one of them says.
        first: RegistryEntry,
        /// What the other says.
        second: RegistryEntry,
    },
    /// VirtualBox snapshots of the machine are silently made without its memory.
    StatelessSnapshots,
    /// A VirtualBox snapshot that looks like a transient one of vrs.
    TransientSnapshot {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
    },
    /// An operation was interrupted.
    Unfinished {
        /// Which.
        title: String,
    },
}

/// What a settings file says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryEntry {
    /// The settings file.
    pub settings_file: PathBuf,
    /// The image.
    pub medium: MediumId,
    /// Where it should be.
    pub location: PathBuf,
}

impl Problem {
    /// Its name for programs. Never changes.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SettingsUnreadable { .. } => "settings_unreadable",
            Self::SettingsLostSnapshots { .. } => "settings_lost_snapshots",
            Self::MachineInaccessible { .. } => "machine_inaccessible",
            Self::ImagesLeftOver { .. } => "images_left_over",
            Self::MediumUnknown { .. } => "medium_unknown",
            Self::ImageMissing { .. } => "image_missing",
            Self::ImageDamaged { .. } => "image_damaged",
            Self::ImageReplaced { .. } => "image_replaced",
            Self::ParentMismatch { .. } => "parent_mismatch",
            Self::ImageInaccessible { .. } => "image_inaccessible",
            Self::StateMissing { .. } => "state_missing",
            Self::StateDamaged { .. } => "state_damaged",
            Self::NvramMissing { .. } => "nvram_missing",
            Self::StrayImage { .. } => "stray_image",
            Self::EntryWithoutFile { .. } => "entry_without_file",
            Self::EntriesConflict { .. } => "entries_conflict",
            Self::StatelessSnapshots => "stateless_snapshots",
            Self::TransientSnapshot { .. } => "transient_snapshot",
            Self::Unfinished { .. } => "unfinished",
        }
    }

    /// The file or id that it is about.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::SettingsUnreadable { file, .. }
            | Self::SettingsLostSnapshots { file, .. }
            | Self::MachineInaccessible { file } => shown(file),
            Self::ImagesLeftOver { images } => joined(images),
            Self::MediumUnknown { medium } => medium.to_string(),
            Self::ImageMissing { location, .. }
            | Self::ImageDamaged { location, .. }
            | Self::ImageReplaced { location, .. }
            | Self::ParentMismatch { location, .. }
            | Self::ImageInaccessible { location, .. }
            | Self::StateMissing { location, .. }
            | Self::StateDamaged { location, .. }
            | Self::NvramMissing { location }
            | Self::StrayImage { location, .. }
            | Self::EntryWithoutFile { location, .. } => shown(location),
            Self::EntriesConflict { first, second } => {
                format!(
                    "{} {}",
                    shown(&first.settings_file),
                    shown(&second.settings_file)
                )
            }
            Self::TransientSnapshot { id, .. } => id.to_string(),
            Self::StatelessSnapshots => String::new(),
            Self::Unfinished { title } => title.clone(),
        }
    }

    /// The image that it is about.
    #[must_use]
    pub const fn medium(&self) -> Option<MediumId> {
        match self {
            Self::MediumUnknown { medium }
            | Self::ImageMissing { medium, .. }
            | Self::ImageDamaged { medium, .. }
            | Self::ImageReplaced { medium, .. }
            | Self::ParentMismatch { medium, .. }
            | Self::ImageInaccessible { medium, .. }
            | Self::StrayImage { medium, .. }
            | Self::EntryWithoutFile { medium, .. } => Some(*medium),
            _ => None,
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn joined(images: &[PathBuf]) -> String {
    let shown: Vec<_> = images.iter().map(|image| shown(image)).collect();
    shown.join(", ")
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SettingsUnreadable { file, reason } => {
                write!(
                    out,
                    "the settings file '{}' cannot be used: {reason}",
                    file.display()
                )
            }
            Self::SettingsLostSnapshots { file, images } => write!(
                out,
                "the settings file '{}' does not know {} differencing image{} of the machine: {}",
                file.display(),
                images.len(),
                if images.len() == 1 { "" } else { "s" },
                joined(images)
            ),
            Self::MachineInaccessible { file } => write!(
                out,
                "VirtualBox does not open the machine, although '{}' can be read",
                file.display()
            ),
            Self::ImagesLeftOver { images } => write!(
                out,
                "VirtualBox does not open the machine for images that nothing uses: {}",
                joined(images)
            ),
            Self::MediumUnknown { medium } => write!(
                out,
                "the machine uses image {medium}, but no media registry says where it is"
            ),
            Self::ImageMissing { location, .. } => {
                write!(out, "the image '{}' is not there", location.display())
            }
            Self::ImageDamaged {
                location, fault, ..
            } => {
                write!(
                    out,
                    "the image '{}' is damaged: {fault}",
                    location.display()
                )
            }
            Self::ImageReplaced {
                medium,
                location,
                found,
            } => write!(
                out,
                "'{}' is image {found}, but should be image {medium}",
                location.display()
            ),
            Self::ParentMismatch {
                location,
                recorded,
                registered,
                ..
            } => write!(
                out,
                "the image '{}' says that {}, but the media registry that {}",
                location.display(),
                parent(*recorded),
                parent(registered.map(MediumId::uuid))
            ),
            Self::ImageInaccessible {
                location, reason, ..
            } => write!(
                out,
                "VirtualBox does not open the image '{}': {reason}",
                location.display()
            ),
            Self::StateMissing {
                location,
                virtualbox_snapshot,
            } => write!(
                out,
                "the saved state '{}'{} is not there",
                location.display(),
                of_snapshot(virtualbox_snapshot.as_deref())
            ),
            Self::StateDamaged {
                location,
                virtualbox_snapshot,
                fault,
            } => write!(
                out,
                "the saved state '{}'{} is damaged: {fault}",
                location.display(),
                of_snapshot(virtualbox_snapshot.as_deref())
            ),
            Self::NvramMissing { location } => {
                write!(out, "the nvram file '{}' is not there", location.display())
            }
            Self::StrayImage {
                location, parent, ..
            } => write!(
                out,
                "the differencing image '{}' is used by nobody, and as long as it is registered no VirtualBox snapshot \
                 that needs '{}' can be deleted",
                location.display(),
                parent.display()
            ),
            Self::EntryWithoutFile { location, .. } => write!(
                out,
                "VirtualBox's media registry has the image '{}', which is not there and which nobody uses",
                location.display()
            ),
            Self::EntriesConflict { first, second } => write!(
                out,
                "'{}' says that image {} is '{}', but '{}' that image {} is '{}'",
                first.settings_file.display(),
                first.medium,
                first.location.display(),
                second.settings_file.display(),
                second.medium,
                second.location.display()
            ),
            Self::StatelessSnapshots => write!(
                out,
                "VirtualBox snapshots of the running machine are made without its memory, because '{}' is set",
                crate::capture::STATELESS_KEY
            ),
            Self::TransientSnapshot { name, .. } => write!(
                out,
                "the VirtualBox snapshot '{name}' looks like one that vrs makes for a moment, but no journal says so"
            ),
            Self::Unfinished { title } => write!(out, "{title} was interrupted"),
        }
    }
}

fn parent(parent: Option<Uuid>) -> String {
    parent.map_or_else(
        || "it has no parent".to_owned(),
        |parent| format!("its parent is {parent}"),
    )
}

fn of_snapshot(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| {
        format!(" of VirtualBox snapshot '{name}'")
    })
}
