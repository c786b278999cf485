//! Fetching chunks from the repository: neighbouring ones at once, from several packs at the same
//! time. A chunk that cannot be had does not keep the others from being written.

use std::sync::Mutex;

use rustic_core::repofile::BlobType;
use vrs_progress::Counter;

use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{BlobLocation, Index, PackNumber};
use crate::parallel::{self, lock};

use super::{Place, Restore};

/// Read at once at most, unless a single chunk is longer.
const STRETCH_BYTES: u32 = 4 << 20;
/// Bytes that nobody wants, read along to save a request.
const GAP_BYTES: u32 = 64 << 10;
/// Storage far away needs more requests under way than there are processors.
const LEAST_THREADS: usize = 4;

/// A chunk to fetch.
struct Wanted {
    id: ChunkId,
    location: BlobLocation,
    places: Vec<Place>,
}

/// Chunks of one pack that are read at once.
struct Stretch {
    pack: PackNumber,
    offset: u32,
    end: u32,
    wanted: Vec<Wanted>,
}

/// The first chunk that could not be had, and how many more.
struct Failure {
    place: Place,
    more: u64,
    error: Error,
}

/// Fetches and writes all chunks. Fails after everything that can be had is written.
pub(super) fn fetch(restore: &Restore<'_>, chunks: Vec<(ChunkId, Vec<Place>)>) -> Result<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    let loaded = restore.repository.index()?;
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let threads = restore.repository.threads().max(LEAST_THREADS);
    let jobs = stretches(&loaded.index, chunks).into_iter().map(Ok);
    parallel::map(
        threads,
        jobs,
        || Ok(()),
        |(), stretch| {
            restore.go_on()?;
            fetch_stretch(restore, &loaded.index, stretch, &failure)
        },
    )?;
    let failure = lock(&failure).take();
    failure.map_or(Ok(()), |failure| Err(restore.incomplete(failure)))
}

fn stretches(index: &Index, chunks: Vec<(ChunkId, Vec<Place>)>) -> Vec<Stretch> {
    let located = chunks.into_iter().filter_map(|(id, places)| {
        // Every chunk of a target was found in this index when the target was looked at.
        index.find(BlobType::Data, &id).map(|location| Wanted {
            id,
            location,
            places,
        })
    });
    let mut wanted: Vec<Wanted> = located.collect();
    wanted.sort_unstable_by_key(|chunk| (chunk.location.pack, chunk.location.offset));
    let mut stretches: Vec<Stretch> = Vec::new();
    for chunk in wanted {
        let (pack, offset) = (chunk.location.pack, chunk.location.offset);
        let end = offset.saturating_add(chunk.location.length);
        match stretches.last_mut() {
            Some(last) if last.takes(pack, offset, end) => {
                last.end = last.end.max(end);
                last.wanted.push(chunk);
            }
            _ => stretches.push(Stretch {
                pack,
                offset,
                end,
                wanted: vec![chunk],
            }),
        }
    }
    stretches
}

impl Stretch {
    fn takes(&self, pack: PackNumber, offset: u32, end: u32) -> bool {
        self.pack == pack
            && offset <= self.end.saturating_add(GAP_BYTES)
            && end.saturating_sub(self.offset) <= STRETCH_BYTES
    }

    fn part<'a>(&self, content: &'a [u8], location: &BlobLocation) -> Option<&'a [u8]> {
        let from = location.offset.checked_sub(self.offset)? as usize;
        let to = from.checked_add(location.length as usize)?;
        content.get(from..to)
    }
}

fn fetch_stretch(
    restore: &Restore<'_>,
    index: &Index,
    stretch: Stretch,
    failure: &Mutex<Option<Failure>>,
) -> Result<()> {
    let repository = restore.repository;
    let pack = index.pack(stretch.pack).map(|pack| pack.id);
    let length_bytes = stretch.end.saturating_sub(stretch.offset);
    let content = pack.and_then(|pack| {
        repository
            .backend
            .read_pack(pack, stretch.offset, length_bytes)
            .ok()
    });
    restore.progress.add(
        Counter::Fetched,
        content.as_ref().map_or(0, bytes::Bytes::len) as u64,
    );
    for wanted in &stretch.wanted {
        let sealed = content
            .as_deref()
            .and_then(|content| stretch.part(content, &wanted.location));
        let raw = sealed.zip(pack).and_then(|(sealed, pack)| {
            repository
                .unseal(&wanted.id, &wanted.location, pack, sealed)
                .ok()
        });
        match raw.map_or_else(|| one_by_one(restore, wanted), Ok) {
            Ok(raw) => restore.write(&wanted.places, &raw)?,
            Err(error) => note(failure, &wanted.places, error),
        }
    }
    Ok(())
}

/// The slow way, which also tries other packs that hold the chunk and says what is wrong.
fn one_by_one(restore: &Restore<'_>, wanted: &Wanted) -> Result<Vec<u8>> {
    let raw = restore.repository.read_blob(BlobType::Data, &wanted.id)?;
    raw.ok_or_else(|| {
        restore
            .repository
            .backend
            .damaged(format!("chunk {}", wanted.id.short()), "it is in no index")
    })
}

fn note(failure: &Mutex<Option<Failure>>, places: &[Place], error: Error) {
    let mut failure = lock(failure);
    let count = places.len() as u64;
    match (failure.as_mut(), places.first()) {
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

impl Restore<'_> {
    fn incomplete(&self, failure: Failure) -> Error {
        let target = self.targets.get(failure.place.target);
        let chunk = target.and_then(|target| target.chunks.get(failure.place.chunk));
        let (Some(target), Some(chunk)) = (target, chunk) else {
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
