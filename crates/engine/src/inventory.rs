//! Everything that a machine is: its files, its media, and what lies outside it.
//!
//! Guarantees: every image of every chain that the machine or one of its VirtualBox snapshots uses
//! is in the inventory or the inventory fails; nothing of another machine is. Each file gets its
//! place in the stored tree: where it is in the machine folder, or below `Outside/<medium id>/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vrs_repository::store::TreePath;
use vrs_virtualbox::{Attachment, DeviceKind, HardDisk, MachineSettings, MediumId, SettingsEdit};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::machine::Machine;
use crate::manifest::{FileRole, MediumRecord, NotIncluded, OWN_FOLDER, tree_path};

/// Folder in the stored machine folder for images that are elsewhere on the host.
const OUTSIDE: &str = "Outside";

/// A file of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFile {
    /// What it is.
    pub role: FileRole,
    /// Where it is on this host.
    pub local: PathBuf,
    /// Its place in the stored tree.
    pub path: TreePath,
    /// The medium that it is, or is an extent of.
    pub medium: Option<MediumId>,
}

/// What to do about files that should be there and are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A snapshot without them would be a lie.
    Refuse,
    /// A restore brings them back.
    Skip,
}

/// What a machine consists of.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Name of the machine folder, the top of the stored tree.
    pub folder: String,
    /// All files, the settings file first.
    pub files: Vec<MachineFile>,
    /// All hard disks, parents before children.
    pub media: Vec<MediumRecord>,
    /// Images in the machine's media registry that belong to other machines.
    pub foreign_media: BTreeSet<MediumId>,
    /// Whether the machine's own media registry names all of `media`.
    pub registry_is_complete: bool,
    /// What is part of the machine and not in `files`.
    pub not_included: Vec<NotIncluded>,
    /// Where the machine folder is on this host.
    pub local_folder: PathBuf,
    /// The settings, as parsed.
    pub settings: MachineSettings,
    /// The settings file's text.
    pub settings_text: String,
}

impl Inventory {
    /// Looks at a machine's settings and the media registries.
    pub fn of(host: &Host, machine: &Machine, missing: Missing) -> Result<Self> {
        let settings_text = std::fs::read_to_string(&machine.settings_file)
            .map_err(|error| Error::io("read", &machine.settings_file, error))?;
        Self::with_settings(host, machine, settings_text, missing)
    }

    /// What a machine would consist of with these settings.
    pub fn with_settings(
        host: &Host,
        machine: &Machine,
        settings_text: String,
        missing: Missing,
    ) -> Result<Self> {
        let settings = MachineSettings::parse(&settings_text, &machine.settings_file)?;
        let media = MediaTable::collect(host, machine, &settings)?;
        let mut survey = Survey::new(machine, &settings, missing)?;
        survey.settings_files()?;
        survey.disks(&media)?;
        survey.saved_states()?;
        survey.nvram()?;
        survey.outside_things();
        Ok(Self {
            folder: survey.folder_name,
            files: survey.files,
            media: survey.media,
            foreign_media: media.foreign,
            registry_is_complete: media.registry_is_complete,
            not_included: survey.not_included,
            local_folder: machine.folder().to_owned(),
            settings,
            settings_text,
        })
    }
}

