//! The tracking of one take: what earlier ones left is asked and checked, and the next one finds what it needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_repository::store::{PreviousFile, SnapshotStore};
use vrs_vdisk::VdiHead;
use vrs_virtualbox::MediumId;

use super::change_list::{self, HeldHead};
use super::differencing::{ChangeLists, TrackerSnapshot};
use super::record::{self, Grid, Method, TrackingRecord};
use super::reflink::{self, HeldClone};
use super::{Known, Vouched, is_tracked, remove_files};
use crate::error::Result;
use crate::host::Host;
use crate::platform;
use crate::take::{FilePlan, TakePlan};

/// The tracking of one take. The machine's lock is held and its images hold still from [`Tracker::begin`] until
/// they were read. Dropped before [`Tracker::finish`], it leaves everything as it was.
pub(crate) struct Tracker<'a> {
    pub(super) host: &'a Host,
    pub(super) store: &'a dyn SnapshotStore,
    pub(super) progress: &'a dyn Progress,
    pub(super) known: Known<'a>,
    /// What the next record says, but for the snapshot.
    pub(super) next: Vec<Following>,
    /// What a scan compares.
    pub(super) claims: Vec<Vouched>,
    /// Heads of base images as they are stored.
    pub(super) heads: BTreeMap<PathBuf, (Grid, HeldHead)>,
    /// Clones and heads that no record needs yet.
    pub(super) made: Vec<PathBuf>,
    /// What they could come to hold in all.
    promised_bytes: u64,
    /// Images on volumes that have no room for what their clones could come to hold.
    pub(super) crowded: Vec<PathBuf>,
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
pub(super) struct Following {
    pub(super) path: PathBuf,
    pub(super) grid: Grid,
    pub(super) method: Method,
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
            crowded: Vec::new(),
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

    pub(super) fn remove_files(&self, files: Vec<PathBuf>) -> Result<()> {
        for file in files {
            self.progress.step("clone-remove");
            reflink::remove(&file)?;
        }
        Ok(())
    }

    pub(super) fn write(&self, record: &TrackingRecord) -> Result<()> {
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
    pub(super) fn keep(
        &mut self,
        head: &VdiHead,
        image_bytes: u64,
    ) -> std::result::Result<HeldHead, String> {
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
            && let Some(image) = self.known.images().and_then(|known| known.image(&path))
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
    /// room, so that no guest ever stops for want of it. Several clones need no more: what the guest has
    /// written over in one of them lies there already, and what it has not they share.
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
            self.crowded.push(image.to_owned());
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

impl Drop for Tracker<'_> {
    fn drop(&mut self) {
        // The record names them: what cannot be removed now is removed later.
        let _ = remove_files(std::mem::take(&mut self.made));
    }
}
