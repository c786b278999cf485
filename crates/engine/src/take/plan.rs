//! What taking a snapshot will read, and what it need not.

use std::collections::{BTreeMap, BTreeSet};

use vrs_repository::id::SnapshotId;
use vrs_repository::store::{Chunking, FileSource, FileStamp, PreviousFile, SnapshotStore};
use vrs_virtualbox::{MachineSettings, MediumId};

use crate::capture::CaptureMode;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::{Inventory, MachineFile, Missing};
use crate::machine::Machine;
use crate::manifest::{FileRecord, FileRole, Manifest, Stamp, tree_path};
use crate::preflight::{self, PreflightRequest, Verdict};
use crate::snapshot::{self, Snapshot};
use crate::tracking::{self, TrackerPlan, TrackingReport};
use crate::{catalog, grid, permission, selection};

/// What the user says about a new snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeOptions {
    /// How to capture a machine that is running; none means with its memory.
    pub mode: Option<CaptureMode>,
    /// Refuse a snapshot that lost the memory it should have held.
    pub strict: bool,
    /// Attached disks to leave out, by place, path, file name or id.
    pub skip_disks: Vec<String>,
    /// Names of verdicts that shall not keep a running machine from being captured.
    pub force: Vec<String>,
    /// A name to find it by, unique for the machine.
    pub name: Option<String>,
    /// A description.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Read every file, also those that are known unchanged.
    pub force_read: bool,
    /// Keep what tells the next take which parts of the images did not change, see
    /// [`tracking`](crate::tracking).
    pub track: bool,
    /// Id of the migration, if the machine moves into the snapshot.
    pub migration: Option<String>,
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

/// The snapshot that a new one builds on.
#[derive(Debug, Clone)]
pub struct Previous {
    /// Its entry in the list.
    pub snapshot: Snapshot,
    /// What it holds.
    pub manifest: Manifest,
}

