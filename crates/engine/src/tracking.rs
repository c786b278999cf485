//! Knowing which parts of an image are as they were in the last snapshot, so that they need not be read.
//!
//! Guarantees: off unless asked for. A range is vouched for only where `reflink` or a `change_list` proves
//! that it is as it was; whatever is missing, damaged or not as it was left means that the image is read, with a note. What a
//! record says is compared with what is there at every [`SCAN_EVERY`]th take, which reads all. Whatever vrs
//! keeps for it is told by a record first, and goes with it.
//!
//! Not guaranteed: that it saves anything. Where no method works, images are read as ever.

mod change_list;
mod conclusion;
mod differencing;
mod record;
mod reflink;
mod suitability;
mod tracker;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use vrs_progress::Progress;
use vrs_repository::id::{RepositoryId, SnapshotId};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_vdisk::VdiHead;
use vrs_virtualbox::MachineId;

pub use self::differencing::TrackerSnapshot;
pub(crate) use self::differencing::{
    ChangeLists, DESCRIPTION, ListedDisk, TrackerPlan, is_tracker,
};
use self::record::{Found, Grid, KnownImages, Method, TrackedImage, TrackingRecord};
pub(crate) use self::tracker::{LeftDisk, LeftTracker, Tracker};
use crate::capture::{Capture, CaptureMode, TrackerFate};
use crate::error::Result;
use crate::host::Host;
use crate::inventory::{Inventory, Missing};
use crate::lock::MachineLock;
use crate::machine::Machine;
use crate::manifest::{FileRole, Stamp, tree_path};
use crate::take::{FilePlan, TakeOptions, TakePlan};

/// Of so many takes in a row, one reads all.
pub const SCAN_EVERY: u32 = 16;

/// What tracking did, or would do, in a take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TrackingReport {
    /// What it vouches for, or, in a scan, would have vouched for.
    pub images: Vec<VouchedImage>,
    /// Whether all was read in order to check it.
    pub is_scan: bool,
    /// Bytes for which it would have vouched, and that had changed.
    pub wrong_bytes: u64,
    /// Whether a VirtualBox snapshot of vrs's own stays until the next take.
    pub leaves_virtualbox_snapshot: bool,
    /// Why something is read that need not be, one text each.
    pub notes: Vec<String>,
}

/// An image that is tracked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VouchedImage {
    /// The image.
    pub path: PathBuf,
    /// So much of it is as it was in the last snapshot.
    pub vouched_bytes: u64,
}

impl TrackingReport {
    /// Bytes that are not read.
    #[must_use]
    pub fn saved_bytes(&self, path: &Path) -> u64 {
        let image = self.images.iter().find(|image| image.path == path);
        image
            .filter(|_| !self.is_scan)
            .map_or(0, |image| image.vouched_bytes)
    }

    /// Of a take with tracking off, which removes what there is.
    pub(crate) fn of_removal(notes: Vec<String>) -> Option<Self> {
        (!notes.is_empty()).then(|| Self {
            notes,
            ..Self::default()
        })
    }

    fn note(&mut self, path: &Path, why: &str) {
        let path = path.display();
        self.notes.push(format!("'{path}' is read in whole: {why}"));
    }
}

/// What a take of the machine would find, without changing anything.
pub(crate) fn foresee(
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &TakePlan,
    lists: ChangeLists,
) -> TrackingReport {
    let mut known = Known::read(host, store, plan, lists);
    for file in plan.files.iter().filter(|file| is_tracked(file)) {
        if !file.is_unchanged() || known.report.is_scan {
            known.vouch(file, &file.source.local);
        }
    }
    known.report
}

/// Images only, of those the ones that are cut on a grid.
fn is_tracked(file: &FilePlan) -> bool {
    file.role == FileRole::Disk && Grid::of(&file.source.chunking).is_some()
}

/// Removes what is kept for a machine. The caller holds its lock. What cannot be removed harms nobody but the
/// volume.
pub(crate) fn forget(host: &Host, machine: MachineId, progress: &dyn Progress) {
    if let Err(error) = remove_record(host, machine) {
        progress.warn(&format!(
            "what tracking keeps could not be removed: {error}"
        ));
    }
}

