//! The writing side of a snapshot in the making: what is new goes into packs, packs go to storage,
//! and index files say where everything is.
//!
//! Every blob is stored once, also when several threads meet it at the same time. An index file
//! names only packs that are stored. Memory holds one open pack for data, one for trees, one for
//! each thread that is sending, and some 40 bytes for each new blob. After a failed write everything
//! later fails too ([`Error::Broken`]): blobs that were promised may be missing.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use jiff::Timestamp;
use rustic_core::repofile::BlobType;
use rustic_core::{BytesList, FileType, Id};
use vrs_progress::{Counter, Progress};

use crate::blob::Sealer;
use crate::crypto::{hash, hash_all};
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{ChunkId, IndexId, PackId};
use crate::id_set::IdSet;
use crate::index::{ChunkNumber, IndexFile, IndexPack, PackNumber};
use crate::loaded_index::LoadedIndex;
use crate::lock::SharedLock;
use crate::pack::{Pack, PackBuilder, SealedBlob};
use crate::parallel::lock;
use crate::repository::ResticRepository;

/// What was written.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) bytes: AtomicU64,
    pub(crate) data_blobs: AtomicU64,
    pub(crate) tree_blobs: AtomicU64,
    packs: AtomicU64,
    indexes: AtomicU64,
    snapshots: AtomicU64,
}

impl Sent {
    /// Number of objects by kind, as [`crate::store::IngestStats`] gives them.
    pub(crate) fn objects(&self) -> BTreeMap<&'static str, u64> {
        let all = [
            ("pack", &self.packs),
            ("index", &self.indexes),
            ("snapshot", &self.snapshots),
        ];
        all.into_iter()
            .map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// See the module.
pub(crate) struct Sink<'a> {
    pub(crate) repository: &'a ResticRepository,
    pub(crate) progress: &'a dyn Progress,
    base: Arc<LoadedIndex>,
    /// Packs of the base index that are really there, complete.
    usable: HashSet<PackNumber>,
    state: Mutex<State>,
    broken: AtomicBool,
    pub(crate) sent: Sent,
    pub(crate) lock: SharedLock<'a>,
    /// Index files written here.
    indexes: Mutex<Vec<IndexId>>,
}

#[derive(Default)]
struct State {
    new_chunks: IdSet,
    new_trees: HashSet<ChunkId>,
    trees: Vec<ChunkId>,
    data: PackBuilder,
    tree: PackBuilder,
    /// Stored packs that no index file names yet.
    unindexed: Vec<IndexPack>,
    unindexed_bytes: u64,
    unindexed_blobs: usize,
}

/// A chunk that is stored or going to be: four bytes that stand for an id of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRef(u32);

impl ChunkRef {
    /// Marks the numbers of new chunks; the others are those of the index.
    const NEW: u32 = 1 << 31;

    fn of(number: u32, mark: u32) -> Result<Self> {
        let number = Some(number).filter(|number| number & Self::NEW == 0);
        number
            .map(|number| Self(number | mark))
            .ok_or_else(|| Error::InvalidRequest {
                subject: "the snapshot".to_owned(),
                reason: "it would have more than two thousand million chunks",
            })
    }
}

/// In one index file, whatever little room the blobs take.
pub(crate) const MOST_INDEXED_BLOBS: usize = 8192;

impl<'a> Sink<'a> {
    /// Starts with nothing known to be stored; see [`Self::build_on`].
    pub(crate) fn new(
        repository: &'a ResticRepository,
        progress: &'a dyn Progress,
        lock: SharedLock<'a>,
    ) -> Self {
        Self {
            repository,
            progress,
            usable: HashSet::new(),
            base: Arc::default(),
            state: Mutex::default(),
            broken: AtomicBool::new(false),
            sent: Sent::default(),
            lock,
            indexes: Mutex::default(),
        }
    }