impl Inventory {
    /// The same machine without some media, which its settings do not name then.
    pub fn without(
        &self,
        host: &Host,
        machine: &Machine,
        media: &BTreeSet<MediumId>,
    ) -> Result<Self> {
        if media.is_empty() {
            return Ok(self.clone());
        }
        let mut edit = SettingsEdit::new(&self.settings_text)?;
        for medium in media {
            edit.detach_medium(*medium)?;
            match edit.remove_medium(*medium) {
                // It went with its parent, or another machine's registry has it.
                Ok(()) | Err(vrs_virtualbox::Error::NoSuchMedium { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut rest = Self::with_settings(host, machine, edit.finish(), Missing::Refuse)?;
        let left_out = self
            .media
            .iter()
            .filter(|medium| media.contains(&medium.id));
        rest.not_included.extend(left_out.map(|medium| NotIncluded {
            what: "disk".to_owned(),
            which: medium.location.display().to_string(),
            reason: "it was to be left out".to_owned(),
        }));
        Ok(rest)
    }

    /// Whether the media registry in the settings does not fit the machine alone: it lacks images
    /// of the machine, as in a linked clone, or names ones of others, as in the base of one.
    pub fn needs_own_registry(&self) -> bool {
        !self.foreign_media.is_empty() || !self.registry_is_complete
    }

    /// Path of the settings file in the stored tree.
    pub fn settings_path(&self) -> Option<&TreePath> {
        self.files
            .iter()
            .find(|file| file.role == FileRole::Settings)
            .map(|file| &file.path)
    }
}

/// What the registries know about the images that the machine uses.
struct MediaTable {
    /// Used images, parents before children.
    used: Vec<KnownMedium>,
    foreign: BTreeSet<MediumId>,
    registry_is_complete: bool,
}

#[derive(Debug, Clone)]
struct KnownMedium {
    id: MediumId,
    parent: Option<MediumId>,
    format: String,
    kind: Option<String>,
    location: PathBuf,
}

impl MediaTable {
    fn collect(host: &Host, machine: &Machine, settings: &MachineSettings) -> Result<Self> {
        let mut own = BTreeMap::new();
        for disk in &settings.hard_disks {
            flatten(disk, None, settings, machine.folder(), &mut own);
        }
        let mut known = registered_media(host)?;
        known.extend(own.clone());
        let attached: BTreeSet<MediumId> = settings
            .all_attachments()
            .filter_map(hard_disk_of)
            .collect();
        let mut used = Vec::new();
        for id in &attached {
            add_with_ancestors(*id, &known, &mut used, machine)?;
        }
        let others = attached_elsewhere(host, machine)?;
        let foreign: BTreeSet<MediumId> = own
            .values()
            .filter(|medium| !used.iter().any(|known: &KnownMedium| known.id == medium.id))
            .filter(|medium| {
                others.contains(&medium.id) || !medium.location.starts_with(machine.folder())
            })
            .map(|medium| medium.id)
            .collect();
        // Detached images that only this machine's registry knows are the machine's as well.
        for medium in own.values().filter(|medium| !foreign.contains(&medium.id)) {
            if medium
                .parent
                .is_none_or(|parent| !foreign.contains(&parent))
            {
                add_with_ancestors(medium.id, &known, &mut used, machine)?;
            }
        }
        let registry_is_complete = used.iter().all(|medium| own.contains_key(&medium.id));
        Ok(Self {
            used,
            foreign,
            registry_is_complete,
        })
    }
}

fn flatten(
    disk: &HardDisk,
    parent: Option<MediumId>,
    settings: &MachineSettings,
    folder: &Path,
    into: &mut BTreeMap<MediumId, KnownMedium>,
) {
    into.insert(
        disk.id,
        KnownMedium {
            id: disk.id,
            parent,
            format: disk.format.clone(),
            kind: disk.kind.clone(),
            location: settings.resolve(folder, &disk.location),
        },
    );
    for child in &disk.children {
        flatten(child, Some(disk.id), settings, folder, into);
    }
}

fn registered_media(host: &Host) -> Result<BTreeMap<MediumId, KnownMedium>> {
    let Some(virtualbox) = host.virtualbox() else {
        return Ok(BTreeMap::new());
    };
    let known = virtualbox.media()?.into_iter().map(|medium| {
        let known = KnownMedium {
            id: medium.id,
            parent: medium.parent,
            format: medium.format,
            kind: medium
                .parent
                .is_none()
                .then(|| medium.kind.settings_name().to_owned()),
            location: medium.location,
        };
        (medium.id, known)
    });
    Ok(known.collect())
}

/// Images that VirtualBox says other machines use.
fn attached_elsewhere(host: &Host, machine: &Machine) -> Result<BTreeSet<MediumId>> {
    let Some(virtualbox) = host.virtualbox() else {
        return Ok(BTreeSet::new());
    };
    let media = virtualbox.media()?;
    let used_elsewhere = media
        .iter()
        .filter(|medium| medium.used_by.iter().any(|user| *user != machine.id));
    Ok(used_elsewhere.map(|medium| medium.id).collect())
}

fn add_with_ancestors(
    id: MediumId,
    known: &BTreeMap<MediumId, KnownMedium>,
    used: &mut Vec<KnownMedium>,
    machine: &Machine,
) -> Result<()> {
    let mut chain = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next {
        // A registry that claims a loop must not keep us here for ever.
        if chain.len() > known.len() || used.iter().any(|medium| medium.id == id) {
            break;
        }
        let medium = known.get(&id).ok_or(Error::UnknownMedium {
            name: machine.name.clone(),
            medium: id,
        })?;
        next = medium.parent;
        chain.push(medium.clone());
    }
    used.extend(chain.into_iter().rev());
    Ok(())
}

/// Where VirtualBox keeps the settings that it replaced last.
pub(crate) fn previous_settings(settings_file: &Path) -> PathBuf {
    let mut previous = settings_file.to_owned().into_os_string();
    previous.push("-prev");
    previous.into()
}

fn hard_disk_of(attachment: &Attachment) -> Option<MediumId> {
    (attachment.kind == DeviceKind::HardDisk).then_some(attachment.medium)?
}

/// Walks through the parts of a machine and gives each file its place.
struct Survey<'a> {
    machine: &'a Machine,
    settings: &'a MachineSettings,
    missing: Missing,
    folder_name: String,
    files: Vec<MachineFile>,
    media: Vec<MediumRecord>,
    not_included: Vec<NotIncluded>,
}

impl<'a> Survey<'a> {
    fn new(machine: &'a Machine, settings: &'a MachineSettings, missing: Missing) -> Result<Self> {
        let folder_name = machine
            .folder()
            .file_name()
            .map_or_else(|| machine.name.clone().into(), ToOwned::to_owned);
        let folder_name = folder_name
            .into_string()
            .map_err(|_| not_unicode(machine.folder()))?;
        tree_path(&folder_name)?;
        if folder_name == OWN_FOLDER {
            return Err(Error::Usage {
                message: format!(
                    "a machine in a folder named '{OWN_FOLDER}' cannot be stored; rename the folder"
                ),
            });
        }
        let empty = (Vec::new(), Vec::new(), Vec::new());
        let (files, media, not_included) = empty;
        Ok(Self {
            machine,
            settings,
            missing,
            folder_name,
            files,
            media,
            not_included,
        })
    }

    fn settings_files(&mut self) -> Result<()> {
        let main = self.machine.settings_file.clone();
        let previous = previous_settings(&main);
        self.add(FileRole::Settings, main, None)?;
        self.add_if_there(FileRole::PreviousSettings, previous)
    }

    fn disks(&mut self, media: &MediaTable) -> Result<()> {
        for medium in &media.used {
            if is_on_network(medium) {
                self.leave_out(
                    "network disk",
                    &medium.location.display().to_string(),
                    "it is not a file on this host",
                );
                continue;
            }
            let path = self.add(FileRole::Disk, medium.location.clone(), Some(medium.id))?;
            if medium.location.is_file() {
                for extent in vrs_vdisk::extent_files(&medium.location)? {
                    self.add_extent(extent, medium.id)?;
                }
            }
            self.media.push(MediumRecord {
                id: medium.id,
                parent: medium.parent,
                format: medium.format.clone(),
                kind: medium.kind.clone(),
                location: medium.location.clone(),
                path: path.to_string(),
            });
        }
        Ok(())
    }

    fn saved_states(&mut self) -> Result<()> {
        let locations: BTreeSet<PathBuf> = self
            .settings
            .state_files()
            .map(|location| self.resolve(location))
            .collect();
        for location in locations {
            self.add(FileRole::SavedState, location, None)?;
        }
        Ok(())
    }

    fn nvram(&mut self) -> Result<()> {
        let mut locations: BTreeSet<PathBuf> = self
            .settings
            .nvram_files()
            .map(|location| self.resolve(location))
            .collect();
        locations.insert(self.resolve(&self.settings.nvram_location()));
        for location in locations {
            self.add_if_there(FileRole::Nvram, location)?;
        }
        Ok(())
    }

    fn outside_things(&mut self) {
        for image in self
            .settings
            .dvd_images
            .iter()
            .chain(&self.settings.floppy_images)
        {
            self.leave_out(
                "DVD or floppy image",
                &image.location,
                "such images are not copied",
            );
        }
        for drive in self
            .settings
            .hardware
            .attachments
            .iter()
            .filter_map(|attachment| attachment.host_drive.as_ref())
        {
            self.leave_out("host drive", drive, "it belongs to the host");
        }
        for folder in &self.settings.hardware.shared_folders {
            self.leave_out("shared folder", &folder.host_path, "it belongs to the host");
        }
    }

    fn leave_out(&mut self, what: &str, which: &str, reason: &str) {
        let (what, which, reason) = (what.to_owned(), which.to_owned(), reason.to_owned());
        self.not_included.push(NotIncluded {
            what,
            which,
            reason,
        });
    }

    fn resolve(&self, location: &str) -> PathBuf {
        self.settings.resolve(self.machine.folder(), location)
    }

    fn add_if_there(&mut self, role: FileRole, local: PathBuf) -> Result<()> {
        if local.exists() {
            self.add(role, local, None).map(|_| ())
        } else {
            Ok(())
        }
    }

    fn add_extent(&mut self, extent: vrs_vdisk::ExtentFile, medium: MediumId) -> Result<()> {
        if extent.is_device {
            self.leave_out(
                "host disk",
                &extent.path.display().to_string(),
                "it is a device of the host",
            );
            return Ok(());
        }
        let path = self.place(&extent.path, Some(medium))?;
        self.push(FileRole::Disk, extent.path, path, Some(medium))
    }

    fn add(
        &mut self,
        role: FileRole,
        local: PathBuf,
        medium: Option<MediumId>,
    ) -> Result<TreePath> {
        let path = self.place(&local, medium)?;
        self.push(role, local, path.clone(), medium)?;
        Ok(path)
    }

    fn push(
        &mut self,
        role: FileRole,
        local: PathBuf,
        path: TreePath,
        medium: Option<MediumId>,
    ) -> Result<()> {
        if !local.is_file() {
            if self.missing == Missing::Skip {
                return Ok(());
            }
            return Err(Error::MissingFile {
                name: self.machine.name.clone(),
                path: local,
            });
        }
        self.files.push(MachineFile {
            role,
            local,
            path,
            medium,
        });
        Ok(())
    }

    fn place(&self, local: &Path, medium: Option<MediumId>) -> Result<TreePath> {
        let inside = local
            .strip_prefix(self.machine.folder())
            .ok()
            .filter(|inside| is_plain(inside));
        let place = match (inside, medium) {
            (Some(inside), _) => inside.to_owned(),
            (None, Some(medium)) => Path::new(OUTSIDE)
                .join(medium.to_string())
                .join(file_name(local)?),
            (None, None) => Path::new(OUTSIDE).join(file_name(local)?),
        };
        let mut path = self.folder_name.clone();
        for part in &place {
            path.push('/');
            path.push_str(part.to_str().ok_or_else(|| not_unicode(local))?);
        }
        tree_path(&path)
    }
}

fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn file_name(path: &Path) -> Result<&Path> {
    path.file_name()
        .map(Path::new)
        .ok_or_else(|| not_unicode(path))
}

fn is_on_network(medium: &KnownMedium) -> bool {
    medium.format.eq_ignore_ascii_case("iSCSI")
}

fn not_unicode(path: &Path) -> Error {
    Error::Usage {
        message: format!(
            "'{}' is not a name that can be stored: it is not valid Unicode; rename it",
            path.display()
        ),
    }
}
