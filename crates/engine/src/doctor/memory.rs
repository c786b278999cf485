//! What the repository remembers of a machine: the latest copy of a missing piece.

use std::path::{Path, PathBuf};

use vrs_repository::store::{RestoreFile, RestoreRequest, RestoreStats, SnapshotStore};
use vrs_virtualbox::{MachineId, MediumId};

use super::repair::{ImageIdentity, RepairSource};
use crate::catalog;
use crate::error::Result;
use crate::manifest::{FileRecord, FileRole, Manifest, MediumRecord, tree_path};
use crate::snapshot::Snapshot;
use vrs_progress::Progress;
use vrs_vdisk::VdiHead;

/// So many snapshots back a piece is looked for.
const MOST_SNAPSHOTS: usize = 30;

/// The snapshots of one machine, the latest first.
pub(super) struct Memory<'a> {
    store: &'a dyn SnapshotStore,
    snapshots: Vec<Remembered>,
}

/// A snapshot and what it holds.
pub(super) struct Remembered {
    pub(super) snapshot: Snapshot,
    pub(super) manifest: Manifest,
}

/// An image in a snapshot.
#[derive(Clone, Copy)]
pub(super) struct StoredImage<'m> {
    pub(super) of: &'m Remembered,
    pub(super) medium: &'m MediumRecord,
}

impl<'a> Memory<'a> {
    pub(super) fn of_machine(store: &'a dyn SnapshotStore, machine: MachineId) -> Result<Self> {
        let all = catalog::snapshots(store)?.snapshots;
        let own = all
            .into_iter()
            .rev()
            .filter(|snapshot| snapshot.machine == machine);
        // A snapshot that cannot be read must not keep the others from helping.
        let remembered = own.take(MOST_SNAPSHOTS).filter_map(|snapshot| {
            let manifest = catalog::manifest(store, &snapshot.id).ok()?;
            Some(Remembered { snapshot, manifest })
        });
        Ok(Self {
            store,
            snapshots: remembered.collect(),
        })
    }

    pub(super) fn snapshots(&self) -> &[Remembered] {
        &self.snapshots
    }

    /// Where an image is stored with the right parent, the latest first.
    pub(super) fn images(&self, wanted: ImageIdentity) -> impl Iterator<Item = StoredImage<'_>> {
        self.snapshots.iter().filter_map(move |of| {
            let mut media = of.manifest.media.iter();
            let medium = media.find(|medium| medium.id == wanted.id)?;
            (medium.parent == wanted.parent).then_some(StoredImage { of, medium })
        })
    }

    /// The header and block map of a stored image, if they are sound and those of the image.
    pub(super) fn head(&self, image: StoredImage<'_>, wanted: ImageIdentity) -> Option<VdiHead> {
        let path = tree_path(&image.medium.path).ok()?;
        let mut reader = self.store.open_file(&image.of.snapshot.id, &path).ok()?;
        let size_bytes = reader.size_bytes();
        let head = VdiHead::read(size_bytes, |offset_bytes, buffer: &mut [u8]| {
            reader.read_at(offset_bytes, buffer)
        });
        let head = head.ok()?.ok()?;
        let is_it = wanted.is_of(head.header());
        (is_it && head.block_map().check().findings.is_empty()).then_some(head)
    }

    /// The latest file of a role at `local`, a place below the machine folder `folder` or anywhere.
    pub(super) fn file(
        &self,
        role: FileRole,
        folder: &Path,
        local: &Path,
    ) -> Option<(&Remembered, &FileRecord)> {
        self.snapshots.iter().find_map(|of| {
            let mut files = of.manifest.files.iter().filter(|file| file.role == role);
            let file = files.find(|file| of.place_now(&file.original, folder) == local)?;
            Some((of, file))
        })
    }

    /// How much of a local file is as in a snapshot. Reads the file once.
    pub(super) fn compare(
        &self,
        image: StoredImage<'_>,
        local: &Path,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let request = RestoreRequest {
            snapshot: image.of.snapshot.id,
            files: vec![RestoreFile {
                path: tree_path(&image.medium.path)?,
                target: local.to_owned(),
                local_chunking: None,
                known: None,
            }],
            seeds: Vec::new(),
        };
        Ok(self.store.plan_restore(&request, progress)?)
    }

    /// The text of the settings of a snapshot, with each image where it would be now.
    pub(super) fn settings_text(&self, of: &Remembered, folder: &Path) -> Result<String> {
        let manifest = &of.manifest;
        let original = manifest.original_settings.as_ref();
        let original = original.filter(|_| !manifest.registry_was_rebuilt);
        let path = original.unwrap_or(&manifest.settings);
        let text = catalog::settings_text(self.store, &of.snapshot.id, path)?;
        let media = manifest.media.iter();
        let locations = media
            .map(|medium| (medium.id, of.place_now(&medium.location, folder)))
            .collect();
        crate::portable::settings_at(&text, folder, &locations)
    }

    /// How a journal names a snapshot.
    pub(super) fn source(&self, of: &Remembered) -> RepairSource {
        RepairSource {
            repository: self.store.id().to_string(),
            repository_location: self.store.location(),
            snapshot: of.snapshot.id.to_string(),
        }
    }
}

impl Remembered {
    /// Where a file of the snapshot is now that the machine folder is `folder`.
    fn place_now(&self, original: &Path, folder: &Path) -> PathBuf {
        let was = self.manifest.machine.settings_file.parent();
        match was.and_then(|was| original.strip_prefix(was).ok()) {
            Some(inside) => folder.join(inside),
            None => original.to_owned(),
        }
    }

    /// The images that were based on one.
    pub(super) fn children_of(&self, image: MediumId) -> impl Iterator<Item = MediumId> {
        let media = self.manifest.media.iter();
        media
            .filter(move |medium| medium.parent == Some(image))
            .map(|medium| medium.id)
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        let id = self.snapshot.id.short();
        let time = self.snapshot.time.strftime("%Y-%m-%d %H:%M:%S UTC");
        match &self.snapshot.name {
            Some(name) => format!("{id} ('{name}') of {time}"),
            None => format!("{id} of {time}"),
        }
    }
}
