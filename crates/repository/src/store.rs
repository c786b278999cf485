//! What the use cases need from a snapshot storage, and nothing more.
//!
//! [`SnapshotStore`] is the only door through which the engine reaches storage. The restic-format
//! repository implements it in this crate; another kind of repository is one more implementation.
//!
//! Guarantees that every implementation gives: a snapshot appears with one atomic write at the end
//! of [`Ingest::commit`] or not at all; what an interrupted ingest stored is found again by the
//! next one; memory does not grow with the size of the files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vrs_progress::Progress;

use crate::error::Result;
use crate::id::{RepositoryId, SnapshotId};

/// Tag of a whole machine folder that another program stored, without a manifest.
pub const ORIGINAL: &str = "vrs-original";

/// A repository of snapshots.
pub trait SnapshotStore: Send + Sync {
    /// The repository's own identity, for journals and messages.
    fn id(&self) -> RepositoryId;

    /// Where it is, for people. Never holds a secret.
    fn location(&self) -> String;

    /// All snapshots that can be read, oldest first, and warnings about objects that cannot.
    fn snapshots(&self) -> Result<SnapshotList>;

    /// Starts a new snapshot. Nothing is visible before [`Ingest::commit`].
    fn ingest<'a>(&'a self, progress: &'a dyn Progress) -> Result<Box<dyn Ingest + 'a>>;

    /// The files of a snapshot.
    fn files(&self, snapshot: &SnapshotId) -> Result<Vec<StoredFile>>;

    /// Those below a folder, and none where it is not there: what large files consist of need not be read for them.
    fn files_below(&self, snapshot: &SnapshotId, folder: &TreePath) -> Result<Vec<StoredFile>> {
        let files = self.files(snapshot)?.into_iter();
        Ok(files.filter(|file| file.path.is_below(folder)).collect())
    }

    /// Random access to one file of a snapshot, cached and bounded.
    fn open_file<'a>(
        &'a self,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> Result<Box<dyn StoredFileReader + 'a>>;

    /// How many bytes of the new file lie in chunks that the old one does not have. Told by the
    /// lists of chunks: no data is read.
    fn changed_bytes(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> Result<u64>;

    /// Its lists of chunks, where it has some: one without them reads every file in whole, whatever the
    /// caller vouches for.
    fn chunk_lists(&self) -> Option<&dyn ChunkLists>;

    /// Brings local files into the state they have in a snapshot. See [`RestoreRequest`].
    fn restore(&self, request: &RestoreRequest, progress: &dyn Progress) -> Result<RestoreStats>;

    /// What [`Self::restore`] would do, without changing anything.
    fn plan_restore(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats>;

    /// Removes snapshots from the list. Their data stays until it is pruned.
    fn delete(&self, snapshots: &[SnapshotId], progress: &dyn Progress) -> Result<()>;

    /// Gives a snapshot other tags and another description, with one atomic write. Returns its id from
    /// now on, which may be another one.
    fn relabel(
        &self,
        snapshot: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> Result<SnapshotId>;

    /// What [`Self::prune`] would do if the snapshots in `without` were deleted, without changing
    /// anything.
    fn plan_prune(
        &self,
        options: &PruneOptions,
        without: &[SnapshotId],
        progress: &dyn Progress,
    ) -> Result<PruneStats>;

    /// Gives back the space that no snapshot uses. May be stopped at any moment, and run while
    /// snapshots are taken, restored and deleted by others.
    fn prune(&self, options: &PruneOptions, progress: &dyn Progress) -> Result<PruneStats>;

    /// Verifies the repository.
    fn check(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<CheckReport>;

    /// Makes the best of what is damaged: objects that are no use to anybody go, sound parts of damaged
    /// ones are kept, and what is lost is known as lost, so that the next ingest stores it again where
    /// it still has it. Returns what was done, one text each.
    fn repair(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<Vec<String>>;
}

/// What chunks the files of a repository consist of.
pub trait ChunkLists {
    /// The places of the old file's chunks that the new file does not have at the same place, in order.
    /// Told by the lists: no data is read.
    fn differing_chunks(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> Result<Vec<Range<u64>>>;
}

/// A path inside a snapshot: relative, `/`-separated, valid UTF-8, no `.`, `..` or empty parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

/// A string that is no [`TreePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path:?} is not a path inside a snapshot: it must be relative and free of '.', '..' and empty parts"
)]
pub struct InvalidTreePath {
    /// The string as given.
    pub path: String,
}

impl TreePath {
    /// Checks and takes over a path.
    pub fn new(path: impl Into<String>) -> std::result::Result<Self, InvalidTreePath> {
        let path = path.into();
        let valid = path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if valid {
            Ok(Self(path))
        } else {
            Err(InvalidTreePath { path })
        }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts from the top down.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether it lies in a folder, or in one of its folders.
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&folder.0);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A snapshot as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The id.
    pub id: SnapshotId,
    /// When it was taken.
    pub time: jiff::Timestamp,
    /// The host it was taken on.
    pub hostname: String,
    /// Its tags, the engine's own among them.
    pub tags: Vec<String>,
    /// The user's description.
    pub description: Option<String>,
    /// Sum of the sizes of its files.
    pub size_bytes: Option<u64>,
    /// Bytes that it added to the repository.
    pub added_bytes: Option<u64>,
}

/// The answer of [`SnapshotStore::snapshots`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotList {
    /// What could be read, oldest first.
    pub snapshots: Vec<SnapshotRecord>,
    /// One text for each snapshot object that could not be read.
    pub unreadable: Vec<String>,
}

/// What a new snapshot is called.
#[derive(Debug, Clone)]
pub struct SnapshotLabel {
    /// Recorded as the time of the snapshot.
    pub time: jiff::Timestamp,
    /// The host.
    pub hostname: String,
    /// Tags, without commas.
    pub tags: Vec<String>,
    /// The user's description.
    pub description: Option<String>,
}

/// What may be changed about a snapshot later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotWords {
    /// All its tags, without commas.
    pub tags: Vec<String>,
    /// The user's description.
    pub description: Option<String>,
}

/// How to prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// So much of the data may stay although nobody uses it, in percent of what is used, before
    /// objects that are partly in use are written anew.
    pub max_unused_percent: u32,
    /// The present. Tests prune in the future.
    pub now: jiff::Timestamp,
}

impl Default for PruneOptions {
    /// As restic's `--max-unused 5%`.
    fn default() -> Self {
        Self {
            max_unused_percent: 5,
            now: jiff::Timestamp::now(),
        }
    }
}

/// What a prune did or would do. Sizes are those of objects in storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneStats {
    /// Bytes that snapshots use.
    pub used_bytes: u64,
    /// Bytes that no snapshot uses and that are not marked yet, too new ones included.
    pub unused_bytes: u64,
    /// Of those: bytes that are too new to be touched. A snapshot in the making may need them.
    pub too_new_bytes: u64,
    /// Bytes that are marked now, to be removed when the grace period is over.
    pub marked_bytes: u64,
    /// Bytes copied out of objects that were mostly unused.
    pub repacked_bytes: u64,
    /// Bytes that were marked earlier and whose grace period is not over.
    pub waiting_bytes: u64,
    /// Bytes removed now.
    pub freed_bytes: u64,
    /// Bytes that had been marked and are needed again.
    pub recovered_bytes: u64,
}

