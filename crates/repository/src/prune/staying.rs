//! Making sure of the copy that stays where another one goes.
//!
//! An index file may claim anything: a stolen key that may only add can still write one that names a
//! worthless pack as a copy of what snapshots need. So before a pack with a needed blob is given up,
//! the copy of it that counts instead is read and verified. That costs something only where there are
//! two copies and one of them goes.

use rustic_core::repofile::BlobType;

use super::Scene;
use super::fate::{CopiedBlob, Fate, Fates, Packs};
use crate::blob::unseal;
use crate::error::{Error, Result, stop_if_interrupted};
use crate::parallel;

/// What happens to each pack, so that whatever is needed stays in a copy that was read.
pub(super) fn decide(scene: &mut Scene<'_>) -> Result<Fates> {
    loop {
        let fates = Fates::decide(scene);
        let worthless = worthless(scene, &fates)?;
        if worthless.is_empty() {
            return Ok(fates);
        }
        for blob in worthless {
            scene.progress.warn(&format!(
                "what an index file names as a copy of chunk {} is none; another copy stays in its place",
                blob.id.short()
            ));
            scene.worthless.insert(blob.location.place());
        }
    }
}

/// Copies that count instead of others which go, and are no copies.
fn worthless(scene: &Scene<'_>, fates: &Fates) -> Result<Vec<CopiedBlob>> {
    let packs = Packs::of(scene);
    let kinds = [BlobType::Data, BlobType::Tree].into_iter();
    let replacing = kinds.flat_map(|kind| {
        let needed = scene
            .loaded
            .index
            .blobs(kind)
            .filter(move |(place, ..)| scene.usage.needs(kind, *place));
        needed.map(move |(_, id, copies)| (kind, id, copies))
    });
    let goes = |pack| {
        let fate = packs.id(pack).and_then(|id| fates.of.get(&id));
        matches!(fate, Some(Fate::Mark | Fate::Repack))
    };
    let replacing = replacing.filter_map(|(kind, id, mut copies)| {
        let location = packs.counted(copies.clone())?;
        let is_other = |pack| packs.id(pack) != packs.id(location.pack);
        let replaces = copies.any(|copy| is_other(copy.pack) && goes(copy.pack));
        replaces.then_some(CopiedBlob { id, kind, location })
    });
    let mut found = Vec::new();
    parallel::each(
        scene.repository.backend.connections(),
        replacing.map(Ok),
        || Ok(()),
        |(), blob| Ok((!is_sound(scene, &packs, &blob)?).then_some(blob)),
        |blob| found.extend(blob),
    )?;
    Ok(found)
}

fn is_sound(scene: &Scene<'_>, packs: &Packs, blob: &CopiedBlob) -> Result<bool> {
    stop_if_interrupted(scene.progress)?;
    let CopiedBlob { id, location, .. } = blob;
    let Some(pack) = packs.id(location.pack) else {
        return Ok(false);
    };
    let backend = &scene.repository.backend;
    match backend.read_pack(pack, location.offset, location.length) {
        Ok(sealed) => Ok(unseal(&scene.repository.key, id, location, &sealed).is_ok()),
        Err(Error::DamagedObject { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::{SignedDuration, Timestamp};
    use rustic_core::{FileType, Id};
    use vrs_progress::NoProgress;

    use crate::crypto::hash;
    use crate::id::PackId;
    use crate::index::{IndexBlob, IndexFile, IndexPack};
    use crate::store::{PruneOptions, SnapshotLabel, TreePath, read_to_vec};
    use crate::{Location, OpenOptions, Password, ResticRepository, SnapshotStore};

    /// What a stolen key can add: packs of noise, and an index file that says they hold all there is.
    fn add_worthless_copies(repository: &ResticRepository, salt: u8) {
        let vault = repository.vault();
        let loaded = repository.index().unwrap();
        let mut forged = IndexFile::default();
        for blobs in loaded.index.blobs_by_pack().into_values() {
            let mut end: u32 = 0;
            let blobs: Vec<IndexBlob> = blobs
                .iter()
                .map(|blob| {
                    let location = blob.location;
                    let offset = end;
                    end = offset.saturating_add(location.length);
                    IndexBlob {
                        id: blob.id,
                        kind: blob.kind,
                        offset,
                        length: location.length,
                        uncompressed_length: location.is_compressed().then(|| location.raw_bytes()),
                    }
                })
                .collect();
            let size_bytes = end.saturating_add(1);
            let content = vec![salt; size_bytes as usize];
            let id = Id::new(hash(&content));
            let written = vault.backend.write(FileType::Pack, id, content.into());
            written.unwrap();
            forged.packs.push(IndexPack {
                id: PackId::from(id),
                blobs,
                // Long ago, so that no prune takes them for an upload.
                time: None,
                size: Some(size_bytes),
            });
        }
        let (id, sealed) = vault.prepare(&forged, 0).unwrap();
        let written = vault.backend.write(FileType::Index, id, sealed.into());
        written.unwrap();
    }

    #[test]
    fn a_copy_that_is_only_claimed_displaces_no_real_one() {
        let folder = tempfile::tempdir().unwrap();
        vrs_testkit::make_repository(folder.path());
        let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let password = Password::new(vrs_testkit::REPOSITORY_PASSWORD.to_owned());
        let open =
            || ResticRepository::open(&location, &password, &OpenOptions::default()).unwrap();
        let repository = open();
        let path = TreePath::new("m/disk").unwrap();
        let mut ingest = repository.ingest(&NoProgress).unwrap();
        ingest.bytes(&path, &[7; 5000]).unwrap();
        let label = SnapshotLabel {
            time: Timestamp::now(),
            hostname: "host".to_owned(),
            tags: vec![],
            description: None,
        };
        let (snapshot, _) = ingest.commit(&label).unwrap();
        let packs = || -> BTreeSet<PackId> {
            let packs = repository.backend.list(FileType::Pack).unwrap();
            packs.into_keys().collect()
        };
        let real = packs();
        // Several, as it is chance which copy an index names first.
        (1..=6).for_each(|salt| add_worthless_copies(&repository, salt));
        assert_eq!(packs().len(), 7 * real.len());
        for days in 1..5 {
            let options = PruneOptions {
                max_unused_percent: 0,
                now: Timestamp::now() + SignedDuration::from_hours(30 * days),
            };
            repository.prune(&options, &NoProgress).unwrap();
            let again = open();
            let mut stored = again.open_file(&snapshot, &path).unwrap();
            assert_eq!(read_to_vec(stored.as_mut(), 10_000).unwrap(), [7; 5000]);
        }
        let left = packs();
        assert!(left.is_superset(&real) && left.len() < 7 * real.len());
    }
}
