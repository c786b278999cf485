//! Fetching chunks from the repository: neighbouring ones at once. A chunk that cannot be had does not keep the
//! others from being written.

use std::iter::Peekable;
use std::ops::Range;
use std::sync::Mutex;

use itertools::Itertools as _;
use rustic_core::repofile::BlobType;
use vrs_progress::Counter;

use crate::blob::{StoredBlob, Unsealer};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{BlobLocation, PackNumber};
use crate::parallel::lock;
use crate::repository::ResticRepository;

use super::place::Place;
use super::writer::Writer;
use super::{Restore, TOGETHER_BYTES};

/// Read at once at most, unless a single chunk is longer.
const STRETCH_BYTES: u32 = 4 << 20;
/// Bytes that nobody wants, read along to save a request.
const GAP_BYTES: u32 = 64 << 10;

/// Chunks of one pack that are read at once.
pub(super) struct Stretch<'a> {
    pack: PackNumber,
    offset: u32,
    end: u32,
    needs: &'a [Place],
}

/// The first chunk that could not be had, and how many more.
struct Failure {
    place: Place,
    more: u64,
    error: Error,
}

/// What can be had, and what could not.
pub(super) struct Fetcher<'a> {
    restore: &'a Restore<'a>,
    failure: Mutex<Option<Failure>>,
}

impl<'a> Fetcher<'a> {
    pub(super) const fn new(restore: &'a Restore<'a>) -> Self {
        Self {
            restore,
            failure: Mutex::new(None),
        }
    }

    /// An error where a chunk could not be had.
    pub(super) fn finish(self) -> Result<()> {
        let failure = lock(&self.failure).take();
        failure.map_or(Ok(()), |failure| Err(self.restore.incomplete(failure)))
    }

    /// Sorts needs by where the chunks lie in the repository.
    pub(super) fn sort(&self, needs: &mut [Place]) {
        let restore = self.restore;
        needs.sort_unstable_by_key(|place| {
            let lies = restore.location(*place);
            let lies = lies.map(|location| (location.pack, location.offset));
            (lies, restore.number(*place), *place)
        });
    }

    /// Cuts a list that was sorted.
    pub(super) fn stretches<'n>(
        &'n self,
        mut rest: &'n [Place],
    ) -> impl Iterator<Item = Stretch<'n>> + 'n {
        let restore = self.restore;
        std::iter::from_fn(move || {
            let mut stretch = Stretch::of(restore.location(*rest.first()?)?);
            let grown = |place: &&Place| {
                restore
                    .location(**place)
                    .is_some_and(|next| stretch.grow(next))
            };
            let (needs, after) = rest.split_at_checked(rest.iter().take_while(grown).count())?;
            rest = after;
            Some(Stretch { needs, ..stretch })
        })
    }

    /// Writes what it can have.
    pub(super) fn fetch(
        &self,
        stretch: &Stretch<'_>,
        unsealer: &mut Unsealer<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<()> {
        let index = &self.restore.loaded.index;
        let mut bytes = self.read(stretch)?;
        let chunks = self.restore.by_chunk(stretch.needs);
        let chunks = chunks.filter_map(|(chunk, needs)| {
            let (id, location) = index.chunk(chunk)?;
            let sealed = stretch.part(&location);
            let blob = StoredBlob {
                id,
                location,
                sealed,
            };
            Some((blob, needs))
        });
        let mut chunks = chunks.peekable();
        while let Some((blobs, places)) = next_together(&mut chunks) {
            let contents = unsealer.unseal_all(&blobs, &mut bytes);
            for ((blob, needs), content) in blobs.iter().zip(places).zip(contents) {
                self.put(&blob.id, needs, content.ok(), writer)?;
            }
        }
        Ok(())
    }

    /// Writes a chunk, which is fetched by itself where nothing came of the stretch.
    fn put(
        &self,
        id: &ChunkId,
        needs: &[Place],
        content: Option<&[u8]>,
        writer: &mut Writer<'_>,
    ) -> Result<()> {
        if let Some(content) = content {
            return writer.put(needs, content);
        }
        match one_by_one(self.restore.repository, id) {
            Ok(content) => writer.put(needs, &content),
            Err(error) if error.is_of_whole_storage() => Err(error),
            Err(error) => {
                self.note(needs, error);
                Ok(())
            }
        }
    }

    /// Nothing where the pack cannot be read.
    fn read(&self, stretch: &Stretch<'_>) -> Result<Vec<u8>> {
        let Restore {
            repository,
            loaded,
            progress,
            ..
        } = self.restore;
        let pack = loaded.index.pack(stretch.pack);
        let length_bytes = stretch.end.saturating_sub(stretch.offset);
        let read = pack.map(|pack| {
            let (backend, offset) = (&repository.backend, stretch.offset);
            backend.read_pack(pack.id, offset, length_bytes)
        });
        // No copy where nobody else holds the bytes.
        let content = match read {
            Some(Err(error)) if error.is_of_whole_storage() => return Err(error),
            read => read.and_then(Result::ok).map_or_else(Vec::new, Vec::from),
        };
        progress.add(Counter::Fetched, content.len() as u64);
        Ok(content)
    }

    fn note(&self, needs: &[Place], error: Error) {
        let mut failure = lock(&self.failure);
        let count = needs.len() as u64;
        match (failure.as_mut(), needs.first()) {
            (Some(known), _) => known.more = known.more.saturating_add(count),
            (None, Some(place)) => {
                *failure = Some(Failure {
                    place: *place,
                    more: count.saturating_sub(1),
                    error,
                })
            }
            (None, None) => {}
        }
    }
}

