//! Whether what a snapshot in the making relies on is still there.
//!
//! A snapshot relies on chunks that it found in the repository, perhaps days ago, and nobody waits for
//! it: a prune that runs meanwhile knows nothing of it. So before a snapshot becomes visible, everything
//! it needs is looked up again. What a prune has marked is taken back by naming it in an index file; a
//! mark counts for nothing then. That is safe for half the grace period, as the prune that removes a
//! marked pack comes after all of it, and sees the snapshot. What is marked for longer, or gone, ends
//! the snapshot: it is taken again, and sends what is missing.
//!
//! Relied on: the clocks of the computers that use one repository differ by less than a quarter of the
//! grace period.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use rustic_core::FileType;
use rustic_core::repofile::BlobType;

use crate::block_list::BlockList;
use crate::error::{Error, Result};
use crate::id::{ChunkId, IndexId, PackId, SnapshotId};
use crate::index::{IndexFile, IndexPack};
use crate::loaded_index::{LoadedIndex, Mark};
use crate::repository::ResticRepository;
use crate::sink::{ChunkRef, Sink};

const MOST_LOOKS: usize = 4;

/// Everything that a new snapshot needs.
pub(crate) struct Needed<'a> {
    pub(crate) sink: &'a Sink<'a>,
    /// The chunks of its files.
    pub(crate) files: Vec<&'a BlockList<ChunkRef>>,
}

/// A blob that no usable pack holds.
type Missing = HashSet<(BlobType, ChunkId)>;

/// Makes sure that everything needed is there, and will be for a while.
pub(crate) fn require(repository: &ResticRepository, needed: &Needed<'_>) -> Result<()> {
    // Nobody else has written anything: the usual case, which costs one list.
    if needed.sink.is_alone(&repository.index_files()?) {
        return Ok(());
    }
    // More than once, as a prune may be writing the index anew at this moment.
    for _ in 0..MOST_LOOKS {
        let missing = needed.missing(repository)?;
        if missing.is_empty() {
            return Ok(());
        }
        let packs = marked_with(repository, &missing)?;
        if !packs.is_empty() {
            needed.sink.progress.step("take marked packs back");
            needed.sink.write_index_of(packs)?;
        }
    }
    Err(pruned(repository))
}

/// Looks again after the snapshot has appeared, and withdraws it if that is in vain. A prune that wrote
/// its marks between the two looks does the same after it has written them: one of the two sees the
/// other. Between the looks the computer may also have slept for days.
pub(crate) fn require_still(
    repository: &ResticRepository,
    needed: &Needed<'_>,
    snapshot: &SnapshotId,
) -> Result<()> {
    match require(repository, needed) {
        Err(gone @ Error::PrunedMeanwhile { .. }) => {
            match repository.backend.remove(FileType::Snapshot, *snapshot) {
                // It stays, and a check tells what it lacks.
                Ok(()) | Err(Error::NotPermitted { .. }) => Err(gone),
                Err(error) => Err(error),
            }
        }
        // That it could not be looked at does not mean that anything is gone.
        _ => Ok(()),
    }
}

fn pruned(repository: &ResticRepository) -> Error {
    Error::PrunedMeanwhile {
        location: repository.backend.location().to_owned(),
    }
}

impl Needed<'_> {
    fn missing(&self, repository: &ResticRepository) -> Result<Missing> {
        let loaded = repository.index()?;
        let present: BTreeMap<PackId, u32> = repository.backend.list(FileType::Pack)?;
        let is_there = |(kind, id): &(BlobType, ChunkId)| {
            loaded.index.copies(*kind, id).any(|copy| {
                let pack = loaded.index.pack(copy.pack);
                pack.is_some_and(|pack| present.get(&pack.id) == Some(&pack.size_bytes))
            })
        };
        let trees = self.sink.trees().into_iter();
        let trees = trees.map(|id| (BlobType::Tree, id));
        let chunks = self.files.iter().flat_map(|chunks| chunks.iter());
        let chunks = chunks.filter_map(|chunk| Some((BlobType::Data, self.sink.id(*chunk)?)));
        Ok(trees.chain(chunks).filter(|blob| !is_there(blob)).collect())
    }
}

/// The marked packs that hold some of what is missing and will not be removed soon.
fn marked_with(repository: &ResticRepository, missing: &Missing) -> Result<Vec<IndexPack>> {
    let loaded = repository.index()?;
    marked_packs(repository, &loaded, |mark, pack| {
        repository.is_safe(mark) && holds(pack, missing)
    })
}

/// Whether a pack holds any of some blobs.
pub(crate) fn holds(pack: &IndexPack, blobs: &Missing) -> bool {
    let mut own = pack.blobs.iter();
    own.any(|blob| blobs.contains(&(blob.kind, blob.id)))
}

/// The marked packs that are `wanted`, as an index file names them.
pub(crate) fn marked_packs(
    repository: &ResticRepository,
    loaded: &LoadedIndex,
    wanted: impl Fn(&Mark, &IndexPack) -> bool,
) -> Result<Vec<IndexPack>> {
    let mut found: BTreeMap<PackId, IndexPack> = BTreeMap::new();
    if loaded.marks.is_empty() {
        return Ok(Vec::new());
    }
    let load = |id: &IndexId| repository.vault().load::<IndexFile>(FileType::Index, *id);
    for file in &loaded.files {
        let packs = match load(file) {
            Ok(file) => file.packs_to_delete,
            // Replaced meanwhile; what it said is in another one.
            Err(_) if !repository.index_files()?.contains(file) => continue,
            Err(error) => return Err(error),
        };
        for pack in packs {
            let mark = loaded.marks.get(&pack.id);
            if mark.is_some_and(|mark| wanted(mark, &pack)) {
                found.insert(pack.id, pack);
            }
        }
    }
    Ok(found.into_values().collect())
}

impl ResticRepository {
    /// Half the time for which a marked pack stays.
    pub(crate) fn half_grace(&self) -> SignedDuration {
        self.options.grace.checked_div(2).unwrap_or_default()
    }

    /// Whether a marked pack will not be removed before a prune sees who needs it.
    pub(crate) fn is_safe(&self, mark: &Mark) -> bool {
        let now = Timestamp::now();
        mark.time
            .is_some_and(|time| now.duration_since(time) < self.half_grace())
    }
}
