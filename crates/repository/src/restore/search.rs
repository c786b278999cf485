//! Wanted chunks elsewhere on this host: in targets on their former grid, and in seeds. A file of which the
//! caller says what it holds is not read.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use vrs_progress::{Counter, Phase};

use crate::chunking::{Content, Cutter, Grid};
use crate::error::{Error, Result};
use crate::intake::RangeReader;
use crate::layout::ChunkList;
use crate::parallel;
use crate::platform;
use crate::scan_cache::ScanCache;
use crate::store::RestoreRequest;

use super::Restore;
use super::sources::LocalFile;
use super::survey::{Searched, Seen, Survey};
use super::target::{Target, identity};

pub(super) struct Seed {
    pub(super) path: PathBuf,
    pub(super) file: File,
    cutter: Cutter,
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
        survey: &mut Survey,
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
        self.search(
            searched,
            cutter,
            start.min(target.local_bytes)..target.local_bytes,
            survey,
        )
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

    pub(super) fn search_seeds(&self, survey: &mut Survey) -> Result<()> {
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
            if let Some(known) = &seed.known {
                survey.saw(local, known.places());
                return Ok(());
            }
            let searched = Searched {
                local,
                path: &seed.path,
                file: &seed.file,
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
        let cache = ScanCache::for_file(self.repository, searched.path, cutter, range.end);
        let searched = Searched {
            cache: cache.as_ref(),
            ..searched
        };
        let note = |seen: Vec<Seen>| {
            for seen in seen {
                survey.saw(searched.local, seen.number(&self.loaded.index));
            }
        };
        match cutter {
            Cutter::Grid(grid) => self.search_grid(searched, grid, range, note)?,
            Cutter::Content(content) => self.search_content(searched, content, range, note)?,
        }
        // What it misled about is noticed when it is used.
        if let Some(wrong) = cache.filter(ScanCache::is_wrong) {
            wrong.remove(self.progress);
        }
        Ok(())
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
        let recall = searched
            .cache
            .and_then(|cache| cache.recall(&self.loaded.index));
        let jobs = content.pieces(source, recall).map(|piece| {
            let at = offset;
            let piece =
                piece.map_err(|error| Error::local(searched.path, "read", Some(at), error))?;
            offset = offset.saturating_add(piece.len() as u64);
            Ok((at, piece))
        });
        parallel::each(
            self.repository.threads(),
            jobs,
            || Ok(()),
            |(), (offset, piece)| {
                self.go_on()?;
                self.progress.add(Counter::Scanned, piece.len() as u64);
                let mut end = offset;
                let seen = piece.chunks().map(|(raw, seen)| {
                    let start = end;
                    end = start.saturating_add(raw.len() as u64);
                    let id = self.id_of(searched, &(start..end), raw, seen);
                    Seen {
                        range: start..end,
                        id,
                    }
                });
                Ok(seen.collect::<Vec<_>>())
            },
            note,
        )
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
