//! What is in place already, and which wanted chunks lie elsewhere on this host.
//!
//! Targets are compared with the wanted chunks range by range, in parallel. Only when something is
//! missing is it searched for ([`search`](super::search)). A file of which the caller says what it holds
//! is not read.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use vrs_progress::{Counter, Phase};

use crate::chunking::{READ_BYTES, SeenHash};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{ChunkNumber, Index};
use crate::layout::StoredChunk;
use crate::parallel;
use crate::platform;
use crate::scan_cache::ScanCache;
use crate::sink::is_zero;
use crate::store::RestoreRequest;

use super::Restore;
use super::search::Seed;
use super::sources::{LocalFile, Source, Sources};
use super::target::Target;

/// What has to be done about a chunk of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    InPlace,
    /// Zeros that are not there yet.
    Zero,
    Missing,
}

/// The outcome.
pub(super) struct Survey {
    pub(super) sources: Sources,
    pub(super) seeds: Vec<Seed>,
}

impl Survey {
    /// Remembers those chunks of a local file that are sought.
    pub(super) fn saw(
        &mut self,
        file: LocalFile,
        chunks: impl Iterator<Item = (ChunkNumber, Range<u64>)>,
    ) {
        for (chunk, range) in chunks {
            self.sources.saw(Source::new(chunk, file, &range));
        }
    }
}

/// A local file that is searched.
#[derive(Clone, Copy)]
pub(super) struct Searched<'a> {
    pub(super) local: LocalFile,
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    /// What it held when it was last stored.
    pub(super) cache: Option<&'a ScanCache<'a>>,
}

/// A chunk as it lies on this host.
pub(super) struct Seen {
    pub(super) range: Range<u64>,
    pub(super) id: ChunkId,
}

impl Seen {
    /// Nothing when the repository does not have it.
    pub(super) fn number(self, index: &Index) -> impl Iterator<Item = (ChunkNumber, Range<u64>)> {
        let number = index.number(&self.id).into_iter();
        number.zip(std::iter::once(self.range))
    }
}

