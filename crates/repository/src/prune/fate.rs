//! What happens to each pack.
//!
//! A needed blob counts in one pack only, the first usable one that holds it; further copies count as
//! unused.

use std::collections::{BTreeMap, HashMap, HashSet};

use rustic_core::repofile::BlobType;

use super::Scene;
use crate::id::{ChunkId, PackId};
use crate::index::{BlobLocation, PackEntry, PackNumber};
use crate::store::PruneStats;

/// What happens to a pack that does not just stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is marked.
    Mark,
    /// What is needed of it is copied, then it is marked.
    Repack,
    /// An index file names it, but it is not there, or of no use.
    Forget,
}

/// A blob that is to be copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopiedBlob {
    pub(super) id: ChunkId,
    pub(super) kind: BlobType,
    pub(super) location: BlobLocation,
}

/// What happens to all packs.
#[derive(Default)]
pub(super) struct Fates {
    pub(super) of: HashMap<PackId, Fate>,
    /// Packs that are there and in no index.
    pub(super) orphans: Vec<(PackId, u32)>,
    /// How many blobs are needed and in no usable pack.
    pub(super) lost: usize,
    pub(super) stats: PruneStats,
}

/// How much of a pack is needed. Bytes are those of blobs and their entries in the header.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    used_bytes: u64,
    all_bytes: u64,
    has_trees: bool,
}

impl Share {
    const fn unused_bytes(&self) -> u64 {
        self.all_bytes.saturating_sub(self.used_bytes)
    }
}

fn cost_bytes(location: BlobLocation) -> u64 {
    let entry: u64 = if location.is_compressed() { 41 } else { 37 };
    entry.saturating_add(location.length.into())
}

/// Some of the packs that are decided about together.
#[derive(Default)]
struct Candidates {
    partial: Vec<(PackEntry, Share)>,
    tiny_data: Vec<PackEntry>,
    tiny_trees: Vec<PackEntry>,
}

/// Packs by number. Two index files may name the same pack, which then has two numbers.
pub(super) struct Packs {
    entries: Vec<PackEntry>,
    /// The first number of the same pack.
    first: Vec<usize>,
    is_usable: Vec<bool>,
    /// Places of copies that are none.
    worthless: HashSet<(usize, u32)>,
}

impl Packs {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let entries: Vec<PackEntry> = scene.loaded.index.packs().map(|(_, pack)| pack).collect();
        let mut numbers = HashMap::with_capacity(entries.len());
        let first = |(number, pack): (usize, &PackEntry)| *numbers.entry(pack.id).or_insert(number);
        let is_usable = |pack: &PackEntry| scene.present.get(&pack.id) == Some(&pack.size_bytes);
        Self {
            first: entries.iter().enumerate().map(first).collect(),
            is_usable: entries.iter().map(is_usable).collect(),
            worthless: scene.worthless.clone(),
            entries,
        }
    }

    fn first(&self, pack: PackNumber) -> usize {
        self.first.get(pack.place()).copied().unwrap_or_default()
    }

    fn is_usable(&self, number: usize) -> bool {
        self.is_usable.get(number).copied().unwrap_or_default()
    }

    /// The copy of a blob that counts.
    pub(super) fn counted(
        &self,
        mut copies: impl Iterator<Item = BlobLocation>,
    ) -> Option<BlobLocation> {
        copies.find(|copy| {
            self.is_usable(copy.pack.place()) && !self.worthless.contains(&copy.place())
        })
    }

    /// Each pack once, with its first number.
    fn each(&self) -> impl Iterator<Item = (usize, PackEntry)> + '_ {
        let all = self.entries.iter().copied().enumerate();
        all.filter(|(number, _)| self.first.get(*number) == Some(number))
    }

    pub(super) fn id(&self, pack: PackNumber) -> Option<PackId> {
        self.entries.get(pack.place()).map(|pack| pack.id)
    }
}

/// Does something for the counted copy of each needed blob; returns how many have none.
pub(super) fn each_needed(
    scene: &Scene<'_>,
    packs: &Packs,
    mut act: impl FnMut(CopiedBlob),
) -> usize {
    let mut lost: usize = 0;
    for kind in [BlobType::Data, BlobType::Tree] {
        for (place, id, copies) in scene.loaded.index.blobs(kind) {
            if !scene.usage.needs(kind, place) {
                continue;
            }
            match packs.counted(copies) {
                Some(location) => act(CopiedBlob { id, kind, location }),
                None => lost = lost.saturating_add(1),
            }
        }
    }
    lost
}

/// The share of each pack by its first number, and how many needed blobs are in none.
fn shares(scene: &Scene<'_>, packs: &Packs) -> (Vec<Share>, usize) {
    let mut shares = vec![Share::default(); packs.entries.len()];
    let lost = each_needed(scene, packs, |blob| {
        if let Some(share) = shares.get_mut(packs.first(blob.location.pack)) {
            share.used_bytes = share.used_bytes.saturating_add(cost_bytes(blob.location));
            share.has_trees |= blob.kind == BlobType::Tree;
        }
    });
    for kind in [BlobType::Data, BlobType::Tree] {
        for copy in scene
            .loaded
            .index
            .blobs(kind)
            .flat_map(|(_, _, copies)| copies)
        {
            // A pack with two numbers counts once.
            if let Some(share) = shares.get_mut(copy.pack.place()) {
                share.all_bytes = share.all_bytes.saturating_add(cost_bytes(copy));
            }
        }
    }
    (shares, lost)
}

