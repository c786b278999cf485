//! What the settings in such an archive say about the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vrs_repository::Error as StoreError;
use vrs_repository::Result as StoreResult;
use vrs_repository::store::{
    SnapshotRecord, SnapshotStore, StoredFile, StoredFileReader, TreePath,
};
use vrs_virtualbox::{HardDisk, MachineSettings, MediumId, SettingsEdit};

use crate::catalog;
use crate::error::Result;
use crate::manifest::{
    FileRecord, FileRole, HostRecord, MANIFEST_VERSION, MachineRecord, Manifest, MediumRecord,
    NotIncluded, Stamp, tree_path,
};

/// What the script called the VirtualBox snapshot that froze a machine.
const TRANSIENT: &str = "vrs-temp";

/// A snapshot as vrs would have made it of the same folder.
pub(super) struct Derived {
    pub(super) manifest: Manifest,
    contents: BTreeMap<TreePath, Content>,
    sizes: BTreeMap<TreePath, u64>,
}

/// Where the bytes of a file are.
pub(super) enum Content {
    /// In the archive, there.
    Stored(TreePath),
    Derived(Vec<u8>),
}

impl Derived {
    /// None: there is no machine in the archive.
    pub(super) fn of(store: &dyn SnapshotStore, record: &SnapshotRecord) -> Result<Option<Self>> {
        let Some(archive) = Archive::of(store, record)? else {
            return Ok(None);
        };
        let text = catalog::settings_text(store, &record.id, archive.settings.as_str())?;
        let rolled_back = RolledBack::of(&text, &archive.settings_file())?;
        let mut survey = Survey::new(&archive, &rolled_back);
        survey.settings();
        survey.disks();
        survey.saved_states();
        survey.nvram();
        survey.finish(record).map(Some)
    }

    pub(super) fn content(&self, path: &TreePath) -> Option<&Content> {
        self.contents.get(path)
    }

    pub(super) fn files(&self) -> Vec<StoredFile> {
        let files = self.contents.iter().map(|(path, content)| StoredFile {
            path: path.clone(),
            size_bytes: match content {
                Content::Derived(bytes) => bytes.len() as u64,
                Content::Stored(_) => self.sizes.get(path).copied().unwrap_or(0),
            },
            stamp: None,
        });
        files.collect()
    }
}

/// The folder in an archive.
struct Archive {
    /// Sizes of all its files.
    files: BTreeMap<TreePath, u64>,
    settings: TreePath,
}

impl Archive {
    fn of(store: &dyn SnapshotStore, record: &SnapshotRecord) -> Result<Option<Self>> {
        let files = store.files(&record.id)?.into_iter();
        let files: BTreeMap<_, _> = files.map(|file| (file.path, file.size_bytes)).collect();
        let settings = files.keys().filter(|path| path.as_str().ends_with(".vbox"));
        // Copies that users made lie deeper or are called otherwise.
        let rank = |path: &&TreePath| (path.parts().count(), !is_named_as_folder(path));
        let settings = settings.min_by_key(rank).cloned();
        let settings = settings.filter(|path| path.parts().count() > 1);
        Ok(settings.map(|settings| Self { files, settings }))
    }

    fn parent(&self) -> &str {
        let path = self.settings.as_str().rsplit_once('/');
        path.map_or("", |(parent, _)| parent)
    }

    /// The name of the machine folder.
    fn folder(&self) -> &str {
        self.parent().rsplit('/').next().unwrap_or_default()
    }

    /// Where the settings were. borg drops the slash of an absolute path; a folder alone was stored from
    /// its parent, and where that was nobody knows.
    fn settings_file(&self) -> PathBuf {
        if self.parent().contains('/') {
            Path::new("/").join(self.settings.as_str())
        } else {
            PathBuf::from(self.settings.as_str())
        }
    }

