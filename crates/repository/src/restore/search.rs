//! Wanted chunks elsewhere on this host: in targets on their former grid, and in seeds. A file of which the
//! caller says what it holds is not read.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use fixedbitset::FixedBitSet;
use vrs_progress::{Counter, Phase};

use crate::chunking::{Content, Cutter, Grid};
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::ChunkId;
use crate::intake::RangeReader;
use crate::layout::ChunkList;
use crate::parallel::{self, lock};
use crate::platform;
use crate::scan_cache::ScanCache;
use crate::store::RestoreRequest;

use super::Restore;
use super::filling::{Filler, Filling};
use super::sources::{LocalFile, Source, Sources};
use super::survey::{LocalChunk, Searched};
use super::target::{Target, identity};

pub(super) struct Seed {
    pub(super) path: PathBuf,
    pub(super) file: File,
    cutter: Cutter,
    size_bytes: u64,
    /// What it holds, where that is known.
    known: Option<ChunkList>,
    /// The target that this file is, if it is one.
    target: Option<u32>,
}

impl Restore<'_> {
    /// Searches a target where its former chunks began, unless that was done by comparing.
    pub(super) fn search_former_grid(
        &self,
        number: u32,
        target: &Target,
        sources: &Mutex<Sources>,
    ) -> Result<()> {
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
            cache: None,
        };
        let range = start.min(target.local_bytes)..target.local_bytes;
        self.progress.phase(Phase {
            name: "searching",
            subject: target.path.to_string(),
            total_bytes: Some(range.end.saturating_sub(range.start)),
        });
        let search = Search {
            restore: self,
            sources,
            filling: None,
        };
        search.search(searched, cutter, range)?;
        Ok(())
    }

    pub(super) fn open_seeds(&self, request: &RestoreRequest) -> Result<Vec<Seed>> {
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
            let opened = File::open(&seed.local).and_then(|file| Ok((file.metadata()?, file)));
            match opened {
                Ok((metadata, file)) if metadata.is_file() => {
                    let (known, stamp) = (seed.known.as_ref(), platform::stamp(&metadata));
                    seeds.push(Seed {
                        path: seed.local.clone(),
                        known: self.known.chunks(self.repository, known, stamp),
                        size_bytes: stamp.size_bytes,
                        file,
                        cutter,
                        target,
                    });
                }
                Ok(_) => {}
                Err(error) => self.progress.warn(&format!(
                    "cannot use chunks of {}: {error}",
                    seed.local.display()
                )),
            }
        }
        Ok(seeds)
    }

    /// Returns those chunks that were filled in.
    pub(super) fn search_seeds(
        &self,
        seeds: &[Seed],
        sources: &Mutex<Sources>,
        filling: Option<&Filling<'_>>,
    ) -> Result<FixedBitSet> {
        let mut filled = FixedBitSet::new();
        for (seed, number) in seeds.iter().zip(0..) {
            if self.has_no_more(seed) {
                continue;
            }
            let local = seed
                .target
                .map_or(LocalFile::Seed(number), LocalFile::Target);
            if let Some(known) = &seed.known {
                lock(sources).saw_all(local, known.places());
                continue;
            }
            let searched = Searched {
                local,
                path: &seed.path,
                file: &seed.file,
                cache: None,
            };
            let search = Search {
                restore: self,
                sources,
                filling,
            };
            match search.search(searched, seed.cutter, 0..seed.size_bytes) {
                Err(error) if error.is_of_file(&seed.path) => {
                    self.progress.warn(&crate::repository::whole_text(&error));
                }
                of_seed => filled.union_with(&of_seed?),
            }
        }
        Ok(filled)
    }

    /// Whether this file is a target that has nothing else, or is searched as such.
    fn has_no_more(&self, seed: &Seed) -> bool {
        let target = seed
            .target
            .and_then(|number| self.targets.get(number as usize));
        target.is_some_and(|target| {
            !target.existed || target.known.is_some() || target.cutter == Some(seed.cutter)
        })
    }
}

impl Seed {
    /// How much of it is read when it is searched.
    pub(super) const fn searched_bytes(&self) -> u64 {
        match self.known {
            None => self.size_bytes,
            Some(_) => 0,
        }
    }
}

/// A file that is searched, and what becomes of what is found.
struct Search<'a> {
    restore: &'a Restore<'a>,
    sources: &'a Mutex<Sources>,
    filling: Option<&'a Filling<'a>>,
}

/// One thread that searches.
struct Worker<'a> {
    buffer: Vec<u8>,
    filler: Option<Filler<'a>>,
}

/// A chunk of the index, where it lies on this host.
struct Found {
    source: Source,
    is_filled: bool,
}