fn remove_record(host: &Host, machine: MachineId) -> Result<()> {
    remove_files(change_list::heads_of(host, machine))?;
    match record::read(host, machine)? {
        Found::Nothing => return Ok(()),
        Found::Useless(_) => {}
        Found::Record(record) => remove_files(record.all_files())?,
    }
    record::remove(host, machine)
}

/// Removes what is kept for machines that are gone or for repositories that are not used any more, and what an
/// interrupted take left.
pub fn sweep(host: &Host) -> Result<()> {
    for machine in record::machines(host)? {
        // Who holds it is at work with just that.
        let Ok(_lock) = MachineLock::take(&host.state_folder, machine, "") else {
            continue;
        };
        match record::read(host, machine)? {
            Found::Record(record) if !record.settings_file.exists() => {
                remove_record(host, machine)?;
            }
            Found::Record(record) => drop_unused(host, record)?,
            Found::Nothing | Found::Useless(_) => {}
        }
    }
    Ok(())
}

fn drop_unused(host: &Host, mut record: TrackingRecord) -> Result<()> {
    let now = Timestamp::now();
    if record.known.iter().any(|known| known.is_unused(now)) {
        record.drop_images(|known, _| known.is_unused(now));
        return keep(host, &record);
    }
    remove_files(record.left_behind)
}

/// Replaces a machine's record, if there is something in it, and removes what it does not need.
fn keep(host: &Host, record: &TrackingRecord) -> Result<()> {
    if record.known.is_empty() {
        return remove_record(host, record.machine);
    }
    record::write(host, record)?;
    remove_files(record.left_behind.clone())
}

/// Deletes the VirtualBox snapshots that takes left for tracking a machine, and forgets it. The caller holds its
/// lock; nothing may be owed to it.
pub(crate) fn delete_trackers(
    host: &Host,
    store: &dyn SnapshotStore,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<()> {
    let inventory = Inventory::of(host, machine, Missing::Refuse)?;
    let options = TakeOptions::default();
    let plan = TrackerPlan::make(host, store, machine, &inventory, None, &options);
    if plan.former.is_empty() {
        return Ok(());
    }
    plan.refuse_without_room(machine, &inventory)?;
    let mode = CaptureMode::Memory;
    let mut capture = Capture::begin(host, machine, &inventory, mode, plan.intent(), progress)?;
    capture.set_tracker_fate(TrackerFate::Forgotten);
    capture.thaw(host)?;
    capture.finish()
}

fn remove_files(files: Vec<PathBuf>) -> Result<()> {
    files.iter().try_for_each(|file| reflink::remove(file))
}

/// What the record says, and what came of asking it.
struct Known<'a> {
    record: TrackingRecord,
    repository: RepositoryId,
    /// Those that the repository has.
    snapshots: &'a BTreeSet<SnapshotId>,
    lists: ChangeLists,
    report: TrackingReport,
}

