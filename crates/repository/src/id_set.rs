//! A growing set of ids, each with a number: some 40 bytes an id.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::block_list::BlockList;
use crate::id::ChunkId;

/// See the module.
#[derive(Default)]
pub(crate) struct IdSet {
    ids: BlockList<ChunkId>,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl IdSet {
    /// The number of an id, and whether it is new. None when there are too many.
    pub(crate) fn insert(&mut self, id: ChunkId) -> Option<(u32, bool)> {
        let Self {
            ids,
            numbers,
            hasher,
        } = self;
        let next = u32::try_from(ids.len()).ok()?;
        let hash = |number: &u32| hasher.hash_one(ids.get(*number as usize));
        let entry = numbers.entry(
            hasher.hash_one(Some(&id)),
            |number| ids.get(*number as usize) == Some(&id),
            hash,
        );
        Some(match entry {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(place) => {
                place.insert(next);
                ids.push(id);
                (next, true)
            }
        })
    }

    /// The number of an id that is there.
    pub(crate) fn number(&self, id: &ChunkId) -> Option<u32> {
        let is_it = |number: &u32| self.ids.get(*number as usize) == Some(id);
        let found = self.numbers.find(self.hasher.hash_one(Some(id)), is_it);
        found.copied()
    }

    /// The id of a number that [`Self::insert`] gave.
    pub(crate) fn get(&self, number: u32) -> Option<ChunkId> {
        self.ids.get(number as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&number.to_be_bytes());
        ChunkId::from_bytes(bytes)
    }

    #[test]
    fn each_id_has_one_number() {
        let mut set = IdSet::default();
        for round in 0..2 {
            for number in 0..10_000 {
                assert_eq!(set.insert(id(number)), Some((number, round == 0)));
            }
        }
        assert_eq!(set.get(9_999), Some(id(9_999)));
        assert_eq!(set.get(10_000), None);
        assert_eq!(set.number(&id(77)), Some(77));
        assert_eq!(set.number(&id(10_000)), None);
    }
}
