//! Copying what is needed out of packs that are mostly unused.
//!
//! A blob is verified before it is copied. A pack with a needed blob that is damaged stays as it is:
//! perhaps it can be repaired.

use std::collections::{BTreeMap, BTreeSet};

use vrs_progress::{Counter, Phase};

use super::Scene;
use super::fate::{CopiedBlob, Fate, Fates, Packs, each_needed};
use crate::blob::Unsealer;
use crate::error::Result;
use crate::id::PackId;
use crate::pack::SealedBlob;
use crate::sink::Sink;

/// So many blobs are looked up in the index at a time, or those of one pack: less than two megabytes.
const BATCH_BLOBS: usize = 1 << 15;

/// Copies out of all packs that are to be repacked, into new packs that index files name.
pub(super) fn run(scene: &Scene<'_>, sink: &Sink<'_>, fates: &mut Fates) -> Result<()> {
    let batches = batches(scene, fates);
    if batches.is_empty() {
        return Ok(());
    }
    scene.progress.phase(Phase {
        name: "copying",
        subject: "packs".to_owned(),
        total_bytes: Some(fates.stats.repacked_bytes),
    });
    for batch in batches {
        for (pack, blobs) in to_copy(scene, &batch) {
            scene.go_on(sink)?;
            if !copy(scene, sink, pack, &blobs)? {
                let size_bytes = scene.present.get(&pack).copied().unwrap_or_default();
                fates.spare(pack, size_bytes);
            }
        }
    }
    sink.flush()
}

/// The packs that are to be repacked, some at a time.
fn batches(scene: &Scene<'_>, fates: &Fates) -> Vec<BTreeSet<PackId>> {
    let mut sizes: BTreeMap<PackId, usize> = BTreeMap::new();
    let is_repacked = |pack: &PackId| fates.of.get(pack) == Some(&Fate::Repack);
    each_needed_in(scene, is_repacked, |pack, _| {
        let blobs = sizes.entry(pack).or_default();
        *blobs = blobs.saturating_add(1);
    });
    let mut batches = Vec::new();
    let mut batch = BTreeSet::new();
    let mut batch_blobs: usize = 0;
    for (pack, blobs) in sizes {
        batch_blobs = batch_blobs.saturating_add(blobs);
        if batch_blobs > BATCH_BLOBS && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            batch_blobs = blobs;
        }
        batch.insert(pack);
    }
    batches.extend(Some(batch).filter(|rest| !rest.is_empty()));
    batches
}

/// The needed blobs of these packs, in the order in which they lie there.
fn to_copy(scene: &Scene<'_>, repacked: &BTreeSet<PackId>) -> BTreeMap<PackId, Vec<CopiedBlob>> {
    let mut copied: BTreeMap<PackId, Vec<CopiedBlob>> = BTreeMap::new();
    let is_repacked = |pack: &PackId| repacked.contains(pack);
    each_needed_in(scene, is_repacked, |pack, blob| {
        copied.entry(pack).or_default().push(blob);
    });
    copied
        .values_mut()
        .for_each(|blobs| blobs.sort_unstable_by_key(|blob| blob.location.offset));
    copied
}

fn each_needed_in(
    scene: &Scene<'_>,
    is_wanted: impl Fn(&PackId) -> bool,
    mut act: impl FnMut(PackId, CopiedBlob),
) {
    let packs = Packs::of(scene);
    each_needed(scene, &packs, |blob| {
        if let Some(pack) = packs.id(blob.location.pack).filter(&is_wanted) {
            act(pack, blob);
        }
    });
}

/// Copies blobs of one pack; whether all of them are sound.
fn copy(scene: &Scene<'_>, sink: &Sink<'_>, pack: PackId, blobs: &[CopiedBlob]) -> Result<bool> {
    let repository = scene.repository;
    let size_bytes = scene.present.get(&pack).copied().unwrap_or_default();
    let content = repository.small_pack(pack, size_bytes);
    let mut unsealer = Unsealer::new(&repository.key);
    for CopiedBlob { id, kind, location } in blobs {
        let sealed = content.part(repository, pack, location)?;
        if let Err(flaw) = unsealer.unseal(id, location, &mut sealed.to_vec()) {
            scene.progress.warn(&format!(
                "chunk {} in pack {} is damaged: {flaw}; the pack stays; run 'vrs check --read-data' to learn what it affects",
                id.short(),
                pack.short()
            ));
            return Ok(false);
        }
        scene.progress.add(Counter::Scanned, location.length.into());
        sink.copy(SealedBlob {
            id: *id,
            kind: *kind,
            sealed: sealed.to_vec(),
            uncompressed_length: location.is_compressed().then(|| location.raw_bytes()),
        })?;
    }
    Ok(true)
}
