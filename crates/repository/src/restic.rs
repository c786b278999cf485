//! [`SnapshotStore`] for repositories in restic's format.

use std::ops::Range;

use rustic_core::FileType;
use vrs_progress::Progress;

use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{RepositoryId, SnapshotId};
use crate::ingest::ResticIngest;
use crate::parallel::lock;
use crate::prune;
use crate::reader::ChunkReader;
use crate::repair;
use crate::repository::ResticRepository;
use crate::store::{
    CheckOptions, CheckReport, ChunkLists, Ingest, PruneOptions, PruneStats, RestoreRequest,
    RestoreStats, SnapshotList, SnapshotStore, SnapshotWords, StoredFile, StoredFileReader,
    TreePath,
};
use crate::tree::FoundFile;

impl ChunkLists for ResticRepository {
    fn differing_chunks(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> Result<Vec<Range<u64>>> {
        self.with_index(|loaded| {
            let chunks =
                |(snapshot, path)| self.stored_chunks(self.found_file(loaded, snapshot, path)?);
            let (old, new) = (chunks(old)?, chunks(new)?);
            Ok(old.differing_from(&new).collect())
        })
    }
}

impl SnapshotStore for ResticRepository {
    fn id(&self) -> RepositoryId {
        self.repository_id()
    }

    fn location(&self) -> String {
        self.backend.location().to_owned()
    }

    fn snapshots(&self) -> Result<SnapshotList> {
        self.list_snapshots()
    }

    fn ingest<'a>(&'a self, progress: &'a dyn Progress) -> Result<Box<dyn Ingest + 'a>> {
        Ok(Box::new(ResticIngest::start(self, progress)?))
    }

    fn files(&self, snapshot: &SnapshotId) -> Result<Vec<StoredFile>> {
        let files = self.with_index(|loaded| self.found_files(loaded, snapshot))?;
        Ok(files.iter().map(FoundFile::stored).collect())
    }

    fn files_below(&self, snapshot: &SnapshotId, folder: &TreePath) -> Result<Vec<StoredFile>> {
        let files = self.with_index(|loaded| self.found_files_below(loaded, snapshot, folder))?;
        Ok(files.iter().map(FoundFile::stored).collect())
    }

    fn open_file<'a>(
        &'a self,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> Result<Box<dyn StoredFileReader + 'a>> {
        let reader = self.with_index(|loaded| {
            ChunkReader::new(self, self.found_file(loaded, snapshot, path)?)
        })?;
        Ok(Box::new(reader))
    }

    fn changed_bytes(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> Result<u64> {
        self.with_index(|loaded| {
            let chunks =
                |(snapshot, path)| self.stored_chunks(self.found_file(loaded, snapshot, path)?);
            Ok(chunks(new)?.bytes_not_in(&chunks(old)?))
        })
    }

    fn chunk_lists(&self) -> Option<&dyn ChunkLists> {
        Some(self)
    }

    fn restore(&self, request: &RestoreRequest, progress: &dyn Progress) -> Result<RestoreStats> {
        self.restore_files(request, progress)
    }

    fn plan_restore(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        self.plan_files(request, progress)
    }

    fn delete(&self, snapshots: &[SnapshotId], progress: &dyn Progress) -> Result<()> {
        let known = self.backend.list::<SnapshotId>(FileType::Snapshot)?;
        if let Some(snapshot) = snapshots.iter().find(|id| !known.contains_key(id)) {
            return Err(Error::NoSnapshot {
                location: self.location(),
                snapshot: *snapshot,
            });
        }
        for snapshot in snapshots {
            stop_if_interrupted(progress)?;
            progress.step("remove snapshot");
            lock(&self.memory).forget(snapshot);
            self.backend.remove(FileType::Snapshot, *snapshot)?;
        }
        Ok(())
    }

    fn relabel(
        &self,
        snapshot: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> Result<SnapshotId> {
        self.relabel_snapshot(snapshot, words, progress)
    }

    fn plan_prune(
        &self,
        options: &PruneOptions,
        without: &[SnapshotId],
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        prune::plan(self, options, without, progress)
    }

    fn prune(&self, options: &PruneOptions, progress: &dyn Progress) -> Result<PruneStats> {
        prune::run(self, options, progress)
    }

    fn check(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<CheckReport> {
        self.check_all(*options, progress)
    }

    fn repair(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<Vec<String>> {
        repair::run(self, *options, progress)
    }
}