impl Stretch<'_> {
    const fn of(first: BlobLocation) -> Self {
        Self {
            pack: first.pack,
            offset: first.offset,
            end: first.offset,
            needs: &[],
        }
    }

    /// Takes in a chunk, unless it lies too far away.
    fn grow(&mut self, next: BlobLocation) -> bool {
        let end = self.end.max(next.offset.saturating_add(next.length));
        let is_first = self.end == self.offset;
        let fits = self.pack == next.pack
            && next.offset <= self.end.saturating_add(GAP_BYTES)
            && end.saturating_sub(self.offset) <= STRETCH_BYTES;
        if is_first || fits {
            self.end = end;
        }
        is_first || fits
    }

    /// Where a chunk that was taken in lies in what is read.
    const fn part(&self, location: &BlobLocation) -> Range<usize> {
        let from = location.offset.saturating_sub(self.offset) as usize;
        from..from.saturating_add(location.length as usize)
    }
}

/// Chunks that are unsealed together, and where they go.
fn next_together<'n>(
    chunks: &mut Peekable<impl Iterator<Item = (StoredBlob, &'n [Place])>>,
) -> Option<(Vec<StoredBlob>, Vec<&'n [Place]>)> {
    let first = chunks.next()?;
    let mut raw_bytes = first.0.location.raw_bytes();
    let more = chunks.peeking_take_while(|(blob, _)| {
        raw_bytes = raw_bytes.saturating_add(blob.location.raw_bytes());
        raw_bytes <= TOGETHER_BYTES
    });
    Some(std::iter::once(first).chain(more).unzip())
}

/// The slow way, which also tries other packs that hold the chunk and says what is wrong.
fn one_by_one(repository: &ResticRepository, id: &ChunkId) -> Result<Vec<u8>> {
    let raw = repository.read_blob(BlobType::Data, id)?;
    raw.ok_or_else(|| {
        let what = format!("chunk {}", id.short());
        repository.backend.damaged(what, "it is in no index")
    })
}

impl Restore<'_> {
    /// Where the chunk of a place lies in the repository.
    fn location(&self, place: Place) -> Option<BlobLocation> {
        let (_, location) = self.loaded.index.chunk(self.number(place)?)?;
        Some(location)
    }

    fn incomplete(&self, failure: Failure) -> Error {
        let (target, chunk) = (self.target(failure.place), self.stored(failure.place));
        let (Some((target, _)), Some(chunk)) = (target, chunk) else {
            return failure.error;
        };
        Error::Incomplete {
            path: target.local.clone(),
            offset: chunk.offset,
            length_bytes: chunk.length_bytes.into(),
            more: failure.more,
            source: Box::new(failure.error),
        }
    }
}