    fn machine_folder(&self) -> PathBuf {
        let file = self.settings_file();
        file.parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// A file of the host in the archive.
    fn find(&self, local: &Path) -> Option<TreePath> {
        let inside = local.strip_prefix(self.machine_folder()).ok()?;
        let path = format!("{}/{}", self.parent(), inside.to_str()?);
        let path = TreePath::new(path).ok()?;
        self.files.contains_key(&path).then_some(path)
    }

    /// Its place in a snapshot of vrs.
    fn place(&self, stored: &TreePath) -> Result<TreePath> {
        let inside = stored.as_str().strip_prefix(self.parent());
        tree_path(&format!("{}{}", self.folder(), inside.unwrap_or_default()))
    }
}

fn is_named_as_folder(path: &TreePath) -> bool {
    let mut parts = path.parts().rev();
    let name = parts.next().and_then(|name| name.strip_suffix(".vbox"));
    name.is_some() && name == parts.next()
}

/// The settings without the VirtualBox snapshot of the script.
struct RolledBack {
    text: String,
    settings: MachineSettings,
    /// The copy of the nvram that belongs to the machine then.
    nvram: Option<String>,
}

impl RolledBack {
    fn of(text: &str, file: &Path) -> Result<Self> {
        let before = MachineSettings::parse(text, file)?;
        let transient = before
            .virtualbox_snapshots()
            .find(|made| made.name == TRANSIENT && made.children.is_empty())
            .filter(|made| before.current_virtualbox_snapshot == Some(made.id));
        let Some(transient) = transient else {
            return Ok(Self {
                text: text.to_owned(),
                settings: before,
                nvram: None,
            });
        };
        let mut edit = SettingsEdit::new(text)?;
        edit.roll_back(transient.id)?;
        let attached = before.hardware.attachments.iter();
        let attached: Vec<MediumId> = attached.filter_map(|drive| drive.medium).collect();
        let without = edit.finish();
        let settings = MachineSettings::parse(&without, file)?;
        let mut edit = SettingsEdit::new(&without)?;
        for disk in settings.all_hard_disks() {
            if attached.contains(&disk.id) && settings.is_unused(disk) {
                edit.remove_medium(disk.id)?;
            }
        }
        if transient.hardware.nvram.is_some() {
            edit.set_nvram_path(&before.nvram_location())?;
        }
        let text = edit.finish();
        Ok(Self {
            settings: MachineSettings::parse(&text, file)?,
            nvram: transient.hardware.nvram.clone(),
            text,
        })
    }
}

/// Looks for everything that the settings name.
struct Survey<'a> {
    archive: &'a Archive,
    machine: &'a RolledBack,
    records: Vec<FileRecord>,
    media: Vec<MediumRecord>,
    contents: BTreeMap<TreePath, Content>,
    sizes: BTreeMap<TreePath, u64>,
    not_included: Vec<NotIncluded>,
}

impl<'a> Survey<'a> {
    const fn new(archive: &'a Archive, machine: &'a RolledBack) -> Self {
        Self {
            archive,
            machine,
            records: Vec::new(),
            media: Vec::new(),
            contents: BTreeMap::new(),
            sizes: BTreeMap::new(),
            not_included: Vec::new(),
        }
    }

    fn resolve(&self, location: &str) -> PathBuf {
        let folder = self.archive.machine_folder();
        self.machine.settings.resolve(&folder, location)
    }

    fn settings(&mut self) {
        let bytes = self.machine.text.clone().into_bytes();
        let size = bytes.len() as u64;
        if let Ok(place) = self.archive.place(&self.archive.settings) {
            let original = self.archive.settings_file();
            self.record(&place, FileRole::Settings, original, size);
            self.contents.insert(place, Content::Derived(bytes));
        }
    }

    fn record(&mut self, place: &TreePath, role: FileRole, original: PathBuf, size: u64) {
        let stamp = Stamp {
            size,
            inode: 0,
            mtime_ns: 0,
            ctime_ns: 0,
        };
        self.records.push(FileRecord {
            path: place.to_string(),
            role,
            original,
            stamp,
            settled: false,
            grid_bytes: None,
        });
    }

    /// A file of the machine whose bytes are those of `stored_as`.
    fn file(&mut self, role: FileRole, local: PathBuf, stored_as: &Path) -> Option<TreePath> {
        let place = self.place_of(&local);
        let found = self.archive.find(stored_as).zip(place);
        let Some((stored, place)) = found else {
            self.not_included.push(NotIncluded {
                what: "file".to_owned(),
                which: local.display().to_string(),
                reason: "it is not in the archive".to_owned(),
            });
            return None;
        };
        if !self.contents.contains_key(&place) {
            let size = self.archive.files.get(&stored).copied().unwrap_or(0);
            self.record(&place, role, local, size);
            self.sizes.insert(place.clone(), size);
            self.contents.insert(place.clone(), Content::Stored(stored));
        }
        Some(place)
    }

