//! Bringing local files into the state they have in a snapshot, in place.
//!
//! First everything local is looked at ([`survey`]), which is also the whole plan. Then chunks that
//! lie elsewhere on this host are moved ([`moves`]), zeros are punched, the rest is fetched
//! ([`fetch`]), and at the very end the files are flushed and get their modification times.
//!
//! Guarantees: a byte is written only after its chunk was found equal to its id; a file that is
//! right already is not written to; a run after a cut looks again and does only what is missing.
//! Not guaranteed: that a file that is being restored can be used before the end; that a file of which
//! the caller says what it holds ([`KnownFile`](crate::store::KnownFile)) is looked at where it need not
//! change.

mod fetch;
mod known;
mod moves;
mod survey;
mod target;

use std::sync::Arc;

use vrs_progress::{Counter, Phase, Progress};

use crate::error::{Error, Result};
use crate::index::ChunkNumber;
use crate::layout::StoredChunk;
use crate::loaded_index::LoadedIndex;
use crate::repository::ResticRepository;
use crate::sink::ZeroChunks;
use crate::store::{RestoreRequest, RestoreStats};

use fetch::fetch;
use known::KnownFiles;
use moves::carry_out;
use survey::{State, Survey};
use target::Target;

/// A chunk of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    target: u32,
    chunk: u32,
}

/// A chunk that is not in place, and one place where it has to go. A list of them is sorted by
/// chunk, so that all places of one are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    chunk: ChunkNumber,
    place: Place,
}

/// The needs of each chunk.
fn by_chunk(needs: &[Need]) -> impl Iterator<Item = (ChunkNumber, &[Need])> {
    let same = |one: &Need, other: &Need| one.chunk == other.chunk;
    needs
        .chunk_by(same)
        .filter_map(|all| Some((all.first()?.chunk, all)))
}

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
        let targets = targets?;
        target::refuse_duplicates(&targets)?;
        Ok(Self {
            repository,
            progress,
            loaded: Arc::clone(loaded),
            known,
            zeros,
            targets,
        })
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
                    State::Missing if survey.source(number).is_some() => &mut stats.local_bytes,
                    State::Missing => &mut stats.fetched_bytes,
                };
                *sum = sum.saturating_add(length_bytes);
            }
        }
        let absent = |(chunk, _): &(ChunkNumber, &[Need])| survey.source(*chunk).is_none();
        stats.fetched_chunks = by_chunk(&self.needs()).filter(absent).count() as u64;
        stats
    }

    fn needs(&self) -> Vec<Need> {
        // As long as needed and no longer: grown by doubling it could take as much as the index.
        let mut needs = Vec::with_capacity(self.missing().count());
        needs.extend(self.missing());
        needs.sort_unstable();
        needs
    }

    fn missing(&self) -> impl Iterator<Item = Need> + '_ {
        (0..).zip(&self.targets).flat_map(|(number, target)| {
            let chunks = (0..).zip(target.chunks.numbers().zip(&target.states));
            let missing = chunks.filter(|(_, (_, state))| **state == State::Missing);
            missing.map(move |(position, (chunk, _))| Need {
                chunk,
                place: Place {
                    target: number,
                    chunk: position,
                },
            })
        })
    }

    fn target(&self, place: Place) -> Option<&Target> {
        self.targets.get(place.target as usize)
    }

    fn stored(&self, place: Place) -> Option<StoredChunk> {
        self.target(place)?.chunks.get(place.chunk as usize)
    }

    fn execute(&mut self, survey: Survey, stats: &mut RestoreStats) -> Result<()> {
        let mut needs = self.needs();
        let to_write = stats.total_bytes.saturating_sub(stats.in_place_bytes);
        self.progress.phase(Phase {
            name: "restoring",
            subject: String::new(),
            total_bytes: Some(to_write),
        });
        for target in &mut self.targets {
            target.open_for_writing(self.progress)?;
        }
        let failed = carry_out(self, &survey, &needs)?;
        for (_, needs) in by_chunk(&needs).filter(|(chunk, _)| failed.contains(chunk)) {
            let bytes = self.bytes_of(needs);
            stats.local_bytes = stats.local_bytes.saturating_sub(bytes);
            stats.fetched_bytes = stats.fetched_bytes.saturating_add(bytes);
            stats.fetched_chunks = stats.fetched_chunks.saturating_add(1);
        }
        needs.retain(|need| survey.source(need.chunk).is_none() || failed.contains(&need.chunk));
        drop(survey);
        for target in &self.targets {
            self.go_on()?;
            target.fit_and_punch(self.progress)?;
        }
        let fetched = fetch(self, needs);
        // Also after a failure: what was written shall survive, and the next run builds on it.
        for target in &self.targets {
            target.sync(self.progress)?;
        }
        fetched?;
        self.targets
            .iter()
            .try_for_each(|target| target.finish(self.progress))
    }

    fn bytes_of(&self, needs: &[Need]) -> u64 {
        let chunks = needs.iter().filter_map(|need| self.stored(need.place));
        chunks.map(|chunk| u64::from(chunk.length_bytes)).sum()
    }

    /// Writes a verified chunk to all its places.
    fn write(&self, needs: &[Need], content: &[u8]) -> Result<()> {
        for Need { place, .. } in needs {
            if let Some(target) = self.target(*place) {
                target.write_chunk(place.chunk as usize, content, self.progress)?;
                self.progress.add(Counter::Scanned, content.len() as u64);
            }
        }
        Ok(())
    }
}
