//! Packs that an interrupted ingest left without an index file.
//!
//! They are found by listing, and what they hold is read from their own headers, so that nothing
//! already sent is sent again. A pack that is incomplete is left alone and reported. One that a prune
//! has marked meanwhile is adopted as long as the prune is far from removing it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustic_core::FileType;
use vrs_progress::Progress;

use crate::error::{Error, ErrorKind, Result, stop_if_interrupted};
use crate::id::PackId;
use crate::index::IndexPack;
use crate::loaded_index::LoadedIndex;
use crate::lock::SharedLock;
use crate::pack::read_header;
use crate::parallel;
use crate::prune;
use crate::repository::ResticRepository;
use crate::sink::Sink;

/// Packs in one index file at most, to bound memory.
const BATCH: usize = 64;

/// Takes over what an interrupted run left, and starts on top of everything that is stored.
pub(crate) fn start<'a>(
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
) -> Result<Sink<'a>> {
    repository.require_writable()?;
    progress.step("lock repository");
    // The packs are listed before the index is read: what went meanwhile is in no index any more.
    let list = || repository.backend.list::<PackId>(FileType::Pack);
    let (lock, packs) = SharedLock::acquire_and(repository.vault(), list)?;
    let loaded = repository.index()?;
    repository.backend.remove_leftovers();
    for unreadable in &loaded.unreadable {
        progress.warn(unreadable);
    }
    let mut sink = Sink::new(repository, progress, lock);
    look_after_killed(&sink, repository, &loaded)?;
    adopt(&sink, repository, &loaded, &packs)?;
    let loaded = if sink.has_indexed() {
        repository.index()?
    } else {
        loaded
    };
    sink.build_on(loaded, &packs);
    Ok(sink)
}

/// A take that was killed when its snapshot had just appeared, while a prune that was killed, too, marked
/// what it needs, leaves a snapshot that cannot be restored. Locks tell that there was such a kill.
fn look_after_killed(
    sink: &Sink<'_>,
    repository: &ResticRepository,
    loaded: &LoadedIndex,
) -> Result<()> {
    if sink.lock.follows_a_kill() && !loaded.marks.is_empty() {
        match prune::take_back(repository, sink) {
            // Damage is named by a check, and keeps nobody from taking a snapshot.
            Err(error) if error.kind() == ErrorKind::Damaged => {}
            taken_back => taken_back?,
        }
    }
    sink.lock.clear()
}

/// Indexes what no index file names.
pub(crate) fn adopt(
    sink: &Sink<'_>,
    repository: &ResticRepository,
    loaded: &LoadedIndex,
    packs: &BTreeMap<PackId, u32>,
) -> Result<()> {
    // The packs of an unreadable index file look unindexed, and adopting them repairs that.
    let mut indexed = loaded.named_packs();
    for mark in loaded.marks.values() {
        if mark.is_orphan && repository.is_safe(mark) {
            indexed.remove(&mark.pack);
        }
    }
    let orphans: Vec<(PackId, u32)> = packs
        .iter()
        .filter(|(id, _)| !indexed.contains(id))
        .map(|(id, size)| (*id, *size))
        .collect();
    for batch in orphans.chunks(BATCH) {
        sink.write_index_of(adopt_batch(sink, repository, batch)?)?;
    }
    Ok(())
}

fn adopt_batch(
    sink: &Sink<'_>,
    repository: &ResticRepository,
    batch: &[(PackId, u32)],
) -> Result<Vec<IndexPack>> {
    let mut entries = Vec::new();
    parallel::each(
        repository.backend.connections(),
        batch.iter().map(|pack| Ok(*pack)),
        || Ok(()),
        |(), (id, size_bytes)| adopted(sink, repository, id, size_bytes),
        |entry| entries.extend(entry),
    )?;
    Ok(entries)
}

/// A pack as its own header describes it. None: it is incomplete.
fn adopted(
    sink: &Sink<'_>,
    repository: &ResticRepository,
    id: PackId,
    size_bytes: u32,
) -> Result<Option<IndexPack>> {
    stop_if_interrupted(sink.progress)?;
    let read = |offset, length| repository.backend.read_pack(id, offset, length);
    match read_header(&repository.key, size_bytes, read) {
        Ok(Some(blobs)) => Ok(Some(IndexPack {
            id,
            blobs,
            time: Some(Timestamp::now()),
            size: Some(size_bytes),
        })),
        Ok(None) | Err(Error::DamagedObject { .. }) => {
            sink.progress.warn(&format!(
                "pack {} is incomplete and in no index; it is not used",
                id.short()
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
