//! Making the best of a damaged repository.
//!
//! What is lost stays lost until somebody brings it: the next ingest, where the local file still holds
//! it, or another repository. For that the index must not claim that it is there. Nothing is changed
//! that could not be read for another reason than damage: an index file or snapshot goes only when its
//! content does not match its name. Packs stay in storage until later prunes remove them.

use std::collections::BTreeMap;

use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use vrs_progress::{Counter, Phase, Progress};

use crate::adopt::adopt;
use crate::blob::{Sealer, Unsealer};
use crate::check::Check;
use crate::crypto::hash;
use crate::error::{Error, ErrorKind, Result, stop_if_interrupted};
use crate::id::{ChunkId, IndexId, PackId};
use crate::index::{PackEntry, PackedBlob};
use crate::loaded_index::LoadedIndex;
use crate::lock::SharedLock;
use crate::pack::SealedBlob;
use crate::prune;
use crate::repository::{ResticRepository, whole_text};
use crate::sink::Sink;
use crate::store::CheckOptions;

/// See [`crate::SnapshotStore::repair`].
pub(crate) fn run(
    repository: &ResticRepository,
    options: CheckOptions,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let sink = locked_sink(repository, progress)?;
    let mut done = Vec::new();
    replace_index_files(repository, &sink, &mut done)?;
    remove_snapshots(repository, progress, &mut done)?;
    let check = take_back(repository, options, &sink, &mut done)?;
    let mut flawed: Vec<PackEntry> = Vec::new();
    let mut blobs = check.loaded.index.blobs_by_pack();
    for (number, pack) in check.flawed() {
        stop_if_interrupted(progress)?;
        let blobs = blobs.remove(&number).unwrap_or_default();
        let kept = salvage(repository, &sink, pack, &blobs)?;
        done.push(format!(
            "pack {} was given up; {kept} of {} chunks in it are kept",
            pack.id,
            blobs.len()
        ));
        flawed.push(pack);
    }
    sink.flush()?;
    if !flawed.is_empty() {
        let packs = flawed.iter().map(|pack| (pack.id, pack.size_bytes));
        prune::drop_packs(repository, packs.collect(), &sink)?;
    }
    sink.lock.clear()?;
    Ok(done)
}

/// Takes back what is only marked and needed, as two killed processes can leave it.
fn take_back<'a>(
    repository: &'a ResticRepository,
    options: CheckOptions,
    sink: &Sink<'a>,
    done: &mut Vec<String>,
) -> Result<Check<'a>> {
    loop {
        let check = Check::run(repository, options, sink.progress)?;
        let needed = check.marked_but_needed()?;
        if needed.is_empty() {
            return Ok(check);
        }
        done.extend(needed.iter().map(|pack| {
            format!(
                "pack {} was marked to be removed, and is taken back",
                pack.id
            )
        }));
        // A folder list in it may name more.
        sink.write_index_of(needed)?;
    }
}

fn locked_sink<'a>(
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
) -> Result<Sink<'a>> {
    repository.require_writable()?;
    repository.read_storage_alone();
    progress.step("lock repository");
    let lock = SharedLock::acquire_to_prune(repository.vault())?;
    Ok(Sink::new(repository, progress, lock))
}

/// Indexes what only damaged index files named, then removes those.
fn replace_index_files(
    repository: &ResticRepository,
    sink: &Sink<'_>,
    done: &mut Vec<String>,
) -> Result<()> {
    let loaded: &LoadedIndex = &*repository.index()?;
    if loaded.unreadable.is_empty() {
        return Ok(());
    }
    let packs: BTreeMap<PackId, u32> = repository.backend.list(FileType::Pack)?;
    adopt(sink, repository, loaded, &packs)?;
    for id in damaged_index_files(repository, loaded)? {
        sink.progress.step("remove index");
        repository.backend.remove(FileType::Index, id)?;
        done.push(format!("index {id} was damaged and is written anew"));
    }
    Ok(())
}

fn damaged_index_files(
    repository: &ResticRepository,
    loaded: &LoadedIndex,
) -> Result<Vec<IndexId>> {
    let mut damaged = Vec::new();
    for id in loaded
        .files
        .iter()
        .filter(|_| !loaded.unreadable.is_empty())
    {
        if is_damaged(repository, FileType::Index, (*id).into())? {
            damaged.push(*id);
        }
    }
    Ok(damaged)
}

fn remove_snapshots(
    repository: &ResticRepository,
    progress: &dyn Progress,
    done: &mut Vec<String>,
) -> Result<()> {
    for id in damaged_snapshots(repository)? {
        progress.step("remove snapshot");
        repository.backend.remove(FileType::Snapshot, id)?;
        done.push(format!(
            "snapshot {id} was damaged beyond use and is removed"
        ));
    }
    Ok(())
}

