//! What taking a snapshot will read, and what it need not.

use std::collections::BTreeMap;

use vrs_repository::store::{
    Chunking, FileSource, FileStamp, PreviousFile, SnapshotStore, TreePath,
};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, MachineFile, Missing};
use crate::machine::Machine;
use crate::manifest::{FileRecord, FileRole, Manifest, Stamp, tree_path};
use crate::snapshot::{self, Snapshot};
use crate::{catalog, grid, permission, selection};

/// What the user says about a new snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeOptions {
    /// A name to find it by, unique for the machine.
    pub name: Option<String>,
    /// A description.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Read every file, also those that are known unchanged.
    pub force_read: bool,
}

/// One file in the plan.
#[derive(Debug, Clone)]
pub struct FilePlan {
    /// What it is.
    pub role: FileRole,
    /// Its state when the plan was made.
    pub stamp: FileStamp,
    /// What is handed to the repository.
    pub source: FileSource,
}

impl FilePlan {
    /// Whether the whole file is known to be as it was, so that it is not read.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.source
            .previous
            .as_ref()
            .is_some_and(|previous| !previous.unchanged.is_empty())
    }
}

/// What a take will do.
#[derive(Debug, Clone)]
pub struct TakePlan {
    /// The machine.
    pub machine: Machine,
    /// What it consists of.
    pub inventory: Inventory,
    /// What will be stored.
    pub files: Vec<FilePlan>,
    /// The snapshot it builds on.
    pub previous: Option<Snapshot>,
    /// What the user said.
    pub options: TakeOptions,
}

impl TakePlan {
    /// Looks at the machine and at its last snapshot.
    pub fn make(
        host: &Host,
        store: &dyn SnapshotStore,
        machine: &Machine,
        options: TakeOptions,
    ) -> Result<Self> {
        permission::to_take(machine)?;
        let snapshots = catalog::snapshots(store)?.snapshots;
        check_options(&snapshots, machine, &options)?;
        let inventory = Inventory::of(host, machine, Missing::Refuse)?;
        let previous = latest_readable(store, &snapshots, machine)?;
        let earlier = Earlier::new(previous.as_ref(), options.force_read);
        let files = inventory
            .files
            .iter()
            .map(|file| earlier.plan(file))
            .collect::<Result<_>>()?;
        Ok(Self {
            machine: machine.clone(),
            inventory,
            files,
            previous: previous.map(|(snapshot, _)| snapshot),
            options,
        })
    }

    /// Where the settings file is stored.
    pub(super) fn settings_path(&self) -> Result<&TreePath> {
        self.inventory
            .settings_path()
            .ok_or_else(|| Error::MissingFile {
                name: self.machine.name.clone(),
                path: self.machine.settings_file.clone(),
            })
    }

    /// Bytes that will be read from disk.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        let read = self.files.iter().filter(|file| !file.is_unchanged());
        read.fold(0, |sum: u64, file| {
            sum.saturating_add(file.stamp.size_bytes)
        })
    }
}

fn check_options(snapshots: &[Snapshot], machine: &Machine, options: &TakeOptions) -> Result<()> {
    if let Some(name) = &options.name {
        selection::check_name(name)?;
        let taken = |snapshot: &Snapshot| {
            snapshot.machine == machine.id && snapshot.name.as_ref() == Some(name)
        };
        if snapshots.iter().any(taken) {
            let reason = "a snapshot of this machine has it already";
            return Err(Error::BadSnapshotName {
                name: name.clone(),
                reason,
            });
        }
    }
    for tag in &options.tags {
        if tag.is_empty()
            || snapshot::is_reserved(tag)
            || tag.contains(',')
            || tag.chars().any(char::is_control)
        {
            return Err(Error::Usage {
                message: format!(
                    "'{tag}' cannot be a tag: tags are not empty, hold no comma and do not begin with 'vrs'"
                ),
            });
        }
    }
    Ok(())
}

/// The machine's last snapshot whose manifest this version understands. An older vrs builds on
/// what it knows; it never fails because a newer one was here.
fn latest_readable(
    store: &dyn SnapshotStore,
    snapshots: &[Snapshot],
    machine: &Machine,
) -> Result<Option<(Snapshot, Manifest)>> {
    for snapshot in snapshots
        .iter()
        .rev()
        .filter(|snapshot| snapshot.machine == machine.id)
    {
        match catalog::manifest(store, &snapshot.id) {
            Ok(manifest) => return Ok(Some((snapshot.clone(), manifest))),
            Err(Error::NewerManifest { .. } | Error::BadManifest { .. } | Error::Repository(_)) => {
            }
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

/// The files of the last snapshot, found by their path or, for a disk, by its medium.
struct Earlier<'a> {
    snapshot: Option<&'a Snapshot>,
    by_path: BTreeMap<&'a str, &'a FileRecord>,
    by_original: BTreeMap<&'a std::path::Path, &'a FileRecord>,
    force_read: bool,
}

impl<'a> Earlier<'a> {
    fn new(previous: Option<&'a (Snapshot, Manifest)>, force_read: bool) -> Self {
        let files = previous.map_or(&[][..], |(_, manifest)| manifest.files.as_slice());
        Self {
            snapshot: previous.map(|(snapshot, _)| snapshot),
            by_path: files
                .iter()
                .map(|file| (file.path.as_str(), file))
                .collect(),
            by_original: files
                .iter()
                .map(|file| (file.original.as_path(), file))
                .collect(),
            force_read,
        }
    }

    fn plan(&self, file: &MachineFile) -> Result<FilePlan> {
        let stamp =
            FileStamp::of(&file.local).map_err(|error| Error::io("look at", &file.local, error))?;
        let record = self
            .by_path
            .get(file.path.as_str())
            .or_else(|| self.by_original.get(file.local.as_path()))
            .copied();
        let earlier_grid = record.and_then(|record| record.grid_bytes);
        let chunking = grid::chunking_of(file.role, &file.local, stamp.size_bytes, earlier_grid)?;
        let previous = record
            .map(|record| self.previous_file(record, stamp, &chunking))
            .transpose()?
            .flatten();
        Ok(FilePlan {
            role: file.role,
            stamp,
            source: FileSource {
                path: file.path.clone(),
                local: file.local.clone(),
                chunking,
                previous,
            },
        })
    }

    fn previous_file(
        &self,
        record: &FileRecord,
        stamp: FileStamp,
        chunking: &Chunking,
    ) -> Result<Option<PreviousFile>> {
        let Some(snapshot) = self.snapshot else {
            return Ok(None);
        };
        // The stored settings may be an adjusted text: they are small, so they are always read.
        let same = record.role != FileRole::Settings
            && record.settled
            && record.stamp == Stamp::from(stamp)
            && record.grid_bytes == grid::size_of(chunking);
        let whole = 0..stamp.size_bytes;
        Ok(Some(PreviousFile {
            snapshot: snapshot.id,
            path: tree_path(&record.path)?,
            unchanged: if same && !self.force_read {
                vec![whole]
            } else {
                Vec::new()
            },
        }))
    }
}
