//! The end of the tracking of one take: what it had to say is checked, and written down for the next one.
//!
//! Guarantees: what other repositories know stays, unless this take ended it. A scan that finds a change for which
//! tracking would have vouched ends all that is known about the machine.

use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::SnapshotStore;

use super::change_list::ChangeList;
use super::record::{KnownImages, Method, TrackedImage};
use super::tracker::{LeftTracker, Tracker};
use super::{TrackingReport, Vouched, remove_record};
use crate::error::{Error, Result};
use crate::manifest::{FileRecord, Stamp, tree_path};
use crate::ticks;

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
            self.warn_of(wrong_bytes);
            return remove_record(self.host, machine);
        }
        let mut next = self.successor(snapshot, files);
        if let Some(left) = left {
            self.add_lists(&mut next, left, snapshot, files)?;
        }
        let leaves = next.tracker.is_some();
        let mut record = self.known.record.clone();
        record.replace(next);
        record.drop_images(|_, image| self.crowded.contains(&image.path));
        if record.known.is_empty() {
            return remove_record(self.host, machine);
        }
        self.write(&record)?;
        self.made.clear();
        self.known.report.leaves_virtualbox_snapshot = leaves;
        self.remove_files(record.left_behind)
    }

    fn warn_of(&self, wrong_bytes: u64) {
        let name = &self.known.record.machine_name;
        let since = self.known.images().map(|known| known.scanned);
        let since = since.map_or_else(
            || "the last scan".to_owned(),
            |scanned| format!("{scanned:.0}"),
        );
        self.progress.warn(&format!(
            "tracking was wrong about {wrong_bytes} bytes of machine '{name}': they changed without a sign of it, as when a program writes to an image behind VirtualBox's back, or by a bug of vrs; this snapshot was read in whole and is right, but those of the machine that were taken after {since} may hold older data there: delete them with `vrs delete`; tracking begins anew, and if this happens again, set `track = false`"
        ));
    }

    /// What the lists will be about: the base images as they are now that nobody writes to them any more.
    fn add_lists(
        &mut self,
        next: &mut KnownImages,
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
                    name: self.known.record.machine_name.clone(),
                    what: disk.base.display().to_string(),
                });
            }
            next.images.push(TrackedImage {
                path: disk.base.clone(),
                stamp,
                snapshot,
                stored: file.path.clone(),
                grid,
                method: Method::ChangeList(list),
            });
        }
        let mut images = next.images.iter();
        let has_lists = images.any(|image| matches!(image.method, Method::ChangeList(_)));
        if !has_lists {
            let note =
                "no VirtualBox snapshot is left for tracking: it has images of none of the disks";
            self.known.report.notes.push(note.to_owned());
        }
        next.tracker = has_lists.then(|| left.snapshot.clone());
        Ok(())
    }

    fn successor(&mut self, snapshot: SnapshotId, files: &[FileRecord]) -> KnownImages {
        let taken = Timestamp::now();
        let former = self.known.images();
        let relied = former.filter(|_| !self.known.report.is_scan);
        let (scanned, takes_since_scan) = relied.map_or((taken, 0), |former| {
            (former.scanned, former.takes_since_scan.saturating_add(1))
        });
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
        KnownImages {
            repository: self.known.repository,
            taken,
            scanned,
            takes_since_scan,
            images: images.collect(),
            tracker: None,
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