    /// Starts on top of what is stored. `packs` is the list of all packs with their sizes.
    pub(crate) fn build_on(&mut self, base: Arc<LoadedIndex>, packs: &BTreeMap<PackId, u32>) {
        let complete = base
            .index
            .packs()
            .filter(|(_, pack)| packs.get(&pack.id) == Some(&pack.size_bytes));
        self.usable = complete.map(|(number, _)| number).collect();
        self.base = base;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A sealer for one thread.
    pub(crate) fn sealer(&self) -> Result<Sealer<'a>> {
        Sealer::new(
            &self.repository.key,
            self.repository.options.compression_level,
        )
    }

    /// What the repository held before this snapshot.
    pub(crate) const fn base(&self) -> &Arc<LoadedIndex> {
        &self.base
    }

    /// Whether the repository held a chunk of the base index, undamaged as far as that can be seen.
    pub(crate) fn is_stored(&self, chunk: ChunkNumber) -> bool {
        let mut copies = self.base.index.copies_of(chunk);
        copies.any(|copy| self.usable.contains(&copy.pack))
    }

    /// A chunk of the base index that [`Self::is_stored`].
    pub(crate) fn stored(chunk: ChunkNumber) -> Result<ChunkRef> {
        ChunkRef::of(chunk.get(), 0)
    }

    /// Makes sure that a chunk is stored. With it comes whether it is new.
    pub(crate) fn store(
        &self,
        sealer: &mut Sealer<'_>,
        id: ChunkId,
        raw: &[u8],
    ) -> Result<(ChunkRef, bool)> {
        self.require_whole()?;
        let present = self.base.index.number(&id);
        if let Some(chunk) = present.filter(|chunk| self.is_stored(*chunk)) {
            return Ok((Self::stored(chunk)?, false));
        }
        let claimed = self.state().new_chunks.insert(id);
        let (number, is_new) = claimed.unwrap_or((ChunkRef::NEW, false));
        let chunk = ChunkRef::of(number, ChunkRef::NEW)?;
        if is_new {
            self.keep(|| sealer.seal(BlobType::Data, id, raw))?;
        }
        Ok((chunk, is_new))
    }

    /// A chunk that is stored already, or about to be.
    pub(crate) fn known(&self, id: &ChunkId) -> Result<Option<ChunkRef>> {
        let present = self.base.index.number(id);
        if let Some(chunk) = present.filter(|chunk| self.is_stored(*chunk)) {
            return Self::stored(chunk).map(Some);
        }
        let new = self.state().new_chunks.number(id);
        new.map(|number| ChunkRef::of(number, ChunkRef::NEW))
            .transpose()
    }

    /// Whether a tree is stored already, or about to be.
    pub(crate) fn knows_tree(&self, id: &ChunkId) -> bool {
        let mut copies = self.base.index.copies(BlobType::Tree, id);
        copies.any(|copy| self.usable.contains(&copy.pack)) || self.state().new_trees.contains(id)
    }

    /// Makes sure that a tree is stored, which `seal` makes if it is new.
    pub(crate) fn store_tree(
        &self,
        id: ChunkId,
        seal: impl FnOnce() -> Result<SealedBlob>,
    ) -> Result<()> {
        self.require_whole()?;
        self.state().trees.push(id);
        let mut copies = self.base.index.copies(BlobType::Tree, &id);
        if copies.any(|copy| self.usable.contains(&copy.pack)) || !self.state().new_trees.insert(id)
        {
            return Ok(());
        }
        self.keep(seal)
    }

    /// Adds a new blob, on which others rely from now on.
    fn keep(&self, seal: impl FnOnce() -> Result<SealedBlob>) -> Result<()> {
        let kept = seal().and_then(|blob| self.add(blob));
        kept.inspect_err(|_| self.broken.store(true, Ordering::Release))
    }

