//! What is in place already, and which wanted chunks lie elsewhere on this host.
//!
//! Targets are compared with the wanted chunks range by range, in parallel. Only when something is
//! missing are targets searched on their former grid, and seeds at all. Everything found is a hint:
//! it is verified again when it is used. A file of which the caller says what it holds is not read.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vrs_progress::{Counter, Phase};

use crate::chunking::{Content, Cutter, Grid, READ_BYTES};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{ChunkNumber, Index};
use crate::intake::RangeReader;
use crate::layout::{ChunkList, StoredChunk};
use crate::parallel;
use crate::platform;
use crate::scan_cache::ScanCache;
use crate::sink::{ZeroChunks, is_zero};
use crate::store::RestoreRequest;

use super::Restore;
use super::target::{Target, identity};

/// What has to be done about a chunk of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    InPlace,
    /// Zeros that are not there yet.
    Zero,
    Missing,
}

/// A place that held a wanted chunk when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalChunk {
    pub(super) file: LocalFile,
    pub(super) offset: u64,
    pub(super) length_bytes: u32,
    /// Not overwritten by this restore.
    pub(super) stable: bool,
}

/// A file that chunks can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LocalFile {
    Target(u32),
    Seed(u32),
}

/// The outcome.
pub(super) struct Survey {
    /// All wanted chunks, sorted.
    wanted: Vec<ChunkNumber>,
    /// Where each of them was seen.
    sources: Vec<Option<LocalChunk>>,
    pub(super) seeds: Vec<Seed>,
}

pub(super) struct Seed {
    pub(super) path: PathBuf,
    pub(super) file: File,
    cutter: Cutter,
    /// What it holds, where that is known.
    known: Option<ChunkList>,
    /// The target that this file is, if it is one.
    target: Option<u32>,
}

impl Survey {
    fn of(targets: &[Target]) -> Self {
        let all = targets.iter().flat_map(|target| target.chunks.numbers());
        let mut wanted: Vec<ChunkNumber> = all.collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.shrink_to_fit();
        Self {
            sources: vec![None; wanted.len()],
            wanted,
            seeds: Vec::new(),
        }
    }

    pub(super) fn source(&self, chunk: ChunkNumber) -> Option<LocalChunk> {
        let position = self.wanted.binary_search(&chunk).ok()?;
        self.sources.get(position).copied().flatten()
    }

    /// Remembers a chunk if it is wanted. Places that stay are better than places that do not.
    fn saw(&mut self, index: &Index, id: &ChunkId, chunk: LocalChunk) {
        if let Some(number) = index.number(id) {
            self.saw_number(number, chunk);
        }
    }

    /// Remembers those chunks of a local file that are wanted, with whether each of them stays.
    fn saw_all(&mut self, file: LocalFile, chunks: &ChunkList, stable: impl Iterator<Item = bool>) {
        for ((number, chunk), stable) in chunks.numbers().zip(chunks.iter()).zip(stable) {
            let seen = LocalChunk {
                file,
                offset: chunk.offset,
                length_bytes: chunk.length_bytes,
                stable,
            };
            self.saw_number(number, seen);
        }
    }

    fn saw_number(&mut self, number: ChunkNumber, chunk: LocalChunk) {
        let position = self.wanted.binary_search(&number).ok();
        if let Some(known) = position.and_then(|position| self.sources.get_mut(position))
            && known.is_none_or(|known| chunk.stable && !known.stable)
        {
            *known = Some(chunk);
        }
    }
}

/// A local file that is searched.
#[derive(Clone, Copy)]
struct Searched<'a> {
    local: LocalFile,
    path: &'a Path,
    file: &'a File,
    stable: bool,
    /// What it held when it was last stored, and on which grid.
    cache: Option<(&'a ScanCache<'a>, Grid)>,
}

impl Searched<'_> {
    fn id_of(&self, zeros: &ZeroChunks, cut: &Range<u64>, raw: &[u8]) -> ChunkId {
        let hash = || zeros.id_of(raw);
        let on_grid = self
            .cache
            .filter(|(_, grid)| grid.chunks(cut.start..u64::MAX).next() == Some(cut.clone()));
        let recognised = on_grid
            .filter(|_| !is_zero(raw))
            .and_then(|(cache, grid)| cache.recognise(grid.number_at(cut.start), raw, hash));
        recognised.unwrap_or_else(hash)
    }
}