/// What a take will do.
#[derive(Debug, Clone)]
pub struct TakePlan {
    /// The machine.
    pub machine: Machine,
    /// How it is made to hold still; none for a machine at rest.
    pub capture: Option<CaptureMode>,
    /// Whether that could hurt it, or store less than it seems to.
    pub verdicts: Vec<Verdict>,
    /// What it consists of.
    pub inventory: Inventory,
    /// Images that are left out.
    pub skipped: BTreeSet<MediumId>,
    /// What will be stored. A running machine's files are looked at anew once they hold still.
    pub files: Vec<FilePlan>,
    /// The snapshot it builds on.
    pub previous: Option<Previous>,
    /// All snapshots of the repository.
    pub(crate) snapshots: BTreeSet<SnapshotId>,
    /// What happens to VirtualBox snapshots that stay between takes.
    pub(crate) tracker: TrackerPlan,
    /// What tracking would do, if there is something to do and [`Self::foresee`] was asked.
    pub tracking: Option<TrackingReport>,
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
        refuse_encrypted(machine)?;
        let capture = permission::to_take(machine, options.mode)?;
        let snapshots = catalog::snapshots(store)?.snapshots;
        check_options(&snapshots, machine, &options)?;
        let inventory = Inventory::of(host, machine, Missing::Refuse)?;
        let skipped = preflight::skipped_media(&inventory, &options.skip_disks)?;
        let verdicts = match capture {
            Some(mode) => examine(host, machine, &inventory, mode, &options)?,
            None => {
                preflight::examine_at_rest(machine, &inventory.without(host, machine, &skipped)?)
            }
        };
        let previous = latest_readable(store, &snapshots, machine)?;
        let tracker = TrackerPlan::make(host, store, machine, &inventory, capture, &options);
        let mut plan = Self {
            machine: machine.clone(),
            capture,
            verdicts,
            inventory: tracker.without_former(host, machine, &inventory)?,
            tracker,
            skipped,
            files: Vec::new(),
            previous,
            snapshots: snapshots.iter().map(|snapshot| snapshot.id).collect(),
            tracking: None,
            options,
        };
        plan.files = plan.files_of(&plan.to_store(host, &plan.inventory)?)?;
        Ok(plan)
    }

    /// The same with what tracking would do, for those who show the plan. A take finds it out by itself once nobody
    /// writes to the images.
    #[must_use]
    pub fn foresee(mut self, host: &Host, store: &dyn SnapshotStore) -> Self {
        self.tracking = if self.options.track {
            let lists = self.tracker.foreseen();
            Some(tracking::foresee(host, store, &self, lists))
        } else {
            TrackingReport::of_removal(self.tracker.notes.clone())
        };
        self
    }

    /// What to do so that more computers can resume the machine, said when it moves and once after
    /// that.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let previous = self.previous.as_ref();
        let has_moved = previous.is_some_and(|previous| previous.snapshot.migration.is_some());
        self.advice_for_moving().filter(|_| has_moved)
    }

    pub(crate) fn advice_for_moving(&self) -> Option<String> {
        let has_memory = self.capture.is_some_and(CaptureMode::has_memory)
            || self.inventory.settings.state_file.is_some();
        let hides_nothing = self.inventory.settings.hardware.cpuid_portability_level == 0;
        (has_memory && hides_nothing).then(|| {
            format!(
                "machine '{0}' sees all features of this computer's processor, and resumes only where it finds them again; `VBoxManage modifyvm \"{0}\" --cpuid-portability-level 1`, while it is powered off, lets it move to more computers",
                self.machine.name
            )
        })
    }

    /// An inventory of the machine without the disks that are left out.
    pub(super) fn to_store(&self, host: &Host, inventory: &Inventory) -> Result<Inventory> {
        inventory.without(host, &self.machine, &self.skipped)
    }

    /// What to read of the files in an inventory, as they are now.
    pub(super) fn files_of(&self, inventory: &Inventory) -> Result<Vec<FilePlan>> {
        let earlier = Earlier::new(self.previous.as_ref(), self.options.force_read);
        inventory
            .files
            .iter()
            .map(|file| earlier.plan(file))
            .collect()
    }

    /// Bytes that will be read from disk, but for what is not foreseen.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        let read = self.files.iter().map(|file| self.read_bytes_of(file));
        read.fold(0, u64::saturating_add)
    }

    fn read_bytes_of(&self, file: &FilePlan) -> u64 {
        let is_scan = self
            .tracking
            .as_ref()
            .is_some_and(|tracking| tracking.is_scan);
        if file.is_unchanged() && !(is_scan && file.role == FileRole::Disk) {
            return 0;
        }
        file.stamp
            .size_bytes
            .saturating_sub(self.vouched_bytes(file))
    }

    /// Bytes of a file that tracking would vouch for, so that they are not read.
    #[must_use]
    pub fn vouched_bytes(&self, file: &FilePlan) -> u64 {
        let tracking = self.tracking.as_ref();
        tracking.map_or(0, |tracking| tracking.saved_bytes(&file.source.local))
    }
}

fn examine(
    host: &Host,
    machine: &Machine,
    inventory: &Inventory,
    mode: CaptureMode,
    options: &TakeOptions,
) -> Result<Vec<Verdict>> {
    let request = PreflightRequest {
        mode,
        skip_disks: options.skip_disks.clone(),
        force: options.force.clone(),
    };
    preflight::examine(host, machine, inventory, &request)
}

/// Refuses a machine that VirtualBox cannot open because nobody told it the password.
fn refuse_encrypted(machine: &Machine) -> Result<()> {
    if !machine.state.is_inaccessible() {
        return Ok(());
    }
    match MachineSettings::read(&machine.settings_file) {
        Err(error @ vrs_virtualbox::Error::Encrypted { .. }) => Err(error.into()),
        _ => Ok(()),
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
    options
        .tags
        .iter()
        .try_for_each(|tag| snapshot::check_tag(tag))
}

/// The machine's last snapshot whose manifest this version understands. An older vrs builds on
/// what it knows; it never fails because a newer one was here.
fn latest_readable(
    store: &dyn SnapshotStore,
    snapshots: &[Snapshot],
    machine: &Machine,
) -> Result<Option<Previous>> {
    for snapshot in snapshots
        .iter()
        .rev()
        .filter(|snapshot| snapshot.machine == machine.id)
    {
        match catalog::manifest(store, &snapshot.id) {
            Ok(manifest) => {
                return Ok(Some(Previous {
                    snapshot: snapshot.clone(),
                    manifest,
                }));
            }
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
    fn new(previous: Option<&'a Previous>, force_read: bool) -> Self {
        let files = previous.map_or(&[][..], |previous| previous.manifest.files.as_slice());
        Self {
            snapshot: previous.map(|previous| &previous.snapshot),
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
