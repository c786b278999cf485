//! Fetching a missing file of a machine from a snapshot.
//!
//! Guarantees: the file gets its name only when it is complete and was found to be what it should
//! be; a damaged one that is in its place is put aside, not removed.

use std::path::Path;

use vrs_repository::id::SnapshotId;
use vrs_repository::store::{RestoreFile, RestoreRequest};
use vrs_vdisk::VdiHeader;
use vrs_virtualbox::SavedState;

use super::carry_out::{Repair, beside};
use super::repair::{FetchedFile, ImageIdentity};
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::manifest::tree_path;
use crate::platform;

impl Repair<'_> {
    pub(super) fn fetch(
        &mut self,
        path: &str,
        target: &Path,
        what: FetchedFile,
        aside: Option<&Path>,
    ) -> Result<()> {
        // An earlier run may have put it in place.
        if target.exists() && aside.is_none_or(Path::exists) {
            return Ok(());
        }
        let unfinished = beside(target);
        let fetched = self
            .fetch_to(path, &unfinished)
            .and_then(|()| self.check(&unfinished, target, what));
        if let Err(error) = fetched {
            // A part of a file is of no use; what was fetched is fetched again.
            let _ = std::fs::remove_file(&unfinished);
            return Err(error);
        }
        self.journal.record(Step::Settle, self.progress)?;
        if let Some(aside) = aside {
            self.put_aside(target, aside)?;
        }
        self.progress.step("file-settle");
        std::fs::rename(&unfinished, target)
            .map_err(|error| Error::io("put in place", target, error))?;
        target.parent().map_or(Ok(()), platform::sync_folder)
    }

    /// Moves a damaged file away, if that was not done before.
    pub(super) fn put_aside(&self, damaged: &Path, place: &Path) -> Result<()> {
        if place.exists() || !damaged.exists() {
            return Ok(());
        }
        self.progress.step("file-put-aside");
        std::fs::rename(damaged, place).map_err(|error| Error::io("put aside", damaged, error))?;
        place.parent().map_or(Ok(()), platform::sync_folder)
    }

    fn fetch_to(&self, path: &str, target: &Path) -> Result<()> {
        let title = || self.intent.title();
        let (Some(store), Some(source)) = (self.store, &self.intent.source) else {
            return Err(Error::Usage {
                message: format!("{} needs the repository; name it with --repo", title()),
            });
        };
        if source.repository != store.id().to_string() {
            return Err(Error::OtherRepository {
                title: title(),
                wanted: source.repository_location.clone(),
            });
        }
        let snapshot =
            SnapshotId::from_hex(&source.snapshot).ok_or_else(|| Error::SnapshotNotFound {
                wanted: source.snapshot.clone(),
                reason: "it is no id".to_owned(),
            })?;
        if let Some(folder) = target.parent() {
            platform::create_private_folder(folder)?;
        }
        let request = RestoreRequest {
            snapshot,
            files: vec![RestoreFile {
                path: tree_path(path)?,
                target: target.to_owned(),
                local_chunking: None,
                known: None,
            }],
            seeds: Vec::new(),
        };
        store.restore(&request, self.progress)?;
        Ok(())
    }

    fn check(&self, file: &Path, target: &Path, what: FetchedFile) -> Result<()> {
        let wrong = |problem: &str| Error::RepairStopped {
            title: self.intent.title(),
            reason: format!("the stored copy of '{}' {problem}", target.display()),
        };
        match what {
            FetchedFile::Image(wanted) if !self.is_image(file, wanted)? => {
                Err(wrong("is another image"))
            }
            FetchedFile::SavedState => match SavedState::verify(file, self.progress) {
                Err(vrs_virtualbox::Error::SavedState { fault, .. }) => {
                    Err(wrong(&format!("cannot be used either: {fault}")))
                }
                other => Ok(other.map(drop)?),
            },
            FetchedFile::Image(_) | FetchedFile::Nvram => Ok(()),
        }
    }

    fn is_image(&self, file: &Path, wanted: ImageIdentity) -> Result<bool> {
        match VdiHeader::read(file) {
            Ok(header) => Ok(wanted.is_of(&header)),
            Err(vrs_vdisk::Error::UnsupportedFormat { .. }) => {
                let ids = self.host.require_virtualbox()?.image_ids(file)?;
                Ok(ids.id == wanted.id && ids.parent == wanted.parent)
            }
            Err(error) => Err(error.into()),
        }
    }
}