fn damaged_snapshots(repository: &ResticRepository) -> Result<Vec<Id>> {
    let mut damaged = Vec::new();
    for id in repository
        .backend
        .list::<Id>(FileType::Snapshot)?
        .into_keys()
    {
        if is_damaged(repository, FileType::Snapshot, id)? {
            damaged.push(id);
        }
    }
    Ok(damaged)
}

/// Whether an object was read and is not what it was. One that cannot be read may be sound.
fn is_damaged(repository: &ResticRepository, kind: FileType, id: Id) -> Result<bool> {
    match repository.backend.read(kind, id) {
        Ok(content) => Ok(Id::new(hash(&content)) != id),
        // Gone meanwhile.
        Err(Error::DamagedObject { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies what is sound of a pack; how many chunks that are.
fn salvage(
    repository: &ResticRepository,
    sink: &Sink<'_>,
    pack: PackEntry,
    blobs: &[PackedBlob],
) -> Result<usize> {
    let content = repository.small_pack(pack.id, pack.size_bytes);
    let mut unsealer = Unsealer::new(&repository.key);
    let mut kept: usize = 0;
    for blob in blobs {
        let sealed = match content.part(repository, pack.id, &blob.location) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::Damaged => continue,
            // A storage that cannot be read now is no reason to give anything up.
            Err(error) => return Err(error),
        };
        let opened = &mut sealed.to_vec();
        if unsealer.unseal(&blob.id, &blob.location, opened).is_err() {
            continue;
        }
        let location = &blob.location;
        sink.copy(SealedBlob {
            id: blob.id,
            kind: blob.kind,
            sealed: sealed.to_vec(),
            uncompressed_length: location.is_compressed().then(|| location.raw_bytes()),
        })?;
        kept = kept.saturating_add(1);
    }
    Ok(kept)
}

impl ResticRepository {
    /// What a repair would do, one text each. Changes nothing. What is found only behind a damaged index file
    /// is not known before that is written anew.
    pub fn plan_repair(
        &self,
        options: CheckOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        let loaded = self.index()?;
        let mut planned: Vec<String> = damaged_index_files(self, &loaded)?
            .iter()
            .map(|id| format!("index {id} is damaged and would be written anew"))
            .collect();
        planned.extend(
            damaged_snapshots(self)?
                .iter()
                .map(|id| format!("snapshot {id} is damaged beyond use and would be removed")),
        );
        let check = Check::run(self, options, progress)?;
        planned.extend(check.marked_but_needed()?.iter().map(|pack| {
            format!(
                "pack {} is marked to be removed, and would be taken back",
                pack.id
            )
        }));
        planned.extend(check.flawed().iter().map(|(_, pack)| {
            format!(
                "pack {} would be given up; what is sound of it is kept",
                pack.id
            )
        }));
        Ok(planned)
    }

    /// Fetches what snapshots need and this repository lost from another one that has it, for example
    /// its copy. Returns how many chunks that were. What the other does not have stays lost.
    pub fn fetch_missing(&self, source: &Self, progress: &dyn Progress) -> Result<u64> {
        let mut fetched: u64 = 0;
        loop {
            let lost = Check::run(self, CheckOptions::default(), progress)?.lost;
            let sink = locked_sink(self, progress)?;
            let mut sealer = sink.sealer()?;
            progress.phase(Phase {
                name: "fetching",
                subject: source.backend.location().to_owned(),
                total_bytes: None,
            });
            let mut found: u64 = 0;
            for (kind, id) in lost {
                if self.fetch(source, &sink, &mut sealer, kind, id)? {
                    found = found.saturating_add(1);
                }
            }
            sink.flush()?;
            // A folder list that was lost may name more that is.
            if found == 0 {
                return Ok(fetched);
            }
            fetched = fetched.saturating_add(found);
        }
    }

    fn fetch(
        &self,
        source: &Self,
        sink: &Sink<'_>,
        sealer: &mut Sealer<'_>,
        kind: BlobType,
        id: ChunkId,
    ) -> Result<bool> {
        let raw = match source.read_blob(kind, &id) {
            Ok(raw) => raw,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                sink.progress.warn(&whole_text(&error));
                None
            }
            Err(error) => return Err(error),
        };
        let Some(raw) = raw else {
            return Ok(false);
        };
        sink.progress.add(Counter::Fetched, raw.len() as u64);
        sink.copy(sealer.seal(kind, id, &raw)?)?;
        Ok(true)
    }
}
