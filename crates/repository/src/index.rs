//! Where every chunk and tree lies.
//!
//! The index is one sorted list of 48 bytes a blob, because a repository of many terabytes must fit
//! into memory. A blob may lie in several packs; all copies are known, so that damage to one of
//! them is harmless.

use std::collections::HashMap;

use rustic_core::repofile::BlobType;
use serde::{Deserialize, Serialize};

use crate::crypto::SEAL_BYTES;
use crate::id::{ChunkId, PackId};

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

    /// The place of the chunk's first copy among all chunks of the index.
    pub(crate) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// Number of a pack inside an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct PackNumber(u32);

impl PackNumber {
    /// Counted from 0, without gaps.
    pub(crate) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// Where one copy of a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Entry {
    id: ChunkId,
    location: BlobLocation,
}

impl Entry {
    const fn key(&self) -> (ChunkId, PackNumber) {
        (self.id, self.location.pack)
    }
}

/// Some blobs of an index.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entries {
    chunks: Vec<Entry>,
    trees: Vec<Entry>,
}

/// In one [`Entries`]: about a megabyte.
const MOST_ENTRIES: usize = 16_384;

/// All blobs of a repository.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: Vec<Entry>,
    trees: Vec<Entry>,
    packs: Vec<PackEntry>,
}

/// Sorts a list that may begin with many entries in order and end with few others, in the time that one
/// look at each takes. No more than half of it is ever in memory twice.
fn sort(list: &mut Vec<Entry>) {
    let pairs = list.iter().zip(list.iter().skip(1));
    let ordered = pairs.take_while(|(one, next)| one.key() <= next.key());
    let sorted = ordered.count().saturating_add(1);
    if sorted < list.len().div_ceil(2) {
        list.sort_unstable_by_key(Entry::key);
    } else if sorted < list.len() {
        let mut rest = list.split_off(sorted);
        rest.sort_unstable_by_key(Entry::key);
        merge(list, rest);
    }
}

/// Takes sorted entries into a sorted list.
fn merge(list: &mut Vec<Entry>, mut rest: Vec<Entry>) {
    let mut left = list.len();
    list.extend_from_slice(&rest);
    // From the end: whatever is overwritten has been moved, or is still in the rest.
    let mut place = list.len();
    while let (Some(last), Some(before)) = (rest.last(), place.checked_sub(1)) {
        place = before;
        let present = left.checked_sub(1);
        let larger = present.filter(|at| list.get(*at).is_some_and(|one| one.key() > last.key()));
        if let Some(from) = larger {
            list.swap(place, from);
            left = from;
        } else if let (Some(to), Some(entry)) = (list.get_mut(place), rest.pop()) {
            *to = entry;
        }
    }
}

/// So often a place is estimated anew from what lies at the last one.
const ESTIMATES: usize = 3;

/// How many entries of a sorted list come before an id. Ids are as good as random, so that where one lies
/// can be estimated; where they are not it takes longer.
fn first_place(list: &[Entry], id: &ChunkId) -> usize {
    let mut place = shift(list, 0, id.prefix().into());
    for _ in 0..ESTIMATES {
        let Some(entry) = list.get(place) else {
            break;
        };
        let away = i128::from(id.prefix()).saturating_sub(entry.id.prefix().into());
        place = shift(list, place, away);
    }
    let is_before = |place: usize| list.get(place).is_some_and(|entry| entry.id < *id);
    // Everything before `low` comes before the id, and nothing from `high` on.
    let mut step: usize = 1;
    let (low, high) = if is_before(place) {
        let mut low = place.saturating_add(1);
        while is_before(low.saturating_add(step)) {
            low = low.saturating_add(step).saturating_add(1);
            step = step.saturating_mul(2);
        }
        (low, list.len().min(low.saturating_add(step)))
    } else {
        let mut high = place;
        while step <= high && !is_before(high.saturating_sub(step)) {
            high = high.saturating_sub(step);
            step = step.saturating_mul(2);
        }
        (high.saturating_sub(step), high)
    };
    let near = list.get(low..high).unwrap_or_default();
    low.saturating_add(near.partition_point(|entry| entry.id < *id))
}

/// The place that lies so much further, of all that prefixes can be.
fn shift(list: &[Entry], place: usize, prefixes: i128) -> usize {
    let length = i128::try_from(list.len()).unwrap_or(i128::MAX);
    let places = prefixes.saturating_mul(length) >> u64::BITS;
    let sum = i128::try_from(place)
        .unwrap_or(i128::MAX)
        .saturating_add(places);
    usize::try_from(sum.clamp(0, length.saturating_sub(1).max(0))).unwrap_or_default()
}

