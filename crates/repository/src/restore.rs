//! Bringing local files into the state they have in a snapshot, in place.
//!
//! First everything local is looked at ([`survey`]), which is also the whole plan; files that were not there are filled
//! with what is found on the way. Then zeros are punched and chunks are brought to their places ([`transfer`]), and at
//! the very end the files are flushed and get their modification times.
//!
//! Guarantees: a byte is written only after its chunk was found equal to its id, or to what the scan cache knows under
//! that id; a file that is right already is not written to; a run after a cut looks again and does only what is missing.
//! Not guaranteed: that a file that is being restored can be used before the end; that a file of which
//! the caller says what it holds ([`KnownFile`](crate::store::KnownFile)) is looked at where it need not
//! change.

mod compare;
mod fetch;
mod filling;
mod known;
mod moves;
mod place;
mod search;
mod sources;
mod survey;
mod target;
mod transfer;
mod writer;

use std::sync::Arc;

use vrs_progress::{Phase, Progress};

use crate::error::{Error, Result, stop_if_interrupted};
use crate::loaded_index::LoadedIndex;
use crate::repository::ResticRepository;
use crate::sink::ZeroChunks;
use crate::store::{RestoreRequest, RestoreStats};

use known::KnownFiles;
use survey::{State, Survey};
use target::Target;
use transfer::carry_out;

/// Storage, far away or here, needs more requests under way than there are processors.
const LEAST_THREADS: usize = 4;
/// Chunks that are fetched or copied are hashed together, and in memory for that; a single one may be longer.
const TOGETHER_BYTES: u32 = 1 << 20;

/// What all parts of a restore use.
struct Restore<'a> {
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
    /// All chunk numbers are of this index.
    loaded: Arc<LoadedIndex>,
    known: KnownFiles,
    zeros: ZeroChunks,
    targets: Vec<Target>,
}

impl ResticRepository {
    /// What [`Self::restore_files`] would do.
    pub(crate) fn plan_files(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let mut restore =
            self.with_index(|loaded| Restore::new(self, loaded, request, progress))?;
        let survey = restore.survey(request, false)?;
        Ok(restore.stats(&survey))
    }

    /// See [`crate::SnapshotStore::restore`].
    pub(crate) fn restore_files(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        // The user may have looked at the plan for hours.
        let mut restore = Restore::new(self, &self.index()?, request, progress)?;
        let written = restore.write(request);
        // Also after a failure: what was written shall survive, and the next run builds on it.
        for target in &restore.targets {
            target.sync(progress)?;
        }
        let stats = written?;
        let mut targets = restore.targets.iter();
        targets.try_for_each(|target| target.finish(progress))?;
        Ok(stats)
    }
}

impl<'a> Restore<'a> {
    fn new(
        repository: &'a ResticRepository,
        loaded: &Arc<LoadedIndex>,
        request: &RestoreRequest,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let zeros = ZeroChunks::default();
        let files = repository.found_files(loaded, &request.snapshot)?;
        let known = KnownFiles::of(repository, loaded, request);
        let targets: Result<Vec<Target>> = request
            .files
            .iter()
            .map(|file| {
                let found = files.iter().find(|found| found.path == file.path);
                let missing = || Error::NoSuchFile {
                    snapshot: request.snapshot,
                    path: file.path.clone(),
                };
                let mut target = Target::new(repository, &zeros, found.ok_or_else(missing)?, file)?;
                target.known = target
                    .stamp
                    .and_then(|stamp| known.chunks(repository, file.known.as_ref(), stamp));
                Ok(target)
            })
            .collect();
        let mut targets = targets?;
        target::refuse_duplicates(&targets)?;
        place::number(&mut targets)?;
        Ok(Self {
            repository,
            progress,
            loaded: Arc::clone(loaded),
            known,
            zeros,
            targets,
        })
    }

    fn waiting_threads(&self) -> usize {
        self.repository.waiting_threads().max(LEAST_THREADS)
    }

    fn stats(&self, survey: &Survey) -> RestoreStats {
        let mut stats = RestoreStats {
            files: self.targets.len() as u64,
            ..RestoreStats::default()
        };
        for target in &self.targets {
            stats.total_bytes = stats.total_bytes.saturating_add(target.size_bytes);
            let numbered = target.chunks.iter().zip(target.chunks.numbers());
            for ((chunk, number), state) in numbered.zip(&target.states) {
                let length_bytes = u64::from(chunk.length_bytes);
                let sum = match state {
                    State::InPlace => &mut stats.in_place_bytes,
                    State::Zero => &mut stats.zero_bytes,
                    State::Missing if survey.sources.is_sought(number) => &mut stats.fetched_bytes,
                    State::Missing | State::Filled => &mut stats.local_bytes,
                };
                *sum = sum.saturating_add(length_bytes);
            }
        }
        stats.fetched_chunks = survey.sources.sought_chunks();
        stats
    }

    fn write(&mut self, request: &RestoreRequest) -> Result<RestoreStats> {
        self.begin_writing(|target| !target.existed)?;
        self.make_room(|target| !target.existed)?;
        let survey = self.survey(request, true)?;
        let mut stats = self.stats(&survey);
        let to_write = self.missing().filter_map(|(place, _)| self.stored(place));
        let to_write = to_write.map(|chunk| u64::from(chunk.length_bytes));
        self.progress.phase(Phase {
            name: "restoring",
            subject: String::new(),
            total_bytes: Some(to_write.sum()),
        });
        self.begin_writing(|target| target.existed)?;
        carry_out(self, survey, &mut stats)?;
        Ok(stats)
    }

    fn begin_writing(&mut self, is_meant: impl Fn(&Target) -> bool) -> Result<()> {
        let mut targets = self.targets.iter_mut().filter(|target| is_meant(target));
        targets.try_for_each(|target| target.open_for_writing(self.progress))
    }

    fn make_room(&self, is_meant: impl Fn(&Target) -> bool) -> Result<()> {
        for target in self.targets.iter().filter(|target| is_meant(target)) {
            stop_if_interrupted(self.progress)?;
            target.make_room(self.progress)?;
        }
        Ok(())
    }
}