/// How a file is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunking {
    /// Disk images: chunks of one size, on a grid that starts at `phase_bytes`.
    /// What lies before it is cut on the same grid extended backwards.
    Grid {
        /// Chunk size, a power of two.
        chunk_bytes: u32,
        /// Offset of a grid point, as the image's data area starts there.
        phase_bytes: u64,
    },
    /// Streams whose content shifts: content-defined with this average.
    ContentDefined {
        /// Average chunk size; the smallest is a quarter, the largest four times.
        average_bytes: u32,
    },
    /// Small files: one chunk, or several of the largest size where the file is larger.
    Whole,
}

/// What tells a file's state without reading it. All times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Length.
    pub size_bytes: u64,
    /// Inode number, 0 where the platform has none.
    pub inode: u64,
    /// Modification time.
    pub mtime_ns: i128,
    /// Status change time; the modification time where the platform has none.
    pub ctime_ns: i128,
}

/// A file to ingest from the local disk.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// Its place in the snapshot.
    pub path: TreePath,
    /// The file on this host.
    pub local: PathBuf,
    /// How to cut it.
    pub chunking: Chunking,
    /// An earlier stored file that may hold the same bytes.
    pub previous: Option<PreviousFile>,
}

/// An earlier stored version of a file, with what the caller knows about the difference.
#[derive(Debug, Clone)]
pub struct PreviousFile {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path in it.
    pub path: TreePath,
    /// Byte ranges of the local file that the caller vouches for as equal to the stored file.
    /// Chunks wholly inside are not read. The whole file: one range `0..size`.
    pub unchanged: Vec<Range<u64>>,
}

/// What ingesting one file did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestedFile {
    /// The file's state, equal before and after reading.
    pub stamp: FileStamp,
    /// Bytes read from the local file.
    pub read_bytes: u64,
    /// Bytes of it that the repository had already, vouched for or found.
    pub reused_bytes: u64,
    /// Of the bytes that were read: those that a cache of this host recognised, at a fraction of what
    /// finding them in the repository costs.
    pub recognised_bytes: u64,
    /// New chunks.
    pub new_chunks: u64,
}

/// A snapshot being made. Dropping it leaves only data that the next ingest finds again.
pub trait Ingest {
    /// Stores a file of this host. Fails with a "changed while being read" error when its stamp
    /// differs after reading; nothing of it is part of the snapshot then.
    fn file(&mut self, source: &FileSource) -> Result<IngestedFile>;

