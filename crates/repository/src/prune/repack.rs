//! Copying what is needed out of packs that are mostly unused.
//!
//! A blob is verified before it is copied. A pack with a needed blob that is damaged stays as it is:
//! perhaps it can be repaired.

use std::collections::BTreeMap;

use vrs_progress::{Counter, Phase};

use super::Scene;
use super::fate::{CopiedBlob, Fate, Fates, Packs, each_needed};
use crate::blob::Unsealer;
use crate::error::Result;
use crate::id::PackId;
use crate::pack::SealedBlob;
use crate::sink::Sink;

/// So many packs are looked up in the index at a time, to bound memory.
const BATCH: usize = 256;

/// Copies out of all packs that are to be repacked, into new packs that index files name.
pub(super) fn run(scene: &Scene<'_>, sink: &Sink<'_>, fates: &mut Fates) -> Result<()> {
    let is_repacked = |(id, fate): (&PackId, &Fate)| (*fate == Fate::Repack).then_some(*id);
    let mut repacked: Vec<PackId> = fates.of.iter().filter_map(is_repacked).collect();
    if repacked.is_empty() {
        return Ok(());
    }
    repacked.sort_unstable();
    scene.progress.phase(Phase {
        name: "copying",
        subject: "packs".to_owned(),
        total_bytes: Some(fates.stats.repacked_bytes),
    });
    for batch in repacked.chunks(BATCH) {
        for (pack, blobs) in to_copy(scene, batch) {
            scene.go_on(sink)?;
            if !copy(scene, sink, pack, &blobs)? {
                let size_bytes = scene.present.get(&pack).copied().unwrap_or_default();
                fates.spare(pack, size_bytes);
            }
        }
    }
    sink.flush()
}

/// The needed blobs of these packs, which are sorted, in the order in which they lie there.
fn to_copy(scene: &Scene<'_>, repacked: &[PackId]) -> BTreeMap<PackId, Vec<CopiedBlob>> {
    let packs = Packs::of(scene);
    let mut copied: BTreeMap<PackId, Vec<CopiedBlob>> = BTreeMap::new();
    each_needed(scene, &packs, |blob| {
        let pack = packs.id(blob.location.pack);
        if let Some(pack) = pack.filter(|id| repacked.binary_search(id).is_ok()) {
            copied.entry(pack).or_default().push(blob);
        }
    });
    copied
        .values_mut()
        .for_each(|blobs| blobs.sort_unstable_by_key(|blob| blob.location.offset));
    copied
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
