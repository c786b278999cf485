//! Knowing which parts of an image are as they were in the last snapshot, so that they need not be read.
//!
//! Guarantees: off unless asked for. A range is vouched for only where `reflink` proves that it is as it
//! was; whatever is missing, damaged or not as it was left means that the image is read, with a note. What a
//! record says is compared with what is there at every [`SCAN_EVERY`]th take, which reads all. Whatever vrs
//! keeps for it is told by a record first, and goes with it.
//!
//! Not guaranteed: that it saves anything. Where no method works, images are read as ever.

mod record;
mod reflink;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{PreviousFile, SnapshotStore, TreePath};
use vrs_virtualbox::MachineId;

use self::record::{Found, Grid, Method, TrackedImage, TrackingRecord};
use self::reflink::HeldClone;
use crate::error::Result;
use crate::host::Host;
use crate::lock::MachineLock;
use crate::manifest::{FileRecord, FileRole, Stamp, tree_path};
use crate::platform;
use crate::take::{FilePlan, TakePlan};

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

    fn note(&mut self, path: &Path, why: &str) {
        let path = path.display();
        self.notes.push(format!("'{path}' is read in whole: {why}"));
    }
}

/// What a take of the machine would find, without changing anything.
pub(crate) fn foresee(host: &Host, store: &dyn SnapshotStore, plan: &TakePlan) -> TrackingReport {
    let mut known = Known::read(host, store, plan);
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
    match record::read(host, machine)? {
        Found::Nothing => return Ok(()),
        Found::Useless(_) => {}
        Found::Record(record) => remove_files(record.all_files())?,
    }
    record::remove(host, machine)
}

/// Removes what is kept for machines that are gone, and what an interrupted take left.
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
            Found::Record(record) => remove_files(record.left_behind)?,
            Found::Nothing | Found::Useless(_) => {}
        }
    }
    Ok(())
}

fn remove_files(files: Vec<PathBuf>) -> Result<()> {
    files.iter().try_for_each(|file| reflink::remove(file))
}

/// What the record says, and what came of asking it.
struct Known<'a> {
    record: TrackingRecord,
    /// Those that the repository has.
    snapshots: &'a BTreeSet<SnapshotId>,
    report: TrackingReport,
}