    fn place_of(&self, local: &Path) -> Option<TreePath> {
        let inside = local.strip_prefix(self.archive.machine_folder()).ok()?;
        let path = format!("{}/{}", self.archive.folder(), inside.to_str()?);
        TreePath::new(path).ok()
    }

    fn disks(&mut self) {
        let machine = self.machine;
        for disk in &machine.settings.hard_disks {
            self.disk(disk, None);
        }
    }

    fn disk(&mut self, disk: &HardDisk, parent: Option<MediumId>) {
        let local = self.resolve(&disk.location);
        if let Some(place) = self.file(FileRole::Disk, local.clone(), &local) {
            self.media.push(MediumRecord {
                id: disk.id,
                parent,
                format: disk.format.clone(),
                kind: disk.kind.clone(),
                location: local,
                path: place.to_string(),
            });
        }
        for child in &disk.children {
            self.disk(child, Some(disk.id));
        }
    }

    fn saved_states(&mut self) {
        let machine = self.machine;
        for location in machine.settings.state_files() {
            let local = self.resolve(location);
            self.file(FileRole::SavedState, local.clone(), &local);
        }
    }

    fn nvram(&mut self) {
        let machine = self.machine;
        let own = machine.settings.nvram_location();
        let local = self.resolve(&own);
        let copy = machine.nvram.as_ref().map(|copy| self.resolve(copy));
        let stored_as = copy.unwrap_or_else(|| local.clone());
        // Machines without EFI have none.
        if self.archive.find(&stored_as).is_some() {
            self.file(FileRole::Nvram, local, &stored_as);
        }
        for location in machine
            .settings
            .nvram_files()
            .filter(|other| **other != own)
        {
            let local = self.resolve(location);
            self.file(FileRole::Nvram, local.clone(), &local);
        }
    }

    fn finish(mut self, record: &SnapshotRecord) -> Result<Derived> {
        let settings = &self.machine.settings;
        let folder = self.archive.folder().to_owned();
        let manifest = Manifest {
            format: Manifest::format_name(),
            version: MANIFEST_VERSION,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            machine: MachineRecord {
                id: settings.id,
                name: settings.name.clone(),
                os_type: settings.os_type.clone(),
                state: settings.resting_state().to_string(),
                settings_file: self.archive.settings_file(),
            },
            name: None,
            begun: record.time,
            host: HostRecord {
                name: record.hostname.clone(),
                // borg runs on systems of this kind, and the script did.
                os: "linux".to_owned(),
                architecture: "x86_64".to_owned(),
                processor: None,
                virtualbox: None,
            },
            settings: self.archive.place(&self.archive.settings)?.to_string(),
            original_settings: None,
            registry_was_rebuilt: false,
            files: self.records,
            media: self.media,
            not_included: self.not_included,
            capture: None,
            set: None,
            folder,
        };
        let path = Manifest::path_in(&manifest.folder)?;
        let json = manifest.to_json()?;
        // Whoever reads it checks each path.
        Manifest::from_json(&json, &record.id.short())?;
        self.contents.insert(path, Content::Derived(json));
        Ok(Derived {
            manifest,
            contents: self.contents,
            sizes: self.sizes,
        })
    }
}

/// A file that was derived.
pub(super) struct Bytes {
    path: TreePath,
    bytes: Vec<u8>,
}

impl Bytes {
    pub(super) const fn new(path: TreePath, bytes: Vec<u8>) -> Self {
        Self { path, bytes }
    }
}

impl StoredFileReader for Bytes {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> StoreResult<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.checked_add(buffer.len());
        let part = end.and_then(|end| self.bytes.get(start..end));
        let part = part.ok_or_else(|| StoreError::OutOfBounds {
            path: self.path.clone(),
            offset,
            length_bytes: buffer.len() as u64,
            size_bytes: self.bytes.len() as u64,
        })?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}
