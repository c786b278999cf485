//! Bringing local files into the state of an archive, in place.
//!
//! Through a server that can mount the archive and has `rsync`, only blocks that differ travel
//! ([`crate::rsync`]). Everywhere else borg hands out each file from its start, and what differs is
//! written: on this host a mount would have to read as much. Either way a run after a cut
//! compares again and writes only what is missing.

use std::collections::HashSet;

use vrs_progress::{Phase, Progress};
use vrs_repository::store::{RestoreFile, RestoreRequest, RestoreStats};
use vrs_repository::{Error, Result};

use crate::extract::Stream;
use crate::mount::Mount;
use crate::repository::{ArchivedFile, BorgRepository};
use crate::rsync::Rsync;
use crate::target::{Mode, Target};

impl BorgRepository {
    /// What [`Self::restore_files`] would do.
    pub(crate) fn plan_files(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let files = self.requested(request)?;
        self.stream_files(request, &files, Mode::Look, progress)
    }

    /// See [`vrs_repository::SnapshotStore::restore`].
    pub(crate) fn restore_files(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let files = self.requested(request)?;
        let total_bytes = files.iter().fold(0, |sum: u64, (_, stored)| {
            sum.saturating_add(stored.size_bytes)
        });
        progress.phase(Phase {
            name: "restoring",
            subject: String::new(),
            total_bytes: Some(total_bytes),
        });
        let archive = self.archive(&request.snapshot)?;
        match Mount::on_server(&self.borg, &archive.name, progress)? {
            Some(mount) => Rsync::new(&self.borg, &mount)?.restore(&files, progress),
            None => self.stream_files(request, &files, Mode::Write, progress),
        }
    }

    /// Each file to restore, and the stored one.
    fn requested<'a>(
        &self,
        request: &'a RestoreRequest,
    ) -> Result<Vec<(&'a RestoreFile, ArchivedFile)>> {
        let mut targets = HashSet::new();
        let mut files = Vec::with_capacity(request.files.len());
        for file in &request.files {
            if !targets.insert(&file.target) {
                return Err(Error::InvalidRequest {
                    subject: format!("the target {}", file.target.display()),
                    reason: "two files would be restored to it",
                });
            }
            let stored = self.archived_file(&request.snapshot, &file.path)?;
            if !stored.is_whole {
                return Err(Error::DamagedObject {
                    location: self.borg.place(),
                    object: format!("file {}", file.path),
                    reason: "a repair of borg put zeros in place of what was lost".to_owned(),
                });
            }
            files.push((file, stored));
        }
        Ok(files)
    }

    fn stream_files(
        &self,
        request: &RestoreRequest,
        files: &[(&RestoreFile, ArchivedFile)],
        mode: Mode,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let archive = self.archive(&request.snapshot)?;
        let mut stats = RestoreStats::default();
        for (file, stored) in files {
            let target = Target::open(file, stored, mode, progress)?;
            let stream = Stream::open(self, &archive.name, &stored.path)?;
            if let Err(error) = target.take(stream, &mut stats) {
                // Why it was cut short is what the user has to know.
                let _ = target.flush();
                return Err(error);
            }
            target.finish()?;
            stats.files = stats.files.saturating_add(1);
            stats.total_bytes = stats.total_bytes.saturating_add(stored.size_bytes);
        }
        Ok(stats)
    }
}