impl<'a> Known<'a> {
    fn read(host: &Host, store: &dyn SnapshotStore, plan: &'a TakePlan) -> Self {
        let machine = &plan.machine;
        let (record, why) = match record::read(host, machine.id) {
            Ok(Found::Record(record)) if record.repository == Some(store.id()) => {
                (Some(record), None)
            }
            Ok(Found::Record(record)) => {
                let why = "the last snapshot went into another repository";
                (Some(record.without_images()), Some(why.to_owned()))
            }
            Ok(Found::Useless(why)) => (None, Some(why.to_owned())),
            Ok(Found::Nothing) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut record = record.unwrap_or_else(|| TrackingRecord::new(machine.id));
        record.machine_name.clone_from(&machine.name);
        record.settings_file.clone_from(&machine.settings_file);
        record.repository = Some(store.id());
        let report = TrackingReport {
            is_scan: plan.options.force_read
                || record.takes_since_scan.saturating_add(1) >= SCAN_EVERY,
            notes: why
                .map(|why| format!("all is read: {why}"))
                .into_iter()
                .collect(),
            ..TrackingReport::default()
        };
        Self {
            record,
            snapshots: &plan.snapshots,
            report,
        }
    }

    /// What is unchanged of a file, whose present bytes `now` has.
    fn vouch(&mut self, file: &FilePlan, now: &Path) -> Option<Vouched> {
        let path = &file.source.local;
        let image = self.record.image(path)?;
        let vouched = match self.snapshots.contains(&image.snapshot) {
            true => vouched(image, file, now),
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
    };
    Ok(Vouched {
        local: file.source.local.clone(),
        snapshot: image.snapshot,
        stored,
        ranges: whole_chunks(ranges, image.grid, image.stamp.size, file.stamp.size_bytes),
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

/// The tracking of one take. The machine's lock is held and its images hold still from [`Tracker::begin`] until
/// they were read. Dropped before [`Tracker::finish`], it leaves everything as it was.
pub(crate) struct Tracker<'a> {
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    progress: &'a dyn Progress,
    known: Known<'a>,
    /// What the next record says, but for the snapshot.
    next: Vec<Following>,
    /// What a scan compares.
    claims: Vec<Vouched>,
    /// Clones that no record needs yet.
    made: Vec<PathBuf>,
    /// What they could come to hold in all.
    promised_bytes: u64,
}

/// An image that the next take may know.
struct Following {
    path: PathBuf,
    grid: Grid,
    method: Method,
}

impl<'a> Tracker<'a> {
    /// Looks at what is known, and takes care that the files hand over what is unchanged. What fails here costs
    /// time and no more.
    pub(crate) fn begin(
        host: &'a Host,
        store: &'a dyn SnapshotStore,
        plan: &'a TakePlan,
        files: &mut [FilePlan],
        progress: &'a dyn Progress,
    ) -> Self {
        let mut tracker = Self {
            host,
            store,
            progress,
            known: Known::read(host, store, plan),
            next: Vec::new(),
            claims: Vec::new(),
            made: Vec::new(),
            promised_bytes: 0,
        };
        let mut tracked: Vec<_> = files.iter_mut().filter(|file| is_tracked(file)).collect();
        let begun = tracker
            .clear(&tracked)
            .and_then(|()| tracker.follow(&mut tracked));
        if let Err(error) = begun {
            let note = format!("all is read: {error}");
            tracker.known.report.notes.push(note);
        }
        tracker
    }

    /// Removes what earlier takes left of this machine, also where no record tells of it.
    fn clear(&mut self, files: &[&mut FilePlan]) -> Result<()> {
        let record = &mut self.known.record;
        let beside = files
            .iter()
            .flat_map(|file| reflink::clones_beside(&file.source.local, record.machine));
        let mut stray: Vec<PathBuf> = beside.collect();
        stray.retain(|path| !record.own_files().any(|own| own == path));
        stray.append(&mut record.left_behind);
        self.remove_files(stray)
    }

    fn remove_files(&self, files: Vec<PathBuf>) -> Result<()> {
        for file in files {
            self.progress.step("clone-remove");
            reflink::remove(&file)?;
        }
        Ok(())
    }

    fn write(&self, record: &TrackingRecord) -> Result<()> {
        self.progress.step("tracking-record");
        record::write(self.host, record)
    }

    fn follow(&mut self, files: &mut [&mut FilePlan]) -> Result<()> {
        if self.store.chunk_lists().is_none() {
            let why = "tracking does nothing here: this kind of repository reads images in whole";
            self.known.report.notes.push(why.to_owned());
            return Ok(());
        }
        let planned: Vec<_> = files
            .iter()
            .map(|file| reflink::new_path(&file.source.local, self.known.record.machine))
            .collect();
        // What is made is known before it is there.
        self.known.record.left_behind.clone_from(&planned);
        self.write(&self.known.record)?;
        for (file, clone) in files.iter_mut().zip(planned) {
            self.follow_file(file, clone);
        }
        Ok(())
    }

    /// The clone comes first. It is compared, not the image: what somebody writes to the image from now on
    /// makes the next clone differ from this one.
    fn follow_file(&mut self, file: &mut FilePlan, clone: PathBuf) {
        let Some(grid) = Grid::of(&file.source.chunking) else {
            return;
        };
        let path = file.source.local.clone();
        if file.is_unchanged()
            && !self.known.report.is_scan
            && let Some(image) = self.known.record.image(&path)
            && image.is_still(grid, file.stamp.into())
        {
            let method = image.method.clone();
            self.next.push(Following { path, grid, method });
            return;
        }
        let held = match self.make_clone(&path, clone) {
            Ok(held) => Some(held),
            Err(why) => {
                self.tell_why_not(&path, &why);
                None
            }
        };
        if !file.is_unchanged() || self.known.report.is_scan {
            let vouched = held
                .as_ref()
                .and_then(|held| self.known.vouch(file, &held.path));
            self.use_of(vouched, file);
        }
        self.next.extend(held.map(|held| Following {
            path,
            grid,
            method: Method::Reflink(held),
        }));
    }

    /// A clone comes to hold as much as the image, if the guest writes all of it anew: for that there has to be
    /// room, so that no guest ever stops for want of it.
    fn make_clone(
        &mut self,
        image: &Path,
        path: PathBuf,
    ) -> std::result::Result<HeldClone, String> {
        let sizes = platform::allocated_bytes(image)
            .and_then(|allocated_bytes| Ok((allocated_bytes, platform::free_bytes(image)?)));
        let (allocated_bytes, free_bytes) = sizes.map_err(|error| error.to_string())?;
        let promised_bytes = self.promised_bytes.saturating_add(allocated_bytes);
        if free_bytes < promised_bytes {
            return Err(format!(
                "its volume has no room for the {allocated_bytes} bytes that its clone could come to need"
            ));
        }
        self.promised_bytes = promised_bytes;
        self.made.push(path.clone());
        self.progress.step("clone");
        HeldClone::make(image, path).map_err(|error| format!("it cannot be cloned ({error})"))
    }

    /// Once is enough for all images of one volume.
    fn tell_why_not(&mut self, image: &Path, why: &str) {
        let notes = &mut self.known.report.notes;
        if !notes.iter().any(|note| note.ends_with(why)) {
            let image = image.display();
            notes.push(format!("tracking does nothing for '{image}': {why}"));
        }
    }

    fn use_of(&mut self, vouched: Option<Vouched>, file: &mut FilePlan) {
        if self.known.report.is_scan {
            if let Some(previous) = &mut file.source.previous {
                previous.unchanged.clear();
            }
            self.claims.extend(vouched);
        } else if let Some(vouched) = vouched {
            file.source.previous = Some(PreviousFile {
                snapshot: vouched.snapshot,
                path: vouched.stored,
                unchanged: vouched.ranges,
            });
        }
    }
}

impl Tracker<'_> {
    /// What the snapshot that was made says to the next take. Nothing that fails here harms the snapshot.
    pub(crate) fn finish(mut self, snapshot: SnapshotId, files: &[FileRecord]) -> TrackingReport {
        if let Err(error) = self.conclude(snapshot, files) {
            let note = format!("the next take reads all: {error}");
            self.known.report.notes.push(note);
        }
        std::mem::take(&mut self.known.report)
    }

    fn conclude(&mut self, snapshot: SnapshotId, files: &[FileRecord]) -> Result<()> {
        let machine = self.known.record.machine;
        self.check_claims(snapshot, files);
        let wrong_bytes = self.known.report.wrong_bytes;
        if wrong_bytes > 0 {
            self.progress.warn(&format!(
                "tracking was wrong about {wrong_bytes} bytes of machine '{}': snapshots that were taken since the last scan may hold older data there; this one was read in whole and is right, and tracking begins anew",
                self.known.record.machine_name
            ));
            return remove_record(self.host, machine);
        }
        let mut record = self.successor(snapshot, files);
        if record.images.is_empty() {
            return remove_record(self.host, machine);
        }
        record.left_behind = self.known.record.all_files();
        let needed: Vec<_> = record.own_files().map(Path::to_owned).collect();
        record.left_behind.retain(|path| !needed.contains(path));
        self.write(&record)?;
        self.made.clear();
        self.remove_files(record.left_behind)
    }

    fn successor(&mut self, snapshot: SnapshotId, files: &[FileRecord]) -> TrackingRecord {
        let known = &self.known;
        let relied = !known.report.is_scan && !known.record.images.is_empty();
        let images = self.next.drain(..).filter_map(|following| {
            let file = file_of(files, &following.path)?;
            Some(TrackedImage {
                path: following.path,
                stamp: file.stamp,
                snapshot,
                stored: file.path.clone(),
                grid: following.grid,
                method: following.method,
            })
        });
        let images: Vec<_> = images.collect();
        TrackingRecord {
            takes_since_scan: match relied {
                true => known.record.takes_since_scan.saturating_add(1),
                false => 0,
            },
            images,
            ..known.record.clone()
        }
    }

    /// Looks whether what was read is as it would have been vouched for.
    fn check_claims(&mut self, snapshot: SnapshotId, files: &[FileRecord]) {
        let report = &mut self.known.report;
        for claim in self.claims.drain(..) {
            match wrong_bytes(self.store, &claim, snapshot, files) {
                Ok(bytes) => report.wrong_bytes = report.wrong_bytes.saturating_add(bytes),
                Err(error) => {
                    let path = claim.local.display();
                    report
                        .notes
                        .push(format!("tracking of '{path}' was not checked: {error}"));
                }
            }
        }
    }
}

/// Bytes of chunks that were vouched for and differ.
fn wrong_bytes(
    store: &dyn SnapshotStore,
    claim: &Vouched,
    snapshot: SnapshotId,
    files: &[FileRecord],
) -> Result<u64> {
    let Some((lists, file)) = store.chunk_lists().zip(file_of(files, &claim.local)) else {
        return Ok(0);
    };
    let now = tree_path(&file.path)?;
    let differing = lists.differing_chunks((&claim.snapshot, &claim.stored), (&snapshot, &now))?;
    let is_claimed = |chunk: &&Range<u64>| {
        let mut ranges = claim.ranges.iter();
        ranges.any(|range| range.start <= chunk.start && chunk.end <= range.end)
    };
    let wrong = differing.iter().filter(is_claimed);
    Ok(wrong
        .map(|chunk| chunk.end.saturating_sub(chunk.start))
        .sum())
}

fn file_of<'a>(files: &'a [FileRecord], original: &Path) -> Option<&'a FileRecord> {
    files.iter().find(|file| file.original == original)
}

impl Drop for Tracker<'_> {
    fn drop(&mut self) {
        // The record names them: what cannot be removed now is removed later.
        let _ = remove_files(std::mem::take(&mut self.made));
    }
}
