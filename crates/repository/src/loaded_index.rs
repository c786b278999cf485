//! The index of a repository as this process has it: what all its index files say.
//!
//! A repository with a thousand snapshots has a thousand small index files. What they say is gathered on this
//! host ([`gathered`](crate::gathered)) as it is in memory, so that only those are understood one by one that came since. As
//! soon as one of the gathered files is gone from the storage, nothing of it counts any more. Memory: that
//! of the index, and a few megabytes while it is read.

use std::collections::{HashMap, HashSet};

use rustic_core::FileType;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gathered::MOST_LOOSE;
use crate::id::{IndexId, PackId};
use crate::index::{Entries, Index, IndexFile, IndexPack, PackEntry};
use crate::object::Vault;
use crate::parallel;

/// One part in so many of all blobs may be in index files beside what is gathered. Gathering takes as long as writing the whole index does.
const LOOSE_BLOBS_PART: usize = 4;
/// In one part: less than a megabyte.
const PART_OBJECTS: usize = 8192;
/// Fewer blobs are read as fast as ever.
const FEW_BLOBS: usize = 4096;

/// A pack that a prune has marked to be removed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Default)]
pub(crate) struct LoadedIndex {
    /// The files it was made from, in order.
    pub(crate) files: Vec<IndexId>,
    pub(crate) index: Index,
    /// Packs that a prune has marked. One that an index file still names is not marked, whatever
    /// another says: a prune may have been killed in between, or a snapshot may need it again.
    pub(crate) marks: HashMap<PackId, Mark>,
    /// One text for each index file that could not be read.
    pub(crate) unreadable: Vec<String>,
}

/// A part of what is gathered.
#[derive(Default, Serialize, Deserialize)]
struct Part {
    files: Vec<IndexId>,
    packs: Vec<PackEntry>,
    marks: Vec<Mark>,
    blobs: Entries,
}

impl LoadedIndex {
    /// Reads the given index files, which are in order; a damaged one does not make the others unusable.
    pub(crate) fn read(vault: Vault<'_>, files: Vec<IndexId>, threads: usize) -> Result<Self> {
        let mut loaded = Self::gathered(vault, &files, threads).unwrap_or_default();
        let gathered_blobs = loaded.index.blob_count();
        let is_loose = |id: &&IndexId| loaded.files.binary_search(id).is_err();
        let loose: Vec<&IndexId> = files.iter().filter(is_loose).collect();
        let loose_files = loose.len();
        parallel::each_short(
            threads,
            loose.into_iter(),
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
        let loose_blobs = loaded.index.blob_count().saturating_sub(gathered_blobs);
        if loose_files > MOST_LOOSE
            || loose_blobs > FEW_BLOBS.max(gathered_blobs.div_euclid(LOOSE_BLOBS_PART))
        {
            loaded.gather(vault);
        }
        Ok(loaded)
    }

    /// What is known without reading index files. None if some of those that it is from are gone.
    fn gathered(vault: Vault<'_>, present: &[IndexId], threads: usize) -> Option<Self> {
        let mut loaded = Self::default();
        let gathered = vault.gathered(FileType::Index)?;
        gathered.read(threads, |part: Part| loaded.add_part(part))?;
        let is_there = |id: &IndexId| present.binary_search(id).is_ok();
        loaded.files.iter().all(is_there).then_some(loaded)
    }

    fn add_part(&mut self, part: Part) {
        self.files.extend(part.files);
        self.index.add_gathered(part.packs, part.blobs);
        let marks = part.marks.into_iter();
        self.marks.extend(marks.map(|mark| (mark.pack, mark)));
    }

    fn gather(&self, vault: Vault<'_>) {
        let Some(gathered) = vault
            .gathered(FileType::Index)
            .filter(|_| self.unreadable.is_empty())
        else {
            return;
        };
        let packs: Vec<PackEntry> = self.index.packs().map(|(_, pack)| pack).collect();
        let marks: Vec<Mark> = self.marks.values().copied().collect();
        let files = in_parts(&self.files, |files| Part {
            files,
            ..Part::default()
        });
        let packs = in_parts(&packs, |packs| Part {
            packs,
            ..Part::default()
        });
        let marks = in_parts(&marks, |marks| Part {
            marks,
            ..Part::default()
        });
        let blobs = self.index.entries().map(|blobs| Part {
            blobs,
            ..Part::default()
        });
        // Who cannot keep it reads the index files again.
        let _ = gathered.write(files.chain(packs).chain(marks).chain(blobs));
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

fn in_parts<T: Clone>(all: &[T], part: fn(Vec<T>) -> Part) -> impl Iterator<Item = Part> {
    all.chunks(PART_OBJECTS)
        .map(move |some| part(some.to_vec()))
}
