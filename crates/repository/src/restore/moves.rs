//! Copying chunks that lie elsewhere on this host, also inside the file that is being overwritten.
//!
//! A chunk is read before the place where it lies is overwritten: copies are ordered by these
//! dependencies, and where they run in a circle one chunk of the circle is held in memory. What
//! turns out to be another chunk than expected is left to fetching.

use std::collections::HashMap;

use crate::error::Result;
use crate::index::ChunkNumber;
use crate::parallel;
use crate::platform;

use super::Restore;
use super::place::Place;
use super::search::Seed;
use super::sources::{LocalFile, Source};
use super::survey::Survey;

/// Chunks held at the same time; beyond that a chunk is fetched.
const HELD_BYTES: usize = 64 << 20;

/// Copies what lies on this host. Returns chunks that turned out not to, which are sought again.
pub(super) fn carry_out(
    restore: &Restore<'_>,
    survey: &mut Survey,
    needs: &[Place],
) -> Result<Vec<ChunkNumber>> {
    let Survey { sources, seeds } = survey;
    let copier = Copier {
        restore,
        seeds,
        needs,
    };
    // First, because any other write may overwrite what they need.
    let moving = std::mem::take(&mut sources.moving);
    let mut failed = Scheduler::new(&copier, moving).run()?;
    let staying = std::mem::take(&mut sources.staying);
    parallel::each_short(
        restore.waiting_threads(),
        staying.iter(),
        |source| {
            restore.go_on()?;
            match copier.read(source) {
                Some(content) => copier.write(source, &content).map(|()| None),
                None => Ok(Some(source.chunk)),
            }
        },
        |chunk| failed.extend(chunk),
    )?;
    failed.iter().for_each(|chunk| sources.lost(*chunk));
    Ok(failed)
}

struct Copier<'a> {
    restore: &'a Restore<'a>,
    seeds: &'a [Seed],
    /// Of the whole restore.
    needs: &'a [Place],
}

impl<'a> Copier<'a> {
    /// The chunk, or None when something else lies there now.
    fn read(&self, source: &Source) -> Option<Vec<u8>> {
        let file = match source.file {
            LocalFile::Target(number) => {
                let target = self.restore.targets.get(number as usize)?;
                target.file.as_ref()?
            }
            LocalFile::Seed(number) => &self.seeds.get(number as usize)?.file,
        };
        let (wanted, _) = self.restore.loaded.index.chunk(source.chunk)?;
        let mut content = vec![0; source.length_bytes as usize];
        let read = platform::read_full_at(file, &mut content, source.offset);
        let as_expected = read.is_ok_and(|read| read == content.len())
            && self.restore.zeros.id_of(&content) == wanted;
        as_expected.then_some(content)
    }

    /// All places that a chunk must go to.
    fn places(&self, source: &Source) -> &'a [Place] {
        self.restore.needs_of(self.needs, source.chunk)
    }

    fn write(&self, source: &Source, content: &[u8]) -> Result<()> {
        self.restore.write(self.places(source), content)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    /// On the way: what blocks it is being done first.
    Started,
    Done,
}

/// Orders copies whose sources are overwritten by the restore.
struct Scheduler<'a> {
    copier: &'a Copier<'a>,
    /// Sorted by where their source begins.
    copies: Vec<Source>,
    progress: Vec<Progress>,
    longest_source_bytes: u64,
    held: HashMap<usize, Option<Vec<u8>>>,
    held_bytes: usize,
}

impl<'a> Scheduler<'a> {
    fn new(copier: &'a Copier<'a>, mut copies: Vec<Source>) -> Self {
        copies.sort_unstable_by_key(Source::begins);
        let longest_source_bytes = copies
            .iter()
            .map(|copy| copy.length_bytes)
            .max()
            .unwrap_or(0)
            .into();
        let progress = vec![Progress::Waiting; copies.len()];
        Self {
            copier,
            copies,
            progress,
            longest_source_bytes,
            held: HashMap::new(),
            held_bytes: 0,
        }
    }

    /// Does all copies. Returns the chunks whose source was not what it should be.
    fn run(mut self) -> Result<Vec<ChunkNumber>> {
        let mut failed = Vec::new();
        for first in 0..self.copies.len() {
            if self.progress.get(first) == Some(&Progress::Waiting) {
                self.run_from(first, &mut failed)?;
            }
        }
        Ok(failed)
    }

    /// Does one copy after everything that it would overwrite.
    fn run_from(&mut self, first: usize, failed: &mut Vec<ChunkNumber>) -> Result<()> {
        let mut path = vec![(first, self.start(first))];
        while let Some((number, blockers)) = path.last_mut() {
            let (number, blocker) = (*number, blockers.pop());
            let Some(blocker) = blocker else {
                self.finish(number, failed)?;
                path.pop();
                continue;
            };
            match self.progress.get(blocker) {
                Some(Progress::Waiting) => {
                    let blockers = self.start(blocker);
                    path.push((blocker, blockers));
                }
                Some(Progress::Started) => self.hold(blocker)?,
                Some(Progress::Done) | None => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, number: usize) -> Vec<usize> {
        self.set(number, Progress::Started);
        self.blockers(number)
    }

    fn set(&mut self, number: usize, progress: Progress) {
        if let Some(present) = self.progress.get_mut(number) {
            *present = progress;
        }
    }

    /// Copies that need what this one overwrites.
    fn blockers(&self, number: usize) -> Vec<usize> {
        let mut blockers = Vec::new();
        let Some(copy) = self.copies.get(number) else {
            return blockers;
        };
        for place in self.copier.places(copy) {
            let Some((file, chunk)) = self.copier.restore.overwritten(*place) else {
                continue;
            };
            let from = (file, chunk.offset.saturating_sub(self.longest_source_bytes));
            let first = self.copies.partition_point(|other| other.begins() < from);
            let others = (first..).zip(self.copies.get(first..).unwrap_or_default());
            let near = others.take_while(|(_, other)| other.begins() < (file, chunk.end()));
            let overwritten = near.filter(|(_, other)| other.end() > chunk.offset);
            let numbers = overwritten.map(|(other, _)| other);
            blockers.extend(numbers.filter(|other| *other != number));
        }
        blockers
    }

    /// Takes a chunk into memory because its place is about to be overwritten.
    fn hold(&mut self, number: usize) -> Result<()> {
        let Some(copy) = self
            .copies
            .get(number)
            .filter(|_| !self.held.contains_key(&number))
        else {
            return Ok(());
        };
        let length_bytes = copy.length_bytes as usize;
        let room = HELD_BYTES.saturating_sub(self.held_bytes);
        let content = if length_bytes <= room {
            self.copier.read(copy)
        } else {
            None
        };
        self.held_bytes = self
            .held_bytes
            .saturating_add(content.as_ref().map_or(0, Vec::len));
        self.held.insert(number, content);
        Ok(())
    }

    fn finish(&mut self, number: usize, failed: &mut Vec<ChunkNumber>) -> Result<()> {
        self.copier.restore.go_on()?;
        self.set(number, Progress::Done);
        let Some(copy) = self.copies.get(number) else {
            return Ok(());
        };
        let held = self.held.remove(&number);
        if let Some(Some(content)) = &held {
            self.held_bytes = self.held_bytes.saturating_sub(content.len());
        }
        let content = match held {
            Some(held) => held,
            None => self.copier.read(copy),
        };
        match content {
            Some(content) => self.copier.write(copy, &content),
            None => {
                failed.push(copy.chunk);
                Ok(())
            }
        }
    }
}
