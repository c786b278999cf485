//! The tracking of one take: what earlier ones left is asked and checked, and the next one finds what it needs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{PreviousFile, SnapshotStore};
use vrs_vdisk::VdiHead;
use vrs_virtualbox::MediumId;

use super::change_list::{self, ChangeList, HeldHead};
use super::differencing::{ChangeLists, TrackerSnapshot};
use super::record::{self, Grid, Method, TrackedImage, TrackingRecord};
use super::reflink::{self, HeldClone};
use super::{Known, TrackingReport, Vouched, is_tracked, remove_files, remove_record};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::{FileRecord, Stamp, tree_path};
use crate::platform;
use crate::take::{FilePlan, TakePlan};
use crate::ticks;

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
    /// Heads of base images as they are stored.
    heads: BTreeMap<PathBuf, (Grid, HeldHead)>,
    /// Clones and heads that no record needs yet.
    made: Vec<PathBuf>,
    /// What they could come to hold in all.
    promised_bytes: u64,
}

/// A VirtualBox snapshot that stays until the next take.
#[derive(Debug, Clone)]
pub(crate) struct LeftTracker {
    pub(crate) snapshot: TrackerSnapshot,
    pub(crate) disks: Vec<LeftDisk>,
}

/// A disk below it.
#[derive(Debug, Clone)]
pub(crate) struct LeftDisk {
    pub(crate) base: PathBuf,
    /// The differencing image that the guest writes to from now on.
    pub(crate) active: MediumId,
    /// The head of the one that it wrote to while the base image was read, if there was one.
    pub(crate) merged: Option<VdiHead>,
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
        lists: ChangeLists,
        files: &mut [FilePlan],
        progress: &'a dyn Progress,
    ) -> Self {
        let mut tracker = Self {
            host,
            store,
            progress,
            known: Known::read(host, store, plan, lists),
            next: Vec::new(),
            claims: Vec::new(),
            heads: BTreeMap::new(),
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
        let heads = change_list::heads_of(self.host, record.machine);
        let mut stray: Vec<PathBuf> = beside.chain(heads).collect();
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
        let lists = &self.known.lists;
        if lists.leaves || lists.merged.is_some() {
            return self.follow_lists(files);
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

    /// Each base image holds still from before its head is read until all of it was.
    fn follow_lists(&mut self, files: &mut [&mut FilePlan]) -> Result<()> {
        for file in files {
            let path = file.source.local.clone();
            let Some(grid) = Grid::of(&file.source.chunking) else {
                continue;
            };
            if !file.is_unchanged() || self.known.report.is_scan {
                let vouched = self.known.vouch(file, &path);
                self.use_of(vouched, file);
            }
            if !self.known.lists.leaves {
                continue;
            }
            match self.keep_head(file) {
                Ok(head) => drop(self.heads.insert(path, (grid, head))),
                Err(why) => self.tell_why_not(&path, &why),
            }
        }
        Ok(())
    }

    fn keep_head(&mut self, file: &FilePlan) -> std::result::Result<HeldHead, String> {
        let head = VdiHead::of_image(&file.source.local).map_err(|error| error.to_string())?;
        self.keep(&head, file.stamp.size_bytes)
    }

    /// A file that no record names is removed by the next take.
    fn keep(&mut self, head: &VdiHead, image_bytes: u64) -> std::result::Result<HeldHead, String> {
        let path = change_list::new_path(self.host, self.known.record.machine);
        self.made.push(path.clone());
        self.progress.step("head-keep");
        HeldHead::keep(head, image_bytes, path)
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
    /// Whether there is something that a tracker would be left for.
    pub(crate) fn has_heads(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Says why there will be no change lists.
    pub(crate) fn tell_failure(&mut self, error: &Error) {
        let note = format!("no VirtualBox snapshot is left for tracking: {error}");
        self.known.report.notes.push(note);
    }

    /// What the snapshot that was made says to the next take. Nothing that fails here harms the snapshot.
    /// Where the report does not say that a VirtualBox snapshot stays, it is no use.
    pub(crate) fn finish(
        mut self,
        snapshot: SnapshotId,
        files: &[FileRecord],
        left: Option<&LeftTracker>,
    ) -> TrackingReport {
        self.known.report.leaves_virtualbox_snapshot = false;
        if let Err(error) = self.conclude(snapshot, files, left) {
            let note = format!("the next take reads all: {error}");
            self.known.report.notes.push(note);
        }
        std::mem::take(&mut self.known.report)
    }

    fn conclude(
        &mut self,
        snapshot: SnapshotId,
        files: &[FileRecord],
        left: Option<&LeftTracker>,
    ) -> Result<()> {
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
        if let Some(left) = left {
            self.add_lists(&mut record, left, snapshot, files)?;
        }
        if record.images.is_empty() {
            return remove_record(self.host, machine);
        }
        record.left_behind = self.known.record.all_files();
        let needed: Vec<_> = record.own_files().map(Path::to_owned).collect();
        record.left_behind.retain(|path| !needed.contains(path));
        self.write(&record)?;
        self.made.clear();
        self.known.report.leaves_virtualbox_snapshot = record.tracker.is_some();
        self.remove_files(record.left_behind)
    }

    /// What the lists will be about: the base images as they are now that nobody writes to them any more.
    fn add_lists(
        &mut self,
        record: &mut TrackingRecord,
        left: &LeftTracker,
        snapshot: SnapshotId,
        files: &[FileRecord],
    ) -> Result<()> {
        for disk in &left.disks {
            let kept = self.heads.remove(&disk.base);
            let Some(((grid, stored), file)) = kept.zip(file_of(files, &disk.base)) else {
                continue;
            };
            let merged = disk.merged.iter().map(|head| {
                let kept = self.keep(head, u64::MAX);
                kept.map_err(|why| {
                    Error::io(
                        "keep the block map of",
                        &disk.base,
                        std::io::Error::other(why),
                    )
                })
            });
            let list = ChangeList {
                stored,
                merged: merged.collect::<Result<_>>()?,
                active: disk.active,
            };
            let stamp = Stamp::from(ticks::settled_stamp(&disk.base)?);
            if disk.merged.is_none() && stamp != file.stamp {
                return Err(Error::ChangedWhileRead {
                    name: record.machine_name.clone(),
                    what: disk.base.display().to_string(),
                });
            }
            record.images.push(TrackedImage {
                path: disk.base.clone(),
                stamp,
                snapshot,
                stored: file.path.clone(),
                grid,
                method: Method::ChangeList(list),
            });
        }
        let lists = record
            .images
            .iter()
            .filter(|image| matches!(image.method, Method::ChangeList(_)));
        let has_lists = lists.count() > 0;
        if !has_lists {
            let note =
                "no VirtualBox snapshot is left for tracking: it has images of none of the disks";
            self.known.report.notes.push(note.to_owned());
        }
        record.tracker = has_lists.then(|| left.snapshot.clone());
        Ok(())
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
            tracker: None,
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
