//! Where every chunk and tree lies.
//!
//! The index is one sorted list of 48 bytes a blob, because a repository of many terabytes must fit
//! into memory. A blob may lie in several packs; all copies are known, so that damage to one of
//! them is harmless.

use std::collections::{HashMap, HashSet};

use rustic_core::{FileType, repofile::BlobType};
use serde::{Deserialize, Serialize};

use crate::crypto::SEAL_BYTES;
use crate::error::Result;
use crate::id::{ChunkId, IndexId, PackId};
use crate::object::Vault;
use crate::parallel;

/// An index file as JSON (restic's design document, "Indexing").
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    pub(crate) packs: Vec<IndexPack>,
    /// Packs that a prune has marked; they are not used any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) packs_to_delete: Vec<IndexPack>,
}

/// A pack in an index file. `time` and `size` are rustic's additions, which restic ignores.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IndexPack {
    pub(crate) id: PackId,
    pub(crate) blobs: Vec<IndexBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u32>,
}

/// A blob in an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexBlob {
    pub(crate) id: ChunkId,
    #[serde(rename = "type")]
    pub(crate) kind: BlobType,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uncompressed_length: Option<u32>,
}

impl IndexBlob {
    /// Length of the content, in bytes.
    pub(crate) fn raw_bytes(&self) -> u32 {
        let stored = || {
            self.length
                .saturating_sub(u32::try_from(SEAL_BYTES).unwrap_or(u32::MAX))
        };
        self.uncompressed_length.unwrap_or_else(stored)
    }

    const fn header_bytes(&self) -> u32 {
        if self.uncompressed_length.is_some() {
            41
        } else {
            37
        }
    }
}

impl IndexPack {
    /// The size that the pack must have, in bytes.
    pub(crate) fn size_bytes(&self) -> u32 {
        self.size.unwrap_or_else(|| {
            let blobs = self
                .blobs
                .iter()
                .map(|blob| blob.length.saturating_add(blob.header_bytes()));
            blobs.fold(36, u32::saturating_add)
        })
    }
}

/// Number of a chunk inside an [`Index`]: four bytes that stand for an id of 32. The first copy's
/// stands for all copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkNumber(u32);

impl ChunkNumber {
    /// From what [`Self::get`] gave.
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// Number of a pack inside an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackNumber(u32);

impl PackNumber {
    /// Counted from 0, without gaps.
    pub(crate) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// Where one copy of a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobLocation {
    pub(crate) pack: PackNumber,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Length of the content with its top bit clear, in bytes.
    raw_and_flag: u32,
}

const COMPRESSED_FLAG: u32 = 1 << 31;

impl BlobLocation {
    fn new(pack: PackNumber, blob: &IndexBlob) -> Self {
        let flag = if blob.uncompressed_length.is_some() {
            COMPRESSED_FLAG
        } else {
            0
        };
        let raw_and_flag = (blob.raw_bytes() & !COMPRESSED_FLAG) | flag;
        Self {
            pack,
            offset: blob.offset,
            length: blob.length,
            raw_and_flag,
        }
    }

    /// Length of the content, in bytes.
    pub(crate) const fn raw_bytes(&self) -> u32 {
        self.raw_and_flag & !COMPRESSED_FLAG
    }

    /// Where it is: the number of the pack, and the offset.
    pub(crate) const fn place(&self) -> (usize, u32) {
        (self.pack.place(), self.offset)
    }

    pub(crate) const fn is_compressed(&self) -> bool {
        self.raw_and_flag & COMPRESSED_FLAG != 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: ChunkId,
    location: BlobLocation,
}

/// All blobs of a repository.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: Vec<Entry>,
    trees: Vec<Entry>,
    packs: Vec<PackEntry>,
}

/// A pack that the index knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackEntry {
    pub(crate) id: PackId,
    pub(crate) size_bytes: u32,
    /// When it was written, if its writer said so.
    pub(crate) time: Option<jiff::Timestamp>,
}

