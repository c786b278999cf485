//! Comparing targets with what is wanted in them, range by range, by several threads. A file of which the caller says
//! what it holds is not read.

use std::ops::Range;
use std::sync::Mutex;

use vrs_progress::Counter;

use crate::chunking::READ_BYTES;
use crate::error::Result;
use crate::id::ChunkId;
use crate::index::Index;
use crate::layout::{ChunkList, StoredChunk};
use crate::parallel::{self, lock};
use crate::scan_cache::ScanCache;

use super::Restore;
use super::sources::{LocalFile, Source, Sources};
use super::survey::{Searched, State};
use super::target::Target;

/// What is found elsewhere than it is wanted goes to the sources.
pub(super) struct Comparison<'a> {
    pub(super) restore: &'a Restore<'a>,
    pub(super) sources: &'a Mutex<Sources>,
}

/// A chunk as it lies on this host.
struct Seen {
    range: Range<u64>,
    id: ChunkId,
}

impl Seen {
    /// Nothing when the repository does not have it.
    fn source(self, file: LocalFile, index: &Index) -> Option<Source> {
        let chunk = index.number(&self.id)?;
        Some(Source::new(chunk, file, &self.range))
    }
}

impl Comparison<'_> {
    /// The states of all chunks of all targets.
    pub(super) fn compare_all(&self) -> Result<Vec<Vec<State>>> {
        let targets = (0..).zip(&self.restore.targets);
        let states = targets.map(|(number, target)| self.compare(number, target));
        states.collect()
    }

    /// Compares a target with what is wanted in it.
    fn compare(&self, number: u32, target: &Target) -> Result<Vec<State>> {
        if let Some(known) = &target.known {
            return Ok(self.compare_known(number, target, known));
        }
        let restore = self.restore;
        let cache = target.cutter.and_then(|cutter| {
            ScanCache::for_file(
                restore.repository,
                &target.local,
                cutter,
                target.local_bytes,
            )
        });
        let compared = self.compare_states(number, target, cache.as_ref());
        let Some(wrong) = cache.filter(ScanCache::is_wrong) else {
            return compared;
        };
        wrong.remove(restore.progress);
        self.compare_states(number, target, None)
    }

    /// What a comparison would find if the file was read.
    fn compare_known(&self, number: u32, target: &Target, known: &ChunkList) -> Vec<State> {
        let progress = self.restore.progress;
        let mut states = target.states.clone();
        let chunks = target.chunks.iter().zip(target.chunks.is_same_in(known));
        for ((chunk, in_place), state) in chunks.zip(&mut states) {
            if in_place {
                *state = State::InPlace;
                progress.add(Counter::Reused, chunk.length_bytes.into());
            }
        }
        let elsewhere = known.places().zip(known.is_same_in(&target.chunks));
        let elsewhere = elsewhere.filter(|(_, in_place)| !in_place);
        lock(self.sources).saw_all(LocalFile::Target(number), elsewhere.map(|(chunk, _)| chunk));
        states
    }

    fn compare_states(
        &self,
        number: u32,
        target: &Target,
        cache: Option<&ScanCache<'_>>,
    ) -> Result<Vec<State>> {
        let restore = self.restore;
        let mut states = target.states.clone();
        let Some(file) = target.file.as_ref().filter(|_| target.existed) else {
            return Ok(states);
        };
        let searched = Searched {
            local: LocalFile::Target(number),
            path: &target.local,
            file,
            cache,
        };
        let mut rest = states.iter_mut().zip(target.chunks.iter());
        let note = |seen: Vec<Seen>| {
            let mut sources = lock(self.sources);
            for (seen, (state, wanted)) in seen.into_iter().zip(&mut rest) {
                self.note(searched, seen, wanted, state, &mut sources);
            }
        };
        parallel::each(
            restore.repository.threads(),
            target.reads().map(Ok),
            || Ok(Vec::new()),
            |buffer, (range, position)| {
                let cuts = target.chunks.iter_from(position);
                let cuts = cuts.map(|chunk| chunk.range());
                restore.look(searched, range, cuts, buffer, |chunk, id| {
                    let range = chunk.range.clone();
                    Ok(Seen { range, id })
                })
            },
            note,
        )?;
        Ok(states)
    }

    fn note(
        &self,
        searched: Searched<'_>,
        seen: Seen,
        wanted: StoredChunk,
        state: &mut State,
        sources: &mut Sources,
    ) {
        if seen.id == wanted.id {
            *state = State::InPlace;
            let progress = self.restore.progress;
            progress.add(Counter::Reused, wanted.length_bytes.into());
        } else if let Some(source) = seen.source(searched.local, &self.restore.loaded.index) {
            sources.saw(source);
        }
    }
}

impl Target {
    /// How much of it is read when it is compared.
    pub(super) const fn compared_bytes(&self) -> u64 {
        match self.known {
            None if self.size_bytes < self.local_bytes => self.size_bytes,
            None => self.local_bytes,
            Some(_) => 0,
        }
    }

    /// Runs of chunks that lie within the local file, to be read at once: the bytes, and the
    /// position of the first chunk.
    fn reads(&self) -> impl Iterator<Item = (Range<u64>, usize)> + '_ {
        let present = self
            .chunks
            .iter()
            .enumerate()
            .take_while(|(_, chunk)| chunk.end() <= self.local_bytes);
        let mut present = present.peekable();
        std::iter::from_fn(move || {
            let (position, first) = present.next()?;
            let mut range = first.range();
            let fits = |end: u64| end.saturating_sub(first.offset) <= READ_BYTES;
            while let Some((_, next)) = present.next_if(|(_, next)| fits(next.end())) {
                range.end = next.end();
            }
            Some((range, position))
        })
    }
}
