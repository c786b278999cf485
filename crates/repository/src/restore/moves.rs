//! Copying chunks that lie elsewhere on this host, also inside the file that is being overwritten.
//!
//! A chunk is read before the place where it lies is overwritten: copies are ordered by these
//! dependencies, and where they run in a circle one chunk of the circle is held in memory. What
//! turns out to be another chunk than expected is left to fetching.

use std::collections::{BTreeMap, HashMap};

use crate::error::Result;
use crate::id::ChunkId;
use crate::parallel;
use crate::platform;

use super::survey::{LocalChunk, LocalFile, Survey};
use super::{Place, Restore};

/// Chunks held at the same time; beyond that a chunk is fetched.
const HELD_BYTES: usize = 64 << 20;

/// One chunk and all places it must go to.
type Move = (ChunkId, Vec<Place>);

/// Copies what it can and returns the rest.
pub(super) fn carry_out(
    restore: &Restore<'_>,
    survey: &Survey,
    moves: Vec<Move>,
) -> Result<Vec<Move>> {
    let with_source = moves
        .into_iter()
        .filter_map(|(id, places)| survey.source(&id).map(|source| Copy { id, source, places }));
    let (stable, volatile): (Vec<_>, Vec<_>) = with_source.partition(|copy| copy.source.stable);
    let copier = Copier { restore, survey };
    // First, because any other write may overwrite what they need.
    let mut failed = Scheduler::new(&copier, volatile).run()?;
    let outcomes = parallel::map(
        restore.repository.threads(),
        stable.into_iter().map(Ok),
        || Ok(()),
        |(), copy| {
            restore.go_on()?;
            match copier.read(&copy)? {
                Some(content) => restore.write(&copy.places, &content).map(|()| None),
                None => Ok(Some((copy.id, copy.places))),
            }
        },
    )?;
    failed.extend(outcomes.into_iter().flatten());
    Ok(failed)
}

struct Copy {
    id: ChunkId,
    source: LocalChunk,
    places: Vec<Place>,
}

struct Copier<'a> {
    restore: &'a Restore<'a>,
    survey: &'a Survey,
}

impl Copier<'_> {
    /// The chunk, or None when something else lies there now.
    fn read(&self, copy: &Copy) -> Result<Option<Vec<u8>>> {
        let file = match copy.source.file {
            LocalFile::Target(number) => self
                .restore
                .targets
                .get(number)
                .and_then(|target| target.file.as_ref()),
            LocalFile::Seed(number) => self.survey.seeds.get(number).map(|seed| &seed.file),
        };
        let Some(file) = file else { return Ok(None) };
        let mut content = vec![0; copy.source.length_bytes as usize];
        let read = platform::read_full_at(file, &mut content, copy.source.offset);
        let as_expected = read.is_ok_and(|read| read == content.len())
            && self.restore.zeros.id_of(&content) == copy.id;
        Ok(as_expected.then_some(content))
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
    copies: Vec<Copy>,
    progress: Vec<Progress>,
    /// Copies by where their source begins.
    sources: BTreeMap<(LocalFile, u64), Vec<usize>>,
    longest_source_bytes: u64,
    held: HashMap<usize, Option<Vec<u8>>>,
    held_bytes: usize,
}

impl<'a> Scheduler<'a> {
    fn new(copier: &'a Copier<'a>, copies: Vec<Copy>) -> Self {
        let mut sources: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (number, copy) in copies.iter().enumerate() {
            sources
                .entry((copy.source.file, copy.source.offset))
                .or_default()
                .push(number);
        }
        let longest_source_bytes = copies
            .iter()
            .map(|copy| copy.source.length_bytes)
            .max()
            .unwrap_or(0)
            .into();
        let progress = vec![Progress::Waiting; copies.len()];
        Self {
            copier,
            copies,
            progress,
            sources,
            longest_source_bytes,
            held: HashMap::new(),
            held_bytes: 0,
        }
    }

    /// Does all copies. Returns those whose source was not what it should be.
    fn run(mut self) -> Result<Vec<Move>> {
        let mut failed = Vec::new();
        for first in 0..self.copies.len() {
            if self.progress.get(first) == Some(&Progress::Waiting) {
                self.run_from(first, &mut failed)?;
            }
        }
        Ok(failed)
    }

    /// Does one copy after everything that it would overwrite.
    fn run_from(&mut self, first: usize, failed: &mut Vec<Move>) -> Result<()> {
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
        for place in &copy.places {
            let target = self.copier.restore.targets.get(place.target);
            let Some(chunk) = target.and_then(|target| target.chunks.get(place.chunk)) else {
                continue;
            };
            let file = LocalFile::Target(place.target);
            let from = (file, chunk.offset.saturating_sub(self.longest_source_bytes));
            for (_, numbers) in self.sources.range(from..(file, chunk.end())) {
                blockers.extend(numbers.iter().copied().filter(|other| {
                    let end = self.copies.get(*other).map(|other| other.source.end());
                    *other != number && end.is_some_and(|end| end > chunk.offset)
                }));
            }
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
        let length_bytes = copy.source.length_bytes as usize;
        let room = HELD_BYTES.saturating_sub(self.held_bytes);
        let content = if length_bytes <= room {
            self.copier.read(copy)?
        } else {
            None
        };
        self.held_bytes = self
            .held_bytes
            .saturating_add(content.as_ref().map_or(0, Vec::len));
        self.held.insert(number, content);
        Ok(())
    }

    fn finish(&mut self, number: usize, failed: &mut Vec<Move>) -> Result<()> {
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
            None => self.copier.read(copy)?,
        };
        match content {
            Some(content) => self.copier.restore.write(&copy.places, &content),
            None => {
                failed.push((copy.id, copy.places.clone()));
                Ok(())
            }
        }
    }
}

impl LocalChunk {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length_bytes.into())
    }
}