impl Restore<'_> {
    pub(super) fn survey(&mut self, request: &RestoreRequest) -> Result<Survey> {
        let mut survey = Survey {
            sources: Sources::new(self),
            seeds: Vec::new(),
        };
        self.compare_all(&mut survey)?;
        survey.sources.all_compared(self);
        if survey.sources.is_all_found() {
            return Ok(survey);
        }
        for (number, target) in (0..).zip(&self.targets) {
            self.search_former_grid(number, target, &mut survey)?;
        }
        if !survey.sources.is_all_found() {
            survey.seeds = self.open_seeds(request)?;
            self.search_seeds(&mut survey)?;
        }
        Ok(survey)
    }

    fn compare_all(&mut self, survey: &mut Survey) -> Result<()> {
        let mut targets = std::mem::take(&mut self.targets);
        let compared = (0..)
            .zip(&mut targets)
            .try_for_each(|(number, target)| self.compare(number, target, survey));
        self.targets = targets;
        compared
    }

    /// Compares a target with what is wanted in it.
    fn compare(&self, number: u32, target: &mut Target, survey: &mut Survey) -> Result<()> {
        if target.known.is_some() {
            self.compare_known(number, target, survey);
            return Ok(());
        }
        let local = target.local.clone();
        let cache = target.cutter.and_then(|cutter| {
            ScanCache::for_file(self.repository, &local, cutter, target.local_bytes)
        });
        let compared = self.compare_states(number, target, cache.as_ref(), survey);
        let Some(wrong) = cache.filter(ScanCache::is_wrong) else {
            return compared;
        };
        wrong.remove(self.progress);
        target.forget_states(&self.zeros);
        self.compare_states(number, target, None, survey)
    }

    /// What a comparison would find if the file was read.
    fn compare_known(&self, number: u32, target: &mut Target, survey: &mut Survey) {
        let Some(known) = &target.known else {
            return;
        };
        let chunks = target.chunks.iter().zip(target.chunks.is_same_in(known));
        for ((chunk, in_place), state) in chunks.zip(&mut target.states) {
            if in_place {
                *state = State::InPlace;
                self.progress
                    .add(Counter::Reused, chunk.length_bytes.into());
            }
        }
        let elsewhere = known.places().zip(known.is_same_in(&target.chunks));
        let elsewhere = elsewhere.filter(|(_, in_place)| !in_place);
        survey.saw(LocalFile::Target(number), elsewhere.map(|(chunk, _)| chunk));
    }

    fn compare_states(
        &self,
        number: u32,
        target: &mut Target,
        cache: Option<&ScanCache<'_>>,
        survey: &mut Survey,
    ) -> Result<()> {
        let mut states = std::mem::take(&mut target.states);
        let compared = self.compare_into(number, target, cache, &mut states, survey);
        target.states = states;
        compared
    }

    fn compare_into(
        &self,
        number: u32,
        target: &Target,
        cache: Option<&ScanCache<'_>>,
        states: &mut [State],
        survey: &mut Survey,
    ) -> Result<()> {
        let Some(file) = target.file.as_ref() else {
            return Ok(());
        };
        self.progress.phase(Phase {
            name: "comparing",
            subject: target.path.to_string(),
            total_bytes: Some(target.size_bytes.min(target.local_bytes)),
        });
        let searched = Searched {
            local: LocalFile::Target(number),
            path: &target.local,
            file,
            cache,
        };
        let mut rest = states.iter_mut().zip(target.chunks.iter());
        let note = |seen: Vec<Seen>| {
            for (seen, (state, wanted)) in seen.into_iter().zip(&mut rest) {
                self.note(searched, seen, wanted, state, survey);
            }
        };
        parallel::each(
            self.repository.threads(),
            target.reads().map(Ok),
            || Ok(Vec::new()),
            |buffer, (range, position)| {
                let cuts = target.chunks.iter_from(position);
                self.look(searched, range, cuts.map(|chunk| chunk.range()), buffer)
            },
            note,
        )
    }

    fn note(
        &self,
        searched: Searched<'_>,
        seen: Seen,
        wanted: StoredChunk,
        state: &mut State,
        survey: &mut Survey,
    ) {
        if seen.id == wanted.id {
            *state = State::InPlace;
            self.progress
                .add(Counter::Reused, wanted.length_bytes.into());
        } else {
            survey.saw(searched.local, seen.number(&self.loaded.index));
        }
    }

    /// The id of some bytes of a file, of which the BLAKE3 may be known.
    pub(super) fn id_of(
        &self,
        searched: Searched<'_>,
        cut: &Range<u64>,
        raw: &[u8],
        seen: Option<SeenHash>,
    ) -> ChunkId {
        let hash = || self.zeros.id_of(raw);
        let cache = searched.cache.filter(|_| !is_zero(raw));
        let index = &self.loaded.index;
        let recognised = cache.and_then(|cache| cache.recognise(index, cut, raw, seen, hash));
        recognised.unwrap_or_else(hash)
    }

    /// Reads a range and hashes its chunks. `cuts` cover the range in order, and may go on behind it.
    pub(super) fn look(
        &self,
        searched: Searched<'_>,
        range: Range<u64>,
        cuts: impl Iterator<Item = Range<u64>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Seen>> {
        self.go_on()?;
        let read = platform::read_range(searched.file, &range, buffer)
            .map_err(|error| Error::local(searched.path, "read", Some(range.start), error))?;
        buffer.truncate(read.unwrap_or(buffer.len()));
        let length_bytes = range.end.saturating_sub(range.start);
        self.progress.add(Counter::Scanned, length_bytes);
        let mut rest = buffer.as_slice();
        let mut seen = Vec::new();
        for cut in cuts {
            let length_bytes =
                usize::try_from(cut.end.saturating_sub(cut.start)).unwrap_or(usize::MAX);
            let Some((raw, after)) = rest.split_at_checked(length_bytes) else {
                break;
            };
            seen.push(Seen {
                id: self.id_of(searched, &cut, raw, None),
                range: cut,
            });
            rest = after;
        }
        Ok(seen)
    }
}

impl Target {
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