impl Search<'_> {
    /// Returns those chunks that were filled in.
    fn search(
        &self,
        searched: Searched<'_>,
        cutter: Cutter,
        range: Range<u64>,
    ) -> Result<FixedBitSet> {
        let restore = self.restore;
        let cache = ScanCache::for_file(restore.repository, searched.path, cutter, range.end);
        let searched = Searched {
            cache: cache.as_ref(),
            ..searched
        };
        let mut filled = FixedBitSet::new();
        let note = |all: Vec<Found>| {
            let mut sources = lock(self.sources);
            for found in all {
                if found.is_filled {
                    filled.grow_and_insert(found.source.chunk.place());
                }
                sources.saw(found.source);
            }
        };
        let work = |worker: &mut Worker<'_>, range| {
            let found = match cutter {
                Cutter::Grid(grid) => self.look_on_grid(searched, grid, range, worker)?,
                Cutter::Content(content) => {
                    self.look_by_content(searched, content, range, worker)?
                }
            };
            // Nothing counts as filled in before it is written.
            worker.filler.as_mut().map_or(Ok(()), Filler::flush)?;
            Ok(found)
        };
        let worker = || {
            Ok(Worker {
                buffer: Vec::new(),
                filler: self.filling.map(Filling::filler),
            })
        };
        let parts = cutter.parts(range).map(Ok);
        parallel::each(self.threads(), parts, worker, work, note)?;
        // Where it said that chunks are is only where they are looked for.
        if let Some(wrong) = cache.filter(ScanCache::is_wrong) {
            wrong.remove(restore.progress);
            return Ok(FixedBitSet::new());
        }
        Ok(filled)
    }

    /// Who fills files in waits for storage.
    fn threads(&self) -> usize {
        let restore = self.restore;
        let computing = restore.repository.threads();
        self.filling
            .map_or(computing, |_| restore.waiting_threads())
    }

    fn look_on_grid(
        &self,
        searched: Searched<'_>,
        grid: Grid,
        range: Range<u64>,
        worker: &mut Worker<'_>,
    ) -> Result<Vec<Found>> {
        let Worker { buffer, filler } = worker;
        let cuts = grid.chunks(range.clone());
        let look = |chunk: &LocalChunk<'_>, id| self.find(searched, chunk, id, filler);
        let found = self.restore.look(searched, range, cuts, buffer, look)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Where chunks end depends on all before them, but soon no longer on where the first one began: those that were
    /// cut on both sides of the end of a part are seen from the part before it, which goes on behind its end.
    fn look_by_content(
        &self,
        searched: Searched<'_>,
        content: Content,
        range: Range<u64>,
        worker: &mut Worker<'_>,
    ) -> Result<Vec<Found>> {
        let restore = self.restore;
        let recall = searched
            .cache
            .and_then(|cache| cache.recall(&restore.loaded.index));
        let mut end = range.start;
        let mut all = Vec::new();
        let until = range.end.saturating_add(content.settled_bytes());
        let source = RangeReader::new(searched.file, range.start..until);
        let mut pieces = content.pieces(source, recall);
        loop {
            stop_if_interrupted(restore.progress)?;
            let piece = pieces
                .next()
                .map_err(|error| Error::local(searched.path, "read", Some(end), error))?;
            let Some(piece) = piece else {
                return Ok(all);
            };
            let left_bytes = range.end.saturating_sub(end);
            let counted_bytes = left_bytes.min(piece.len() as u64);
            restore.progress.add(Counter::Scanned, counted_bytes);
            let chunks = piece.chunks().map(|(raw, seen)| {
                let start = end;
                end = start.saturating_add(raw.len() as u64);
                let range = start..end;
                LocalChunk { range, raw, seen }
            });
            let chunks: Vec<_> = chunks.collect();
            for (chunk, id) in chunks.iter().zip(restore.ids_of(searched, &chunks)) {
                all.extend(self.find(searched, chunk, id, &mut worker.filler)?);
            }
        }
    }

    /// Nothing when the repository does not have the chunk.
    fn find(
        &self,
        searched: Searched<'_>,
        local: &LocalChunk<'_>,
        id: ChunkId,
        filler: &mut Option<Filler<'_>>,
    ) -> Result<Option<Found>> {
        let Some(chunk) = self.restore.loaded.index.number(&id) else {
            return Ok(None);
        };
        let is_filled = match filler {
            Some(filler) => filler.fill(chunk, local.raw)?,
            None => false,
        };
        let source = Source::new(chunk, searched.local, &local.range);
        Ok(Some(Found { source, is_filled }))
    }
}

impl Target {
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