impl Index {
    /// Adds a pack; [`Self::sort`] must follow the last one.
    pub(crate) fn add(&mut self, pack: &IndexPack) {
        let number = PackNumber(u32::try_from(self.packs.len()).unwrap_or(u32::MAX));
        self.packs.push(PackEntry {
            id: pack.id,
            size_bytes: pack.size_bytes(),
            time: pack.time,
        });
        for blob in &pack.blobs {
            let entry = Entry {
                id: blob.id,
                location: BlobLocation::new(number, blob),
            };
            self.list_mut(blob.kind).push(entry);
        }
    }

    /// Makes it searchable.
    pub(crate) fn sort(&mut self) {
        for list in [&mut self.chunks, &mut self.trees] {
            list.sort_unstable_by_key(|entry| (entry.id, entry.location.pack));
            list.shrink_to_fit();
        }
    }

    fn list(&self, kind: BlobType) -> &Vec<Entry> {
        match kind {
            BlobType::Data => &self.chunks,
            BlobType::Tree => &self.trees,
        }
    }

    fn list_mut(&mut self, kind: BlobType) -> &mut Vec<Entry> {
        match kind {
            BlobType::Data => &mut self.chunks,
            BlobType::Tree => &mut self.trees,
        }
    }

    /// All copies of a blob.
    pub(crate) fn copies(
        &self,
        kind: BlobType,
        id: &ChunkId,
    ) -> impl Iterator<Item = BlobLocation> + '_ {
        let list = self.list(kind);
        let start = list.partition_point(|entry| entry.id < *id);
        let id = *id;
        let found = list.get(start..).unwrap_or_default().iter();
        found
            .take_while(move |entry| entry.id == id)
            .map(|entry| entry.location)
    }

    /// All copies of a chunk.
    pub(crate) fn copies_of(&self, number: ChunkNumber) -> impl Iterator<Item = BlobLocation> + '_ {
        let all = self.chunks.get(number.0 as usize..).unwrap_or_default();
        let first = all.first().map(|entry| entry.id);
        all.iter()
            .take_while(move |entry| Some(entry.id) == first)
            .map(|entry| entry.location)
    }

    /// The number of a chunk.
    pub(crate) fn number(&self, id: &ChunkId) -> Option<ChunkNumber> {
        let position = self.chunks.partition_point(|entry| entry.id < *id);
        let found = self.chunks.get(position).filter(|entry| entry.id == *id);
        found.and_then(|_| u32::try_from(position).ok().map(ChunkNumber))
    }

    /// The chunk of a number that this index gave, and where its first copy lies.
    pub(crate) fn chunk(&self, number: ChunkNumber) -> Option<(ChunkId, BlobLocation)> {
        let entry = self.chunks.get(number.0 as usize)?;
        Some((entry.id, entry.location))
    }

    /// The pack of a location that this index gave.
    pub(crate) fn pack(&self, number: PackNumber) -> Option<PackEntry> {
        self.packs.get(number.0 as usize).copied()
    }

    /// All blobs, pack by pack, in the order in which they lie there.
    pub(crate) fn blobs_by_pack(&self) -> HashMap<PackNumber, Vec<PackedBlob>> {
        let mut packs: HashMap<PackNumber, Vec<PackedBlob>> = HashMap::new();
        for (kind, list) in [
            (BlobType::Data, &self.chunks),
            (BlobType::Tree, &self.trees),
        ] {
            for Entry { id, location } in list {
                packs.entry(location.pack).or_default().push(PackedBlob {
                    id: *id,
                    kind,
                    location: *location,
                });
            }
        }
        packs
            .values_mut()
            .for_each(|blobs| blobs.sort_unstable_by_key(|blob| blob.location.offset));
        packs
    }

    /// How many copies of blobs of a kind there are.
    pub(crate) fn len(&self, kind: BlobType) -> usize {
        self.list(kind).len()
    }

    /// Where a blob stands among all of its kind: the place of its first copy.
    pub(crate) fn place(&self, kind: BlobType, id: &ChunkId) -> Option<usize> {
        let list = self.list(kind);
        let place = list.partition_point(|entry| entry.id < *id);
        list.get(place)
            .filter(|entry| entry.id == *id)
            .map(|_| place)
    }

    /// All blobs of a kind in order, each with its place and all its copies.
    pub(crate) fn blobs(
        &self,
        kind: BlobType,
    ) -> impl Iterator<
        Item = (
            usize,
            ChunkId,
            impl Iterator<Item = BlobLocation> + Clone + '_,
        ),
    > + '_ {
        let mut place: usize = 0;
        let groups = self.list(kind).chunk_by(|one, other| one.id == other.id);
        groups.filter_map(move |copies| {
            let start = place;
            place = place.saturating_add(copies.len());
            let id = copies.first()?.id;
            Some((start, id, copies.iter().map(|entry| entry.location)))
        })
    }

    /// All packs with their numbers.
    pub(crate) fn packs(&self) -> impl Iterator<Item = (PackNumber, PackEntry)> + '_ {
        (0..).map(PackNumber).zip(self.packs.iter().copied())
    }
}