impl Fates {
    /// These packs are named no more; those that are there become orphans.
    pub(super) fn dropping(packs: BTreeMap<PackId, u32>, present: &BTreeMap<PackId, u32>) -> Self {
        let is_there = |(id, _): &(PackId, u32)| present.contains_key(id);
        Self {
            of: packs.keys().map(|id| (*id, Fate::Forget)).collect(),
            orphans: packs.into_iter().filter(is_there).collect(),
            ..Self::default()
        }
    }

    pub(super) fn decide(scene: &Scene<'_>) -> Self {
        let packs = Packs::of(scene);
        let (shares, lost) = shares(scene, &packs);
        let mut fates = Self {
            lost,
            ..Self::default()
        };
        let mut candidates = Candidates::default();
        for (number, pack) in packs.each() {
            let share = shares.get(number).copied().unwrap_or_default();
            if packs.is_usable(number) {
                fates.decide_one(scene, pack, share, &mut candidates);
            } else if !scene.present.contains_key(&pack.id) {
                // One of a wrong size is left to a repair.
                fates.of.insert(pack.id, Fate::Forget);
            }
        }
        fates.choose_repacked(scene.options.max_unused_percent, candidates.partial);
        fates.merge_tiny(candidates.tiny_data);
        fates.merge_tiny(candidates.tiny_trees);
        fates.find_orphans(scene);
        let marked = scene
            .loaded
            .marks
            .values()
            .filter(|mark| scene.present.contains_key(&mark.pack));
        fates.stats.waiting_bytes = marked.map(|mark| u64::from(mark.size_bytes)).sum();
        fates
    }

    fn decide_one(
        &mut self,
        scene: &Scene<'_>,
        pack: PackEntry,
        share: Share,
        candidates: &mut Candidates,
    ) {
        let size_bytes = u64::from(pack.size_bytes);
        let is_young = pack.time.is_some_and(|time| time > scene.young_after);
        let unused_bytes = if share.used_bytes == 0 {
            size_bytes
        } else {
            share.unused_bytes()
        };
        let used_bytes = size_bytes.saturating_sub(unused_bytes);
        self.stats.used_bytes = self.stats.used_bytes.saturating_add(used_bytes);
        self.stats.unused_bytes = self.stats.unused_bytes.saturating_add(unused_bytes);
        if is_young {
            self.stats.too_new_bytes = self.stats.too_new_bytes.saturating_add(unused_bytes);
        } else if share.used_bytes == 0 {
            self.of.insert(pack.id, Fate::Mark);
            self.stats.marked_bytes = self.stats.marked_bytes.saturating_add(size_bytes);
        } else if unused_bytes > 0 {
            candidates.partial.push((pack, share));
        } else if pack.size_bytes < scene.repository.options.pack_bytes / TINY {
            let tiny = if share.has_trees {
                &mut candidates.tiny_trees
            } else {
                &mut candidates.tiny_data
            };
            tiny.push(pack);
        }
    }

    fn repack(&mut self, pack: PackEntry, used_bytes: u64) {
        self.of.insert(pack.id, Fate::Repack);
        self.stats.repacked_bytes = self.stats.repacked_bytes.saturating_add(used_bytes);
        let size_bytes = pack.size_bytes.into();
        self.stats.marked_bytes = self.stats.marked_bytes.saturating_add(size_bytes);
    }

    /// The emptiest first, until what stays unused is within the limit.
    fn choose_repacked(&mut self, max_unused_percent: u32, mut partial: Vec<(PackEntry, Share)>) {
        let limit_bytes = self
            .stats
            .used_bytes
            .saturating_mul(max_unused_percent.into())
            / 100;
        // In thousandths, as sorting needs whole numbers.
        partial.sort_by_key(|(_, share)| {
            let thousandfold = share.unused_bytes().saturating_mul(1000);
            thousandfold
                .checked_div(share.all_bytes)
                .unwrap_or_default()
        });
        let mut unused_bytes: u64 = partial.iter().map(|(_, share)| share.unused_bytes()).sum();
        while unused_bytes > limit_bytes
            && let Some((pack, share)) = partial.pop()
        {
            unused_bytes = unused_bytes.saturating_sub(share.unused_bytes());
            self.repack(pack, share.used_bytes);
        }
    }

    /// Every snapshot brings a small pack; when there are many they are made one.
    fn merge_tiny(&mut self, tiny: Vec<PackEntry>) {
        if tiny.len() > MOST_TINY {
            for pack in tiny {
                self.repack(pack, pack.size_bytes.into());
            }
        }
    }

    /// A pack could not be copied and stays as it is.
    pub(super) fn spare(&mut self, pack: PackId, size_bytes: u32) {
        self.of.remove(&pack);
        self.stats.marked_bytes = self.stats.marked_bytes.saturating_sub(size_bytes.into());
    }

    fn find_orphans(&mut self, scene: &Scene<'_>) {
        let named: HashSet<PackId> = scene.loaded.named_packs();
        let orphans = scene.present.iter().filter(|(id, _)| !named.contains(id));
        for (id, size_bytes) in orphans {
            self.orphans.push((*id, *size_bytes));
            let size_bytes = u64::from(*size_bytes);
            self.stats.unused_bytes = self.stats.unused_bytes.saturating_add(size_bytes);
            self.stats.marked_bytes = self.stats.marked_bytes.saturating_add(size_bytes);
        }
    }
}

/// A pack of less than this part of the usual size is tiny.
const TINY: u32 = 8;
/// So many tiny packs of a kind are no nuisance.
const MOST_TINY: usize = 50;
