//! This host's copies of trees: whatever becomes of them or of the repository, what is read is what was
//! stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::PruneOptions;
use vrs_repository::{Error, ResticRepository, SnapshotStore};

/// The root and two folders.
const TREES: usize = 3;

struct Scene {
    sandbox: Sandbox,
    snapshot: SnapshotId,
}

impl Scene {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.options.cache_folder = Some(sandbox.path("cache"));
        let local = sandbox.write("disk", &noise(1, 40_000));
        let taken = take(&sandbox.open(), &[source("m/disk", &local, GRID)]);
        Self {
            sandbox,
            snapshot: taken.id,
        }
    }

    fn open(&self) -> ResticRepository {
        self.sandbox.open()
    }

    fn copies(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = files_below(&self.sandbox.path("cache")).into_iter();
        let trees = files.filter(|file| file.parent().unwrap().ends_with("trees"));
        trees
            .map(|file| (file.clone(), std::fs::read(file).unwrap()))
            .collect()
    }

    /// A process that begins now reads what was stored.
    fn is_read(&self) {
        let files = self.open().files(&self.snapshot).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.to_string()).collect();
        assert_eq!(paths, ["m/disk", "vrs/manifest.json"]);
    }

    /// All packs, with noise instead.
    fn lose_packs(&self) {
        for (pack, length) in self.sandbox.objects("data") {
            std::fs::write(pack, noise(7, usize::try_from(length).unwrap())).unwrap();
        }
    }
}

#[test]
fn a_damaged_copy_is_replaced() {
    let scene = Scene::new();
    let sound = scene.copies();
    assert_eq!(sound.len(), TREES);
    let another = sound.values().next().unwrap();
    for (file, content) in &sound {
        let mut changed = content.clone();
        changed[content.len() / 2] ^= 1;
        let longer = [&content[..], &content[..]].concat();
        for damaged in [&changed[..], &content[1..], &longer, b"", another] {
            std::fs::write(file, damaged).unwrap();
            scene.is_read();
            assert_eq!(scene.copies(), sound);
        }
        std::fs::remove_file(file).unwrap();
        scene.is_read();
        assert_eq!(scene.copies(), sound);
    }
}

#[test]
fn what_the_storage_lost_is_read_and_a_check_finds_it() {
    let scene = Scene::new();
    scene.lose_packs();
    scene.is_read();
    let report = check(&scene.open());
    assert!(!report.errors.is_empty());
    assert_eq!(scene.copies().len(), TREES);
    // And no copies are made of it.
    std::fs::remove_dir_all(scene.sandbox.path("cache")).unwrap();
    scene.open().files(&scene.snapshot).unwrap_err();
    assert_eq!(scene.copies().len(), 0);
}

#[test]
fn a_prune_reads_the_storage_and_makes_no_copies() {
    let scene = Scene::new();
    std::fs::remove_dir_all(scene.sandbox.path("cache")).unwrap();
    let prune = || scene.open().prune(&PruneOptions::default(), &NoProgress);
    prune().unwrap();
    assert_eq!(scene.copies().len(), 0);
    scene.is_read();
    scene.lose_packs();
    let refused = prune().unwrap_err();
    assert!(matches!(refused, Error::NotPrunable { .. }), "{refused}");
}

#[test]
fn what_no_index_knows_is_not_there() {
    let scene = Scene::new();
    for index in scene.sandbox.objects("index").into_keys() {
        std::fs::remove_file(index).unwrap();
    }
    assert_eq!(scene.copies().len(), TREES);
    scene.open().files(&scene.snapshot).unwrap_err();
}

#[test]
fn without_a_folder_for_them_nothing_is_missing() {
    let mut scene = Scene::new();
    scene.sandbox.options.cache_folder = Some(scene.sandbox.write("a file", b"").join("cache"));
    scene.is_read();
    let local = scene.sandbox.write("disk", &noise(2, 40_000));
    take(&scene.open(), &[source("m/disk", &local, GRID)]);
}

#[test]
fn there_are_only_so_many() {
    let scene = Scene::new();
    for number in 0..70 {
        let local = scene.sandbox.write("disk", &noise(number, 9000));
        take(&scene.open(), &[source("m/disk", &local, GRID)]);
    }
    assert_eq!(scene.copies().len(), 128);
    scene.is_read();
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_them() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new();
    for file in scene.copies().keys() {
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