/// A pack that the index knows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
            sort(list);
            list.shrink_to_fit();
        }
    }

    /// Takes over the packs and blobs of [`Self::packs`] and [`Self::entries`] of another index. Nothing
    /// else may have been added before.
    pub(crate) fn add_gathered(&mut self, packs: Vec<PackEntry>, blobs: Entries) {
        self.packs.extend(packs);
        self.chunks.extend(blobs.chunks);
        self.trees.extend(blobs.trees);
    }

    /// All blobs, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entries> + '_ {
        let chunks = self.chunks.chunks(MOST_ENTRIES).map(|chunks| Entries {
            chunks: chunks.to_vec(),
            ..Entries::default()
        });
        let trees = self.trees.chunks(MOST_ENTRIES).map(|trees| Entries {
            trees: trees.to_vec(),
            ..Entries::default()
        });
        chunks.chain(trees)
    }

    /// How many copies of blobs there are.
    pub(crate) const fn blob_count(&self) -> usize {
        self.chunks.len().saturating_add(self.trees.len())
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
        let start = first_place(list, id);
        let id = *id;
        let found = list.get(start..).unwrap_or_default().iter();
        found
            .take_while(move |entry| entry.id == id)
            .map(|entry| entry.location)
    }

    /// All copies of a chunk.
    pub(crate) fn copies_of(&self, number: ChunkNumber) -> impl Iterator<Item = BlobLocation> + '_ {
        let all = self.chunks.get(number.place()..).unwrap_or_default();
        let first = all.first().map(|entry| entry.id);
        all.iter()
            .take_while(move |entry| Some(entry.id) == first)
            .map(|entry| entry.location)
    }

    /// The number of a chunk.
    pub(crate) fn number(&self, id: &ChunkId) -> Option<ChunkNumber> {
        let position = first_place(&self.chunks, id);
        let found = self.chunks.get(position).filter(|entry| entry.id == *id);
        found.and_then(|_| u32::try_from(position).ok().map(ChunkNumber))
    }

    /// The chunk of a number that this index gave, and where its first copy lies.
    pub(crate) fn chunk(&self, number: ChunkNumber) -> Option<(ChunkId, BlobLocation)> {
        let entry = self.chunks.get(number.place())?;
        Some((entry.id, entry.location))
    }

    /// The pack of a location that this index gave.
    pub(crate) fn pack(&self, number: PackNumber) -> Option<PackEntry> {
        self.packs.get(number.place()).copied()
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
        let place = first_place(list, id);
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

#[cfg(test)]
impl Index {
    /// Of one pack. For each chunk its id and, where it is compressed, its length before that.
    pub(crate) fn of_one_pack(chunks: impl Iterator<Item = (ChunkId, Option<u32>)>) -> Self {
        let blobs = chunks.map(|(id, uncompressed_length)| IndexBlob {
            id,
            kind: BlobType::Data,
            offset: 0,
            length: 10,
            uncompressed_length,
        });
        let mut index = Self::default();
        index.add(&IndexPack {
            id: PackId::from_bytes([9; 32]),
            blobs: blobs.collect(),
            time: None,
            size: None,
        });
        index.sort();
        index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: u8, pack: u32) -> Entry {
        let pack = PackNumber(pack);
        let location = BlobLocation {
            pack,
            offset: u32::from(id),
            length: 1,
            raw_and_flag: 1,
        };
        let id = ChunkId::from_bytes([id; 32]);
        Entry { id, location }
    }

    proptest! {
        #[test]
        fn every_place_is_found_also_where_ids_are_not_random(
            ids in prop::collection::vec(prop_oneof![any::<[u8; 32]>(), any::<u8>().prop_map(|byte| [byte / 64; 32])], 0..300),
            others in prop::collection::vec(any::<[u8; 32]>(), 20),
        ) {
            let mut list: Vec<Entry> = ids.iter().map(|id| {
                Entry { id: ChunkId::from_bytes(*id), ..entry(0, 0) }
            }).collect();
            list.sort_unstable_by_key(Entry::key);
            let edges = [[0; 32], [255; 32]];
            for id in ids.iter().chain(&others).chain(&edges) {
                let id = ChunkId::from_bytes(*id);
                prop_assert_eq!(first_place(&list, &id), list.partition_point(|entry| entry.id < id));
            }
        }

        #[test]
        fn a_list_is_sorted_wherever_its_order_ends(
            first in prop::collection::vec(any::<(u8, u8)>(), 0..60),
            rest in prop::collection::vec(any::<(u8, u8)>(), 0..60),
        ) {
            let entries = |list: &[(u8, u8)]| -> Vec<Entry> {
                list.iter().map(|(id, pack)| entry(*id, u32::from(*pack))).collect()
            };
            let mut list = entries(&first);
            list.sort_unstable_by_key(Entry::key);
            list.extend(entries(&rest));
            let mut expected: Vec<_> = list.iter().map(Entry::key).collect();
            expected.sort_unstable();
            sort(&mut list);
            prop_assert_eq!(list.iter().map(Entry::key).collect::<Vec<_>>(), expected);
            let own = |one: &Entry| ChunkId::from_bytes([one.location.offset as u8; 32]) == one.id;
            prop_assert!(list.iter().all(own));
        }
    }
}
