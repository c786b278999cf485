//! Filling files that were not there before with what is found on this host, at the moment when it is found: it is
//! in memory then, and storage has something to do while the rest is still looked at.
//!
//! Such a file holds nothing that anybody needs, so that it does not matter when it is written to. What is not found in
//! this way is brought to its place later ([`transfer`](super::transfer)).

use std::sync::Mutex;

use fixedbitset::FixedBitSet;

use crate::error::Result;
use crate::index::ChunkNumber;
use crate::parallel::lock;

use super::Restore;
use super::place::Place;
use super::sources::set;
use super::survey::State;
use super::target::Target;
use super::writer::Writer;

/// What such files lack. Memory: four bytes for each of their chunks.
pub(super) struct Filling<'a> {
    restore: &'a Restore<'a>,
    needs: Vec<Place>,
    /// Chunks that no thread has taken on.
    lacking: Mutex<FixedBitSet>,
}

impl<'a> Filling<'a> {
    pub(super) fn of(restore: &'a Restore<'a>) -> Self {
        let needs = restore.needs(|target| !target.existed);
        let chunks = needs.iter().filter_map(|place| restore.number(*place));
        Self {
            restore,
            lacking: Mutex::new(set(restore, chunks)),
            needs,
        }
    }

    pub(super) const fn filler(&'a self) -> Filler<'a> {
        Filler {
            filling: self,
            writer: Writer::new(self.restore),
        }
    }

    /// Whether all that was taken on was filled in.
    pub(super) fn is_done(&self, filled: &FixedBitSet) -> bool {
        let lacking = lock(&self.lacking);
        let mut chunks = self
            .needs
            .iter()
            .filter_map(|place| self.restore.number(*place));
        chunks.all(|chunk| lacking.contains(chunk.place()) || filled.contains(chunk.place()))
    }

    fn take(&self, chunk: ChunkNumber) -> bool {
        let mut lacking = lock(&self.lacking);
        let is_lacking = lacking.contains(chunk.place());
        if is_lacking {
            lacking.remove(chunk.place());
        }
        is_lacking
    }
}

/// Every thread has its own.
pub(super) struct Filler<'a> {
    filling: &'a Filling<'a>,
    writer: Writer<'a>,
}

impl Filler<'_> {
    /// Writes a chunk to all its places, at the latest when the target settles after [`Self::flush`]. False where it has
    /// none, or another thread does.
    pub(super) fn fill(&mut self, chunk: ChunkNumber, content: &[u8]) -> Result<bool> {
        let filling = self.filling;
        let index = &filling.restore.loaded.index;
        // A scan cache that is wrong must not spoil what lies beside.
        let fits = index
            .chunk(chunk)
            .is_some_and(|(_, stored)| stored.raw_bytes() as usize == content.len());
        let is_mine = fits && filling.take(chunk);
        if is_mine {
            let needs = filling.restore.needs_of(&filling.needs, chunk);
            self.writer.write(needs, content)?;
        }
        Ok(is_mine)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }
}

impl Target {
    /// Notes which chunks were filled in. What does not count is in the page cache and has to be written again, which
    /// must not meet writes past it.
    pub(super) fn note_filled(&mut self, filled: &FixedBitSet, is_done: bool) -> Result<()> {
        if self.existed {
            return Ok(());
        }
        self.settle()?;
        if !is_done {
            self.use_page_cache();
        }
        for (state, chunk) in self.states.iter_mut().zip(self.chunks.numbers()) {
            if *state == State::Missing && filled.contains(chunk.place()) {
                *state = State::Filled;
            }
        }
        Ok(())
    }
}
