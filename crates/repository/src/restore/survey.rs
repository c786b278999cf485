//! What is in place already, and which wanted chunks lie elsewhere on this host.
//!
//! Targets are compared with what is wanted in them ([`compare`](super::compare)). Only when something is missing is
//! it searched for ([`search`](super::search)): at the same time, where a target is not there at all, and such a target
//! may be filled meanwhile ([`filling`](super::filling)).

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fixedbitset::FixedBitSet;
use vrs_progress::{Counter, Phase};

use crate::chunking::SeenHash;
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::ChunkId;
use crate::parallel::{self, lock};
use crate::platform;
use crate::scan_cache::ScanCache;
use crate::sink::is_zero;
use crate::store::RestoreRequest;

use super::Restore;
use super::compare::Comparison;
use super::filling::Filling;
use super::search::Seed;
use super::sources::{LocalFile, Sources};
use super::target::Target;

/// What has to be done about a chunk of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    InPlace,
    /// Zeros that are not there yet.
    Zero,
    Missing,
    /// Brought there while it was searched for.
    Filled,
}

/// The outcome.
pub(super) struct Survey {
    pub(super) sources: Sources,
    pub(super) seeds: Vec<Seed>,
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

/// What is known when all targets were compared.
struct Look {
    /// Of all chunks of all targets.
    states: Vec<Vec<State>>,
    /// Chunks that were filled in.
    filled: FixedBitSet,
    /// Otherwise some were begun that do not count.
    is_filling_done: bool,
}

/// A chunk of a file on this host.
pub(super) struct LocalChunk<'a> {
    pub(super) range: Range<u64>,
    pub(super) raw: &'a [u8],
    /// Its BLAKE3, if that was needed to cut it.
    pub(super) seen: Option<SeenHash>,
}

impl Restore<'_> {
    /// Looks at everything. If `may_fill`, targets that did not exist are filled meanwhile; they must be open.
    pub(super) fn survey(&mut self, request: &RestoreRequest, may_fill: bool) -> Result<Survey> {
        let mut seeds = Vec::new();
        if self.targets.iter().any(Target::is_to_be_filled) {
            seeds = self.open_seeds(request)?;
        }
        let sources = Mutex::new(Sources::new(self));
        let look = self.look_at_once(&seeds, &sources, may_fill)?;
        for (target, states) in self.targets.iter_mut().zip(look.states) {
            target.states = states;
            target.note_filled(&look.filled, look.is_filling_done)?;
        }
        lock(&sources).all_compared(self);
        self.search_further(request, &mut seeds, &sources)?;
        let sources = sources.into_inner();
        Ok(Survey {
            sources: sources.unwrap_or_else(PoisonError::into_inner),
            seeds,
        })
    }

    fn look_at_once(
        &self,
        seeds: &[Seed],
        sources: &Mutex<Sources>,
        may_fill: bool,
    ) -> Result<Look> {
        let compared = self.targets.iter().map(Target::compared_bytes);
        let searched = seeds.iter().map(Seed::searched_bytes);
        self.announce("comparing", compared.chain(searched));
        let comparison = Comparison {
            restore: self,
            sources,
        };
        let filling = (may_fill && !seeds.is_empty()).then(|| Filling::of(self));
        let (states, filled) = parallel::both(
            || comparison.compare_all(),
            || self.search_seeds(seeds, sources, filling.as_ref()),
        );
        let filled = filled?;
        Ok(Look {
            states: states?,
            is_filling_done: filling.is_none_or(|filling| filling.is_done(&filled)),
            filled,
        })
    }

    /// Searches for what is still missing when all targets are compared.
    fn search_further(
        &self,
        request: &RestoreRequest,
        seeds: &mut Vec<Seed>,
        sources: &Mutex<Sources>,
    ) -> Result<()> {
        if lock(sources).is_all_found() {
            return Ok(());
        }
        for (number, target) in (0..).zip(&self.targets) {
            self.search_former_grid(number, target, sources)?;
        }
        let were_searched = !seeds.is_empty();
        if lock(sources).is_all_found() || were_searched {
            return Ok(());
        }
        *seeds = self.open_seeds(request)?;
        self.announce("searching", seeds.iter().map(Seed::searched_bytes));
        self.search_seeds(seeds, sources, None)?;
        Ok(())
    }

    fn announce(&self, name: &'static str, bytes: impl Iterator<Item = u64>) {
        self.progress.phase(Phase {
            name,
            subject: String::new(),
            total_bytes: Some(bytes.fold(0, u64::saturating_add)),
        });
    }

    /// The ids of chunks of a file. Those that its scan cache does not know are hashed at once: see `vrs_sha256`.
    pub(super) fn ids_of(&self, searched: Searched<'_>, chunks: &[LocalChunk<'_>]) -> Vec<ChunkId> {
        let recognise = |LocalChunk { range, raw, seen }: &LocalChunk<'_>| {
            let cache = searched.cache.filter(|_| !is_zero(raw))?;
            let hash = || self.zeros.id_of(raw);
            cache.recognise(&self.loaded.index, range, raw, *seen, hash)
        };
        let known = chunks.iter().map(|chunk| (chunk.raw, recognise(chunk)));
        self.zeros.ids_of(known)
    }

    /// Reads a range and shows its chunks with their ids. `cuts` cover the range in order, and may go on behind it.
    pub(super) fn look<T>(
        &self,
        searched: Searched<'_>,
        range: Range<u64>,
        cuts: impl Iterator<Item = Range<u64>>,
        buffer: &mut Vec<u8>,
        mut see: impl FnMut(&LocalChunk<'_>, ChunkId) -> Result<T>,
    ) -> Result<Vec<T>> {
        stop_if_interrupted(self.progress)?;
        let read = platform::read_range(searched.file, &range, buffer)
            .map_err(|error| Error::local(searched.path, "read", Some(range.start), error))?;
        buffer.truncate(read.unwrap_or(buffer.len()));
        let length_bytes = range.end.saturating_sub(range.start);
        self.progress.add(Counter::Scanned, length_bytes);
        let mut rest = buffer.as_slice();
        let mut chunks = Vec::new();
        for range in cuts {
            let length_bytes =
                usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let Some((raw, after)) = rest.split_at_checked(length_bytes) else {
                break;
            };
            let seen = None;
            chunks.push(LocalChunk { range, raw, seen });
            rest = after;
        }
        let ids = self.ids_of(searched, &chunks);
        let seen = chunks.iter().zip(ids).map(|(chunk, id)| see(chunk, id));
        seen.collect()
    }
}

impl Target {
    /// Whether it is not there, and something of it may be elsewhere.
    fn is_to_be_filled(&self) -> bool {
        !self.existed && self.states.contains(&State::Missing)
    }
}