/// A blob with the place it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedBlob {
    pub(crate) id: ChunkId,
    pub(crate) kind: BlobType,
    pub(crate) location: BlobLocation,
}

/// Whether a pack's own header says the same as the index.
pub(crate) fn is_header_of(header: &[IndexBlob], blobs: &[PackedBlob]) -> bool {
    let same = |one: &IndexBlob, other: &PackedBlob| {
        one.id == other.id
            && one.kind == other.kind
            && BlobLocation::new(other.location.pack, one) == other.location
    };
    header.len() == blobs.len()
        && header
            .iter()
            .zip(blobs)
            .all(|(one, other)| same(one, other))
}

/// A pack that a prune has marked to be removed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) pack: PackId,
    pub(crate) size_bytes: u32,
    /// When it was marked.
    pub(crate) time: Option<jiff::Timestamp>,
    /// Whether the pack was in no index when it was marked, so that nothing is known of its content.
    pub(crate) is_orphan: bool,
}

impl Mark {
    fn of(pack: &IndexPack) -> Self {
        Self {
            pack: pack.id,
            size_bytes: pack.size_bytes(),
            time: pack.time,
            is_orphan: pack.blobs.is_empty(),
        }
    }
}

/// What the index files of a repository say.
pub(crate) struct LoadedIndex {
    /// The files it was made from.
    pub(crate) files: Vec<IndexId>,
    pub(crate) index: Index,
    /// Packs that a prune has marked. One that an index file still names is not marked, whatever
    /// another says: a prune may have been killed in between, or a snapshot may need it again.
    pub(crate) marks: HashMap<PackId, Mark>,
    /// One text for each index file that could not be read.
    pub(crate) unreadable: Vec<String>,
}

impl LoadedIndex {
    /// Reads the given index files; a damaged one does not make the others unusable.
    pub(crate) fn read(vault: Vault<'_>, files: Vec<IndexId>, threads: usize) -> Result<Self> {
        let mut loaded = Self {
            files: Vec::new(),
            index: Index::default(),
            marks: HashMap::new(),
            unreadable: Vec::new(),
        };
        parallel::each_short(
            threads,
            files.iter(),
            |id| match vault.load::<IndexFile>(FileType::Index, *id) {
                Err(error) if error.is_of_whole_storage() => Err(error),
                read => Ok(read),
            },
            |read| loaded.add(read),
        )?;
        loaded.files = files;
        loaded.index.sort();
        let named: HashSet<PackId> = loaded.index.packs().map(|(_, pack)| pack.id).collect();
        loaded.marks.retain(|id, _| !named.contains(id));
        Ok(loaded)
    }

    fn add(&mut self, read: Result<IndexFile>) {
        match read {
            Ok(file) => {
                file.packs.iter().for_each(|pack| self.index.add(pack));
                file.packs_to_delete.iter().for_each(|pack| self.mark(pack));
            }
            Err(error) => self.unreadable.push(crate::repository::whole_text(&error)),
        }
    }

    /// Of two marks the later one counts: the earlier one is what a killed prune left of a time
    /// before the pack was needed again.
    fn mark(&mut self, pack: &IndexPack) {
        let mark = Mark::of(pack);
        let present = self.marks.entry(pack.id).or_insert(mark);
        if mark.time > present.time {
            *present = mark;
        }
    }

    /// All packs that an index file names, marked ones included.
    pub(crate) fn named_packs(&self) -> HashSet<PackId> {
        let used = self.index.packs().map(|(_, pack)| pack.id);
        used.chain(self.marks.keys().copied()).collect()
    }
}
