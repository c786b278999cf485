//! Copying chunks that lie elsewhere on this host, also inside the file that is being overwritten.
//!
//! A chunk is read before the place where it lies is overwritten: such copies are ordered by these
//! dependencies, and where they run in a circle one chunk of the circle is held in memory. What
//! turns out to be another chunk than expected is left to fetching.

use std::collections::HashMap;
use std::fs::File;

use crate::direct::AlignedBuffer;
use crate::error::{Result, stop_if_interrupted};
use crate::id::ChunkId;
use crate::index::ChunkNumber;
use crate::platform;

use super::Restore;
use super::place::Place;
use super::search::Seed;
use super::sources::{LocalFile, Source};
use super::writer::Writer;

/// Chunks held at the same time; beyond that a chunk is fetched.
const HELD_BYTES: usize = 64 << 20;

/// Copies what lies where this restore writes. Returns chunks that turned out not to lie there.
pub(super) fn move_overwritten(
    copier: &Copier<'_>,
    moving: Vec<Source>,
) -> Result<Vec<ChunkNumber>> {
    let mut scheduler = Scheduler::new(copier, moving);
    scheduler.run()?;
    Ok(scheduler.failed)
}

/// Knows where everything is.
pub(super) struct Copier<'a> {
    restore: &'a Restore<'a>,
    seeds: &'a [Seed],
    /// Of all that is copied.
    needs: &'a [Place],
}

impl<'a> Copier<'a> {
    pub(super) const fn new(
        restore: &'a Restore<'a>,
        seeds: &'a [Seed],
        needs: &'a [Place],
    ) -> Self {
        Self {
            restore,
            seeds,
            needs,
        }
    }

    pub(super) const fn restore(&self) -> &'a Restore<'a> {
        self.restore
    }

    /// Reads a chunk, of whose length `content` is. False when something else lies there now.
    fn read(&self, source: &Source, content: &mut [u8]) -> bool {
        self.read_unverified(source, content)
            && Some(self.restore.zeros.id_of(content)) == self.id(source)
    }

    fn read_unverified(&self, source: &Source, content: &mut [u8]) -> bool {
        let read = self
            .file(source)
            .map(|file| platform::read_full_at(file, content, source.offset));
        matches!(read, Some(Ok(read)) if read == content.len())
    }

    fn id(&self, source: &Source) -> Option<ChunkId> {
        let (id, _) = self.restore.loaded.index.chunk(source.chunk)?;
        Some(id)
    }

    fn file(&self, source: &Source) -> Option<&'a File> {
        match source.file {
            LocalFile::Target(number) => self.restore.targets.get(number as usize)?.file.as_ref(),
            LocalFile::Seed(number) => Some(&self.seeds.get(number as usize)?.file),
        }
    }

    /// All places that a chunk must go to.
    fn places(&self, source: &Source) -> &'a [Place] {
        self.restore.needs_of(self.needs, source.chunk)
    }
}

/// Copies chunks. Every thread has its own.
pub(super) struct Mover<'a> {
    copier: &'a Copier<'a>,
    buffer: AlignedBuffer,
}

impl<'a> Mover<'a> {
    pub(super) const fn new(copier: &'a Copier<'a>) -> Self {
        Self {
            copier,
            buffer: AlignedBuffer::new(),
        }
    }

    /// Copies chunks that are in memory at once. Returns those that were not where they should be.
    pub(super) fn copy(
        &mut self,
        sources: &[Source],
        writer: &mut Writer<'_>,
    ) -> Result<Vec<ChunkNumber>> {
        let copier = self.copier;
        let lengths = sources.iter().map(|source| source.length_bytes as usize);
        let rooms = self.buffer.rooms(&lengths.collect::<Vec<_>>());
        let (mut read, mut lost) = (Vec::new(), Vec::new());
        for (source, room) in sources.iter().zip(rooms) {
            match copier.read_unverified(source, room) {
                true => read.push((source, &*room)),
                false => lost.push(source.chunk),
            }
        }
        let contents = read.iter().map(|(_, content)| (*content, None));
        let ids = copier.restore.zeros.ids_of(contents);
        for ((source, content), id) in read.into_iter().zip(ids) {
            match copier.id(source) == Some(id) {
                true => writer.put(copier.places(source), content)?,
                false => lost.push(source.chunk),
            }
        }
        Ok(lost)
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
    mover: Mover<'a>,
    writer: Writer<'a>,
    /// Sorted by where their source begins.
    copies: Vec<Source>,
    progress: Vec<Progress>,
    longest_source_bytes: u64,
    held: HashMap<usize, Option<Vec<u8>>>,
    held_bytes: usize,
    /// Chunks whose source was not what it should be.
    failed: Vec<ChunkNumber>,
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
            mover: Mover::new(copier),
            writer: Writer::new(copier.restore),
            copies,
            progress,
            longest_source_bytes,
            held: HashMap::new(),
            held_bytes: 0,
            failed: Vec::new(),
        }
    }

    /// Does all copies.
    fn run(&mut self) -> Result<()> {
        for first in 0..self.copies.len() {
            if self.progress.get(first) == Some(&Progress::Waiting) {
                self.run_from(first)?;
            }
        }
        self.writer.flush()
    }

    /// Does one copy after everything that it would overwrite.
    fn run_from(&mut self, first: usize) -> Result<()> {
        let mut path = vec![(first, self.start(first))];
        while let Some((number, blockers)) = path.last_mut() {
            let (number, blocker) = (*number, blockers.pop());
            let Some(blocker) = blocker else {
                self.finish(number)?;
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
        for place in self.mover.copier.places(copy) {
            let Some((file, chunk)) = self.mover.copier.restore.overwritten(*place) else {
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
        let content = (length_bytes <= room).then(|| vec![0; length_bytes]);
        let content = content.and_then(|mut content| {
            let is_there = self.mover.copier.read(copy, &mut content);
            is_there.then_some(content)
        });
        self.held_bytes = self
            .held_bytes
            .saturating_add(content.as_ref().map_or(0, Vec::len));
        self.held.insert(number, content);
        Ok(())
    }

    fn finish(&mut self, number: usize) -> Result<()> {
        stop_if_interrupted(self.mover.copier.restore.progress)?;
        self.set(number, Progress::Done);
        let Some(copy) = self.copies.get(number) else {
            return Ok(());
        };
        match self.held.remove(&number) {
            Some(Some(content)) => {
                self.held_bytes = self.held_bytes.saturating_sub(content.len());
                self.writer.put(self.mover.copier.places(copy), &content)?;
            }
            Some(None) => self.failed.push(copy.chunk),
            None => {
                let lost = self
                    .mover
                    .copy(std::slice::from_ref(copy), &mut self.writer)?;
                self.failed.extend(lost);
            }
        }
        Ok(())
    }
}
