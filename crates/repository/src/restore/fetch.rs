//! Fetching chunks from the repository: neighbouring ones at once, from several packs at the same
//! time. A chunk that cannot be had does not keep the others from being written.

use std::sync::Mutex;

use rustic_core::repofile::BlobType;
use vrs_progress::Counter;

use crate::blob::Unsealer;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{BlobLocation, PackNumber};
use crate::parallel::{self, lock};

use super::Restore;
use super::place::Place;

/// Read at once at most, unless a single chunk is longer.
const STRETCH_BYTES: u32 = 4 << 20;
/// Bytes that nobody wants, read along to save a request.
const GAP_BYTES: u32 = 64 << 10;

/// Chunks of one pack that are read at once.
struct Stretch<'a> {
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

/// Fetches and writes all chunks. Fails after everything that can be had is written.
pub(super) fn fetch(restore: &Restore<'_>, mut needs: Vec<Place>) -> Result<()> {
    needs.sort_unstable_by_key(|place| {
        let lies = restore.location(*place);
        let lies = lies.map(|location| (location.pack, location.offset));
        (lies, restore.number(*place), *place)
    });
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    parallel::each(
        restore.waiting_threads(),
        stretches(restore, &needs).map(Ok),
        || Ok(Unsealer::new(&restore.repository.key)),
        |unsealer, stretch| {
            restore.go_on()?;
            fetch_stretch(restore, &stretch, unsealer, &failure)
        },
        |()| {},
    )?;
    let failure = lock(&failure).take();
    failure.map_or(Ok(()), |failure| Err(restore.incomplete(failure)))
}

/// Cuts a list that is sorted by where the chunks lie in the repository.
fn stretches<'a>(
    restore: &'a Restore<'_>,
    mut rest: &'a [Place],
) -> impl Iterator<Item = Stretch<'a>> + 'a {
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

    fn part<'a>(&self, content: &'a mut [u8], location: &BlobLocation) -> Option<&'a mut [u8]> {
        let from = location.offset.checked_sub(self.offset)? as usize;
        let to = from.checked_add(location.length as usize)?;
        content.get_mut(from..to)
    }
}

fn fetch_stretch(
    restore: &Restore<'_>,
    stretch: &Stretch<'_>,
    unsealer: &mut Unsealer<'_>,
    failure: &Mutex<Option<Failure>>,
) -> Result<()> {
    let (repository, index) = (restore.repository, &restore.loaded.index);
    let pack = index.pack(stretch.pack).map(|pack| pack.id);
    let length_bytes = stretch.end.saturating_sub(stretch.offset);
    let read = |pack| {
        repository
            .backend
            .read_pack(pack, stretch.offset, length_bytes)
    };
    // No copy where nobody else holds the bytes.
    let mut content = match pack.map(read) {
        Some(Err(error)) if error.is_of_whole_storage() => return Err(error),
        read => read.and_then(Result::ok).map_or_else(Vec::new, Vec::from),
    };
    restore.progress.add(Counter::Fetched, content.len() as u64);
    for (chunk, needs) in restore.by_chunk(stretch.needs) {
        let Some((id, location)) = index.chunk(chunk) else {
            continue;
        };
        let sealed = stretch.part(&mut content, &location);
        let raw = sealed.and_then(|sealed| unsealer.unseal(&id, &location, sealed).ok());
        if let Some(raw) = raw {
            restore.write(needs, raw)?;
            continue;
        }
        match one_by_one(restore, &id) {
            Ok(raw) => restore.write(needs, &raw)?,
            Err(error) if error.is_of_whole_storage() => return Err(error),
            Err(error) => note(failure, needs, error),
        }
    }
    Ok(())
}

/// The slow way, which also tries other packs that hold the chunk and says what is wrong.
fn one_by_one(restore: &Restore<'_>, id: &ChunkId) -> Result<Vec<u8>> {
    let raw = restore.repository.read_blob(BlobType::Data, id)?;
    raw.ok_or_else(|| {
        restore
            .repository
            .backend
            .damaged(format!("chunk {}", id.short()), "it is in no index")
    })
}

fn note(failure: &Mutex<Option<Failure>>, needs: &[Place], error: Error) {
    let mut failure = lock(failure);
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