    /// Stores bytes that the caller made.
    fn bytes(&mut self, path: &TreePath, content: &[u8]) -> Result<()>;

    /// Takes a file out of the snapshot again.
    fn discard(&mut self, path: &TreePath);

    /// Makes the snapshot visible with one atomic write.
    fn commit(self: Box<Self>, label: &SnapshotLabel) -> Result<(SnapshotId, IngestStats)>;
}

/// What an ingest did in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestStats {
    /// Files in the snapshot.
    pub files: u64,
    /// Sum of their sizes.
    pub total_bytes: u64,
    /// Bytes read from local disks.
    pub read_bytes: u64,
    /// Bytes that needed no upload.
    pub reused_bytes: u64,
    /// Of the bytes that were read: those that a cache of this host recognised.
    pub recognised_bytes: u64,
    /// New chunks.
    pub new_chunks: u64,
    /// Bytes written to the repository, everything included.
    pub sent_bytes: u64,
    /// Objects written to the repository by kind: "pack", "index", "snapshot".
    pub objects: BTreeMap<&'static str, u64>,
}

/// A file as a snapshot holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its place in the snapshot.
    pub path: TreePath,
    /// Length.
    pub size_bytes: u64,
    /// Its stamp when it was stored; absent for bytes that the caller made.
    pub stamp: Option<FileStamp>,
}

/// Random access to a stored file.
pub trait StoredFileReader: Send {
    /// Length of the file.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset`; past the end is an error.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// Files to bring into the state of a snapshot, in place.
///
/// Each target may be absent, shorter, longer, half-written or hold the wanted chunks elsewhere.
/// Local chunks come first: from the target itself, then from any other target or seed. A source
/// that changes while it is used costs a fetch, never a wrong byte: every chunk is verified against
/// its id before it is written.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What to restore.
    pub files: Vec<RestoreFile>,
    /// Further local files whose chunks may be used; never changed.
    pub seeds: Vec<SeedFile>,
}

/// One file to restore.
#[derive(Debug, Clone)]
pub struct RestoreFile {
    /// In the snapshot.
    pub path: TreePath,
    /// On this host. Its folder must exist.
    pub target: PathBuf,
    /// How the local target was cut when it was stored, where the caller knows its grid; otherwise
    /// the stored file's own chunk boundaries are tried.
    pub local_chunking: Option<Chunking>,
    /// What the local target is, where the caller vouches for it: it is not read then, except for what is
    /// moved.
    pub known: Option<KnownFile>,
}

/// A stored file that a local one equals, byte for byte, as long as it has this stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// That of the local file when it was stored, and its times had passed by then. One that has another
    /// when it is opened is read.
    pub stamp: FileStamp,
    /// The snapshot. It may be gone: then nothing is known.
    pub snapshot: SnapshotId,
    /// In the snapshot.
    pub path: TreePath,
}

/// A local file that may hold wanted chunks.
#[derive(Debug, Clone)]
pub struct SeedFile {
    /// On this host.
    pub local: PathBuf,
    /// How to cut it for comparison.
    pub chunking: Chunking,
    /// As for a target.
    pub known: Option<KnownFile>,
}

/// What a restore did or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreStats {
    /// Files brought into place.
    pub files: u64,
    /// Sum of their sizes.
    pub total_bytes: u64,
    /// Bytes that were in place already.
    pub in_place_bytes: u64,
    /// Bytes copied from elsewhere on this host.
    pub local_bytes: u64,
    /// Bytes of zeros, punched or left as holes.
    pub zero_bytes: u64,
    /// Bytes of file content that came (or must come) from the repository.
    pub fetched_bytes: u64,
    /// Chunks that came from the repository.
    pub fetched_chunks: u64,
}

/// How thoroughly to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// So much of the data is read and verified, in percent, chosen anew each time. Nothing: only the
    /// structure is.
    pub read_percent: u8,
}

impl CheckOptions {
    /// Reads all data.
    #[must_use]
    pub const fn everything() -> Self {
        Self { read_percent: 100 }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Damage, one text each. Empty means sound.
    pub errors: Vec<String>,
    /// Harmless oddities, for example packs of an interrupted ingest.
    pub warnings: Vec<String>,
    /// Snapshots that cannot be restored completely.
    pub damaged_snapshots: Vec<SnapshotId>,
    /// What of them is lost.
    pub losses: Vec<Loss>,
}

/// A part of a snapshot that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The file or folder in it; empty for the whole tree.
    pub path: String,
    /// Which bytes of the file. None: all of it.
    pub ranges: Vec<Range<u64>>,
}

/// Reads a stored file from start to end.
pub fn read_to_vec(reader: &mut dyn StoredFileReader, limit_bytes: u64) -> Result<Vec<u8>> {
    let size = reader.size_bytes().min(limit_bytes);
    let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    reader.read_at(0, &mut content)?;
    Ok(content)
}