/// A chunk as it lies on this host.
struct Seen {
    offset: u64,
    length_bytes: usize,
    id: ChunkId,
}

impl Restore<'_> {
    pub(super) fn survey(&mut self, request: &RestoreRequest) -> Result<Survey> {
        let mut survey = Survey::of(&self.targets);
        self.compare_all(&mut survey)?;
        if self.is_all_found(&survey) {
            return Ok(survey);
        }
        for (number, target) in (0..).zip(&self.targets) {
            self.search_former_grid(number, target, &mut survey)?;
        }
        if !self.is_all_found(&survey) {
            survey.seeds = self.open_seeds(request)?;
            self.search_seeds(&mut survey)?;
        }
        Ok(survey)
    }

    fn is_all_found(&self, survey: &Survey) -> bool {
        self.missing()
            .all(|need| survey.source(need.chunk).is_some())
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
        let before = std::mem::take(&mut target.states);
        let mut states = before.clone();
        let cache = target.cutter.and_then(|cutter| {
            ScanCache::for_file(self.repository, &target.local, cutter, target.local_bytes)
        });
        let mut compared = self.compare_states(number, target, cache.as_ref(), &mut states, survey);
        if let Some(cache) = cache.as_ref().filter(|cache| cache.is_wrong()) {
            cache.remove(self.progress);
            states = before;
            compared = self.compare_states(number, target, None, &mut states, survey);
        }
        drop(cache);
        target.states = states;
        compared
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
        let stable = known.is_same_in(&target.chunks);
        survey.saw_all(LocalFile::Target(number), known, stable);
    }

    fn compare_states(
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
            stable: false,
            cache: cache.zip(target.grid()),
        };
        let mut rest = states.iter_mut().zip(target.chunks.iter());
        let note = |seen: Vec<Seen>| {
            for (seen, (state, wanted)) in seen.iter().zip(&mut rest) {
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
        seen: &Seen,
        wanted: StoredChunk,
        state: &mut State,
        survey: &mut Survey,
    ) {
        let in_place = seen.id == wanted.id;
        if in_place {
            *state = State::InPlace;
            self.progress
                .add(Counter::Reused, wanted.length_bytes.into());
        }
        survey.saw(
            &self.loaded.index,
            &seen.id,
            seen.at(searched.local, in_place),
        );
    }

    /// Reads a range and hashes its chunks. `cuts` cover the range in order, and may go on behind it.
    fn look(
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
                offset: cut.start,
                length_bytes,
                id: searched.id_of(&self.zeros, &cut, raw),
            });
            rest = after;
        }
        Ok(seen)
    }

    /// Searches a target where its former chunks began, unless that was done by comparing.
    fn search_former_grid(&self, number: u32, target: &Target, survey: &mut Survey) -> Result<()> {
        let (Some(file), Some(cutter), None) = (&target.file, target.cutter, &target.known) else {
            return Ok(());
        };
        let start = if target.is_cut_by(cutter) {
            target.size_bytes
        } else {
            0
        };
        let searched = Searched {
            local: LocalFile::Target(number),
            path: &target.local,
            file,
            stable: false,
            cache: None,
        };
        self.search(
            searched,
            cutter,
            start.min(target.local_bytes)..target.local_bytes,
            survey,
        )
    }

    fn open_seeds(&self, request: &RestoreRequest) -> Result<Vec<Seed>> {
        let targets: HashMap<PathBuf, u32> = self
            .targets
            .iter()
            .zip(0..)
            .map(|(target, number)| (identity(&target.local), number))
            .collect();
        let mut seeds = Vec::new();
        for seed in &request.seeds {
            let cutter = Cutter::new(seed.chunking)?;
            let target = targets.get(&identity(&seed.local)).copied();
            // A seed only saves fetching: one that is gone or unreadable is no reason to fail.
            match File::open(&seed.local) {
                Ok(file) => {
                    let stamp = file.metadata().map(|metadata| platform::stamp(&metadata));
                    let known = seed.known.as_ref();
                    let chunks = |stamp| self.known.chunks(self.repository, known, stamp);
                    seeds.push(Seed {
                        path: seed.local.clone(),
                        known: stamp.ok().and_then(chunks),
                        file,
                        cutter,
                        target,
                    });
                }
                Err(error) => self.progress.warn(&format!(
                    "cannot use chunks of {}: {error}",
                    seed.local.display()
                )),
            }
        }
        Ok(seeds)
    }

    fn search_seeds(&self, survey: &mut Survey) -> Result<()> {
        let seeds = std::mem::take(&mut survey.seeds);
        let searched = seeds.iter().zip(0..).try_for_each(|(seed, number)| {
            let Ok(metadata) = seed.file.metadata() else {
                return Ok(());
            };
            if !metadata.is_file() || self.was_searched(seed) {
                return Ok(());
            }
            let local = seed
                .target
                .map_or(LocalFile::Seed(number), LocalFile::Target);
            let stable = matches!(local, LocalFile::Seed(_));
            if let Some(known) = &seed.known {
                survey.saw_all(local, known, std::iter::repeat(stable));
                return Ok(());
            }
            let searched = Searched {
                local,
                path: &seed.path,
                file: &seed.file,
                stable,
                cache: None,
            };
            match self.search(searched, seed.cutter, 0..metadata.len(), survey) {
                Err(error @ Error::LocalFile { .. }) => {
                    self.progress.warn(&crate::repository::whole_text(&error));
                    Ok(())
                }
                outcome => outcome,
            }
        });
        survey.seeds = seeds;
        searched
    }

    /// Whether this file is a target whose former grid was searched.
    fn was_searched(&self, seed: &Seed) -> bool {
        let target = seed
            .target
            .and_then(|number| self.targets.get(number as usize));
        target.is_some_and(|target| target.known.is_some() || target.cutter == Some(seed.cutter))
    }

    fn search(
        &self,
        searched: Searched<'_>,
        cutter: Cutter,
        range: Range<u64>,
        survey: &mut Survey,
    ) -> Result<()> {
        self.progress.phase(Phase {
            name: "searching",
            subject: searched.path.display().to_string(),
            total_bytes: Some(range.end.saturating_sub(range.start)),
        });
        let index = &self.loaded.index;
        let note = |seen: Vec<Seen>| {
            for seen in seen {
                survey.saw(index, &seen.id, seen.at(searched.local, searched.stable));
            }
        };
        match cutter {
            Cutter::Grid(grid) => self.search_grid(searched, grid, range, note),
            Cutter::Content(content) => self.search_content(searched, content, range, note),
        }
    }

    fn search_grid(
        &self,
        searched: Searched<'_>,
        grid: Grid,
        range: Range<u64>,
        note: impl FnMut(Vec<Seen>) + Send,
    ) -> Result<()> {
        parallel::each(
            self.repository.threads(),
            grid.reads(range).map(Ok),
            || Ok(Vec::new()),
            |buffer, range| self.look(searched, range.clone(), grid.chunks(range), buffer),
            note,
        )
    }

    fn search_content(
        &self,
        searched: Searched<'_>,
        content: Content,
        range: Range<u64>,
        note: impl FnMut(Vec<Seen>) + Send,
    ) -> Result<()> {
        let mut offset = range.start;
        let source = RangeReader::new(searched.file, range);
        let jobs = content.chunks(source).map(|chunk| {
            let at = offset;
            let chunk =
                chunk.map_err(|error| Error::local(searched.path, "read", Some(at), error))?;
            offset = offset.saturating_add(chunk.len() as u64);
            Ok((at, chunk))
        });
        parallel::each(
            self.repository.threads(),
            jobs,
            || Ok(()),
            |(), (offset, chunk)| {
                self.go_on()?;
                self.progress.add(Counter::Scanned, chunk.len() as u64);
                Ok(vec![Seen {
                    offset,
                    length_bytes: chunk.len(),
                    id: self.zeros.id_of(&chunk),
                }])
            },
            note,
        )
    }
}

impl Seen {
    fn at(&self, file: LocalFile, stable: bool) -> LocalChunk {
        let length_bytes = u32::try_from(self.length_bytes).unwrap_or(u32::MAX);
        LocalChunk {
            file,
            offset: self.offset,
            length_bytes,
            stable,
        }
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

    /// The grid on which the local file was cut.
    const fn grid(&self) -> Option<Grid> {
        match self.cutter {
            Some(Cutter::Grid(grid)) => Some(grid),
            Some(Cutter::Content(_)) | None => None,
        }
    }

    /// Whether a grid cuts the wanted file into exactly its chunks.
    fn is_cut_by(&self, cutter: Cutter) -> bool {
        match cutter {
            Cutter::Grid(grid) => grid
                .chunks(0..self.size_bytes)
                .eq(self.chunks.iter().map(|chunk| chunk.range())),
            Cutter::Content(_) => false,
        }
    }
}