    /// The id of a chunk that this sink gave a reference to.
    pub(crate) fn id(&self, chunk: ChunkRef) -> Option<ChunkId> {
        if chunk.0 & ChunkRef::NEW == 0 {
            let number = ChunkNumber::new(chunk.0);
            return self.base.index.chunk(number).map(|(id, _)| id);
        }
        self.state().new_chunks.get(chunk.0 & !ChunkRef::NEW)
    }

    fn require_whole(&self) -> Result<()> {
        let location = || self.repository.backend.location().to_owned();
        if self.broken.load(Ordering::Acquire) {
            Err(Error::Broken {
                location: location(),
            })
        } else {
            Ok(())
        }
    }

    fn add(&self, blob: SealedBlob) -> Result<()> {
        let (counter, kind) = match blob.kind {
            BlobType::Data => (&self.sent.data_blobs, blob.kind),
            BlobType::Tree => (&self.sent.tree_blobs, blob.kind),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let full = {
            let mut state = self.state();
            let builder = state.builder(kind);
            builder.add(blob);
            builder
                .is_full(self.repository.options.pack_bytes)
                .then(|| std::mem::take(builder))
        };
        full.map_or(Ok(()), |builder| self.send_pack(builder))
    }

    fn send_pack(&self, builder: PackBuilder) -> Result<()> {
        let Pack { content, entry } = builder.finish(&self.repository.key, Timestamp::now())?;
        self.write("write pack", FileType::Pack, entry.id.into(), content)?;
        let due = {
            let mut state = self.state();
            state.unindexed_bytes = state
                .unindexed_bytes
                .saturating_add(entry.size_bytes().into());
            state.unindexed_blobs = state.unindexed_blobs.saturating_add(entry.blobs.len());
            state.unindexed.push(entry);
            state.unindexed_bytes >= self.repository.options.index_every_bytes
                || state.unindexed_blobs >= MOST_INDEXED_BLOBS
        };
        if due { self.write_index() } else { Ok(()) }
    }

    fn write_index(&self) -> Result<()> {
        let packs = {
            let mut state = self.state();
            state.unindexed_bytes = 0;
            state.unindexed_blobs = 0;
            std::mem::take(&mut state.unindexed)
        };
        self.write_index_of(packs)
    }

    /// Writes an index file for packs that are stored already.
    pub(crate) fn write_index_of(&self, packs: Vec<IndexPack>) -> Result<()> {
        self.write_index_file(&IndexFile {
            packs,
            packs_to_delete: Vec::new(),
        })
    }

    /// Writes an index file, unless it says nothing.
    pub(crate) fn write_index_file(&self, file: &IndexFile) -> Result<()> {
        if file.packs.is_empty() && file.packs_to_delete.is_empty() {
            return Ok(());
        }
        let (id, sealed) = self
            .repository
            .vault()
            .prepare(file, self.repository.options.compression_level)?;
        self.write_object("write index", FileType::Index, id, sealed)?;
        lock(&self.indexes).push(id.into());
        Ok(())
    }

    /// Whether it wrote an index file.
    pub(crate) fn has_indexed(&self) -> bool {
        !lock(&self.indexes).is_empty()
    }

    /// Whether the index files in storage are those that this snapshot was built on and those that
    /// it wrote, no more and no fewer.
    pub(crate) fn is_alone(&self, files: &[IndexId]) -> bool {
        let own = lock(&self.indexes);
        let mut known: Vec<IndexId> = self.base.files.iter().chain(&*own).copied().collect();
        known.sort_unstable();
        known.dedup();
        known == files
    }

    /// The ids of all trees that were stored or found.
    pub(crate) fn trees(&self) -> Vec<ChunkId> {
        self.state().trees.clone()
    }

    /// Stores a blob as it is, however many of it there are.
    pub(crate) fn copy(&self, blob: SealedBlob) -> Result<()> {
        self.keep(|| Ok(blob))
    }

    /// Writes the snapshot itself. Everything it needs must have been flushed.
    pub(crate) fn write_snapshot(&self, id: Id, sealed: Vec<u8>) -> Result<()> {
        self.require_whole()?;
        self.write_object("write snapshot", FileType::Snapshot, id, sealed)
    }

    /// Writes what the next command on this host will read.
    fn write_object(
        &self,
        step: &'static str,
        kind: FileType,
        id: Id,
        sealed: Vec<u8>,
    ) -> Result<()> {
        let sealed = Bytes::from(sealed);
        self.write(step, kind, id, sealed.clone().into())?;
        self.repository.vault().keep_copy(kind, id, &sealed);
        Ok(())
    }

    fn write(&self, step: &'static str, kind: FileType, id: Id, content: BytesList) -> Result<()> {
        stop_if_interrupted(self.progress)?;
        let size_bytes = content.size() as u64;
        self.lock.renew()?;
        self.progress.step(step);
        self.repository.backend.write(kind, id, content)?;
        self.progress.add(Counter::Sent, size_bytes);
        self.sent.bytes.fetch_add(size_bytes, Ordering::Relaxed);
        let count = match kind {
            FileType::Pack => &self.sent.packs,
            FileType::Index => &self.sent.indexes,
            _ => &self.sent.snapshots,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the data that is still in memory: no more will come.
    pub(crate) fn end_data(&self) -> Result<()> {
        self.send_open(BlobType::Data)
    }

    /// Sends everything that is still in memory and writes the index of it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.send_open(BlobType::Data)?;
        self.send_open(BlobType::Tree)?;
        let written = self.write_index();
        written.inspect_err(|_| self.broken.store(true, Ordering::Release))
    }

    fn send_open(&self, kind: BlobType) -> Result<()> {
        self.require_whole()?;
        let pack = std::mem::take(self.state().builder(kind));
        if pack.is_empty() {
            return Ok(());
        }
        let sent = self.send_pack(pack);
        sent.inspect_err(|_| self.broken.store(true, Ordering::Release))
    }
}

impl State {
    const fn builder(&mut self, kind: BlobType) -> &mut PackBuilder {
        match kind {
            BlobType::Data => &mut self.data,
            BlobType::Tree => &mut self.tree,
        }
    }
}

/// The ids of chunks of zeros, each computed once.
#[derive(Default)]
pub(crate) struct ZeroChunks {
    known: Mutex<BTreeMap<usize, ChunkId>>,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl ZeroChunks {
    /// The id of a chunk, without hashing it when it is all zeros.
    pub(crate) fn id_of(&self, raw: &[u8]) -> ChunkId {
        if is_zero(raw) {
            self.id(raw.len())
        } else {
            ChunkId::from_bytes(hash(raw))
        }
    }

    /// The same for several chunks, of which some may have an id already.
    pub(crate) fn ids_of<'r>(
        &self,
        chunks: impl Iterator<Item = (&'r [u8], Option<ChunkId>)>,
    ) -> Vec<ChunkId> {
        let zeros = |raw: &[u8]| is_zero(raw).then(|| self.id(raw.len()));
        let known = chunks.map(|(raw, id)| (raw, id.or_else(|| zeros(raw))));
        let known: Vec<_> = known.collect();
        let others = known.iter().filter(|(_, id)| id.is_none());
        let others: Vec<&[u8]> = others.map(|(raw, _)| *raw).collect();
        let mut hashes = hash_all(&others).into_iter();
        let ids = known.into_iter().map(|(raw, id)| {
            id.or_else(|| hashes.next().map(ChunkId::from_bytes))
                .unwrap_or_else(|| self.id_of(raw))
        });
        ids.collect()
    }

    /// The id of so many zeros.
    pub(crate) fn id(&self, length_bytes: usize) -> ChunkId {
        let mut known = lock(&self.known);
        *known
            .entry(length_bytes)
            .or_insert_with(|| ChunkId::from_bytes(hash(&vec![0; length_bytes])))
    }
}

/// Whether there are only zeros, by comparison.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(ZEROS.len())
        .all(|part| ZEROS.get(..part.len()) == Some(part))
}
