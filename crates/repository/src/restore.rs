//! Bringing local files into the state they have in a snapshot, in place.
//!
//! First everything local is looked at ([`survey`]), which is also the whole plan. Then zeros are punched and
//! chunks are brought to their places ([`transfer`]), and at the very end the files are flushed and get their
//! modification times.
//!
//! Guarantees: a byte is written only after its chunk was found equal to its id; a file that is
//! right already is not written to; a run after a cut looks again and does only what is missing.
//! Not guaranteed: that a file that is being restored can be used before the end; that a file of which
//! the caller says what it holds ([`KnownFile`](crate::store::KnownFile)) is looked at where it need not
//! change.

mod fetch;
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

use crate::error::{Error, Result};
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
        let survey = restore.survey(request)?;
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
        let survey = restore.survey(request)?;
        let mut stats = restore.stats(&survey);
        restore.execute(survey, &mut stats)?;
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

    fn go_on(&self) -> Result<()> {
        if self.progress.interrupted() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
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
                    State::Missing => &mut stats.local_bytes,
                };
                *sum = sum.saturating_add(length_bytes);
            }
        }
        stats.fetched_chunks = survey.sources.sought_chunks();
        stats
    }

    fn execute(&mut self, survey: Survey, stats: &mut RestoreStats) -> Result<()> {
        let to_write = stats.total_bytes.saturating_sub(stats.in_place_bytes);
        self.progress.phase(Phase {
            name: "restoring",
            subject: String::new(),
            total_bytes: Some(to_write),
        });
        for target in &mut self.targets {
            target.open_for_writing(self.progress)?;
        }
        let carried_out = carry_out(self, survey, stats);
        // Also after a failure: what was written shall survive, and the next run builds on it.
        for target in &self.targets {
            target.sync(self.progress)?;
        }
        carried_out?;
        self.targets
            .iter()
            .try_for_each(|target| target.finish(self.progress))
    }
}