impl<'a> Known<'a> {
    fn read(
        host: &Host,
        store: &dyn SnapshotStore,
        plan: &'a TakePlan,
        lists: ChangeLists,
    ) -> Self {
        let machine = &plan.machine;
        let repository = store.id();
        let (record, why) = match record::read(host, machine.id) {
            Ok(Found::Record(record)) => (Some(record), None),
            Ok(Found::Useless(why)) => (None, Some(why.to_owned())),
            Ok(Found::Nothing) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut record = record.unwrap_or_else(|| TrackingRecord::new(machine.id));
        record.machine_name.clone_from(&machine.name);
        record.settings_file.clone_from(&machine.settings_file);
        // There is one chain of differencing images, and this take ends it.
        record.drop_images(|known, image| {
            known.repository != repository && (known.tracker.is_some() || !image.is_in_place())
        });
        let known = record.known_for(repository);
        let takes_since_scan = known.map_or(0, |known| known.takes_since_scan);
        let report = TrackingReport {
            is_scan: plan.options.force_read || takes_since_scan.saturating_add(1) >= SCAN_EVERY,
            leaves_virtualbox_snapshot: lists.leaves,
            notes: why
                .map(|why| format!("all is read: {why}"))
                .into_iter()
                .chain(lists.notes.iter().cloned())
                .collect(),
            ..TrackingReport::default()
        };
        Self {
            record,
            repository,
            snapshots: &plan.snapshots,
            lists,
            report,
        }
    }

    fn images(&self) -> Option<&KnownImages> {
        self.record.known_for(self.repository)
    }

    /// What is unchanged of a file, whose present bytes `now` has.
    fn vouch(&mut self, file: &FilePlan, now: &Path) -> Option<Vouched> {
        let path = &file.source.local;
        let image = self.images()?.image(path)?;
        let merged = self.lists.merged.as_ref();
        if merged.is_none() && matches!(image.method, Method::ChangeList(_)) {
            // What is not as it was left is in the notes.
            return None;
        }
        let merged = merged.and_then(|merged| merged.get(path));
        let vouched = match self.snapshots.contains(&image.snapshot) {
            true => vouched(image, file, now, merged),
            false => Err("the snapshot that holds its former bytes is gone".to_owned()),
        };
        match vouched {
            Ok(vouched) => {
                let lengths = vouched
                    .ranges
                    .iter()
                    .map(|range| range.end.saturating_sub(range.start));
                self.report.images.push(VouchedImage {
                    path: path.clone(),
                    vouched_bytes: lengths.sum(),
                });
                Some(vouched)
            }
            Err(why) => {
                self.report.note(path, &why);
                None
            }
        }
    }
}

/// Parts of a file that are as they are stored.
#[derive(Debug, Clone)]
struct Vouched {
    local: PathBuf,
    snapshot: SnapshotId,
    stored: TreePath,
    ranges: Vec<Range<u64>>,
}

/// The answer of the image's method, or why it cannot be asked.
fn vouched(
    image: &TrackedImage,
    file: &FilePlan,
    now: &Path,
    merged: Option<&VdiHead>,
) -> std::result::Result<Vouched, String> {
    if Grid::of(&file.source.chunking) != Some(image.grid) {
        return Err("its data begins elsewhere, or is cut otherwise".to_owned());
    }
    if image.stamp.inode != Stamp::from(file.stamp).inode {
        return Err("another file has taken its place".to_owned());
    }
    let stored = tree_path(&image.stored).map_err(|error| error.to_string())?;
    let ranges = match &image.method {
        Method::Reflink(held) if !held.is_sound() => {
            return Err("the clone of it is gone or was touched".to_owned());
        }
        Method::Reflink(held) => reflink::unchanged(&held.path, now, image.grid.chunk_bytes.into())
            .map_err(|error| format!("it cannot be compared with its clone: {error}"))?,
        Method::ChangeList(list) => {
            let head = VdiHead::of_image(now).map_err(|error| error.to_string())?;
            list.unchanged(merged, &head)?
        }
    };
    Ok(Vouched {
        local: file.source.local.clone(),
        snapshot: image.snapshot,
        stored,
        ranges: whole_chunks(
            ranges,
            image.grid,
            image.stored_bytes(),
            file.stamp.size_bytes,
        ),
    })
}

/// The whole chunks in ranges. The last chunk of a file that has another length now would be cut otherwise by
/// a scan.
fn whole_chunks(
    ranges: Vec<Range<u64>>,
    grid: Grid,
    old_bytes: u64,
    new_bytes: u64,
) -> Vec<Range<u64>> {
    let cut = |range: Range<u64>| {
        let is_to_the_end = old_bytes == new_bytes && range.end == new_bytes;
        let end = match is_to_the_end {
            true => range.end,
            false => grid.point_before(range.end),
        };
        grid.point_after(range.start)..end
    };
    let mut chunks: Vec<_> = ranges.into_iter().map(cut).collect();
    chunks.retain(|range| range.start < range.end);
    chunks
}
