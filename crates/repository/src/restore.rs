//! Bringing local files into the state they have in a snapshot, in place.
//!
//! First everything local is looked at ([`survey`]), which is also the whole plan. Then chunks that
//! lie elsewhere on this host are moved ([`moves`]), zeros are punched, the rest is fetched
//! ([`fetch`]), and at the very end the files are flushed and get their modification times.
//!
//! Guarantees: a byte is written only after its chunk was found equal to its id; a file that is
//! right already is not written to; a run after a cut looks again and does only what is missing.
//! Not guaranteed: that a file that is being restored can be used before the end.

mod fetch;
mod moves;
mod survey;
mod target;

use std::collections::HashMap;

use vrs_progress::{Counter, Phase, Progress};

use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::repository::ResticRepository;
use crate::sink::ZeroChunks;
use crate::store::{RestoreRequest, RestoreStats};

use fetch::fetch;
use moves::carry_out;
use survey::{State, Survey};
use target::Target;

/// A chunk of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    target: usize,
    chunk: usize,
}

/// Where each chunk that is not in place has to go.
type Needs = HashMap<ChunkId, Vec<Place>>;

/// What all parts of a restore use.
struct Restore<'a> {
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
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
        let mut restore = Restore::new(self, request, progress)?;
        let survey = restore.survey(request)?;
        Ok(restore.stats(&survey))
    }

    /// See [`crate::SnapshotStore::restore`].
    pub(crate) fn restore_files(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        let mut restore = Restore::new(self, request, progress)?;
        let survey = restore.survey(request)?;
        let mut stats = restore.stats(&survey);
        restore.execute(survey, &mut stats)?;
        Ok(stats)
    }
}

impl<'a> Restore<'a> {
    fn new(
        repository: &'a ResticRepository,
        request: &RestoreRequest,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let zeros = ZeroChunks::default();
        let files = repository.found_files(&request.snapshot)?;
        let targets: Result<Vec<Target>> = request
            .files
            .iter()
            .map(|file| {
                let found = files.iter().find(|found| found.path == file.path);
                let missing = || Error::NoSuchFile {
                    snapshot: request.snapshot,
                    path: file.path.clone(),
                };
                Target::new(repository, &zeros, found.ok_or_else(missing)?, file)
            })
            .collect();
        let targets = targets?;
        target::refuse_duplicates(&targets)?;
        Ok(Self {
            repository,
            progress,
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
            for (chunk, state) in target.chunks.iter().zip(&target.states) {
                let length_bytes = u64::from(chunk.length_bytes);
                let sum = match state {
                    State::InPlace => &mut stats.in_place_bytes,
                    State::Zero => &mut stats.zero_bytes,
                    State::Missing if survey.source(&chunk.id).is_some() => &mut stats.local_bytes,
                    State::Missing => &mut stats.fetched_bytes,
                };
                *sum = sum.saturating_add(length_bytes);
            }
        }
        let needs = self.needs();
        stats.fetched_chunks = needs
            .keys()
            .filter(|id| survey.source(id).is_none())
            .count() as u64;
        stats
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (target, chunk, id) in self.missing() {
            needs.entry(id).or_default().push(Place { target, chunk });
        }
        needs
    }

    fn missing(&self) -> impl Iterator<Item = (usize, usize, ChunkId)> + '_ {
        self.targets
            .iter()
            .enumerate()
            .flat_map(|(number, target)| {
                let chunks = target.chunks.iter().zip(&target.states).enumerate();
                let missing = chunks.filter(|(_, (_, state))| **state == State::Missing);
                missing.map(move |(chunk, (stored, _))| (number, chunk, stored.id))
            })
    }

    fn execute(&mut self, survey: Survey, stats: &mut RestoreStats) -> Result<()> {
        let needs = self.needs();
        let to_write = stats.total_bytes.saturating_sub(stats.in_place_bytes);
        self.progress.phase(Phase {
            name: "restoring",
            subject: String::new(),
            total_bytes: Some(to_write),
        });
        for target in &mut self.targets {
            target.open_for_writing(self.progress)?;
        }
        let (local, mut absent): (Vec<_>, Vec<_>) = needs
            .into_iter()
            .partition(|(id, _)| survey.source(id).is_some());
        let failed = carry_out(self, &survey, local)?;
        for (_, places) in &failed {
            let bytes = self.bytes_of(places);
            stats.local_bytes = stats.local_bytes.saturating_sub(bytes);
            stats.fetched_bytes = stats.fetched_bytes.saturating_add(bytes);
            stats.fetched_chunks = stats.fetched_chunks.saturating_add(1);
        }
        absent.extend(failed);
        for target in &self.targets {
            self.go_on()?;
            target.fit_and_punch(self.progress)?;
        }
        let fetched = fetch(self, absent);
        // Also after a failure: what was written shall survive, and the next run builds on it.
        for target in &self.targets {
            target.sync(self.progress)?;
        }
        fetched?;
        self.targets
            .iter()
            .try_for_each(|target| target.finish(self.progress))
    }

    fn bytes_of(&self, places: &[Place]) -> u64 {
        let chunks = places
            .iter()
            .filter_map(|place| self.targets.get(place.target)?.chunks.get(place.chunk));
        chunks.map(|chunk| u64::from(chunk.length_bytes)).sum()
    }

    /// Writes a verified chunk to all its places.
    fn write(&self, places: &[Place], content: &[u8]) -> Result<()> {
        for place in places {
            if let Some(target) = self.targets.get(place.target) {
                target.write_chunk(place.chunk, content, self.progress)?;
                self.progress.add(Counter::Scanned, content.len() as u64);
            }
        }
        Ok(())
    }
}
