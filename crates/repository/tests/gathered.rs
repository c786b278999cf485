//! What this host gathered of many index files and snapshots: whatever becomes of it or of the repository,
//! the answers are those of the repository.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::path::PathBuf;

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{CheckOptions, PruneOptions};
use vrs_repository::{OpenOptions, ResticRepository, SnapshotStore};

const SNAPSHOTS: u64 = 80;
const GATHERED: [&str; 2] = ["index.gathered", "snapshots.gathered"];

struct Scene {
    sandbox: Sandbox,
}

impl Scene {
    /// With more snapshots than are read one by one, each with an index file of its own.
    fn new() -> Self {
        let scene = Self {
            sandbox: Sandbox::new(),
        };
        let repository = scene.open();
        (0..SNAPSHOTS).for_each(|number| {
            add_numbered(&repository, number);
        });
        scene.require_answers(0..SNAPSHOTS);
        scene
    }

    fn open(&self) -> ResticRepository {
        let mut options: OpenOptions = small_packs();
        options.cache_folder = Some(self.sandbox.path("cache"));
        ResticRepository::open(&self.sandbox.location(), &password(), &options).unwrap()
    }

    fn gathered(&self, name: &str) -> PathBuf {
        let mut files = files_below(&self.sandbox.path("cache")).into_iter();
        let found = files.find(|file| file.ends_with(name));
        self.sandbox.path("cache").join(found.unwrap())
    }

    /// A process that begins now sees these snapshots and no others, and can read them.
    fn require_answers(&self, numbers: impl Iterator<Item = u64>) {
        let repository = self.open();
        let list = repository.snapshots().unwrap();
        assert!(list.unreadable.is_empty());
        let records = list.snapshots.iter();
        let mut found: Vec<u64> = records
            .map(|record| sound_number(&repository, record).unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, numbers.collect::<Vec<_>>());
    }

    fn remove(&self, numbers: std::ops::Range<u64>) {
        let repository = self.open();
        let gone = |text: Option<String>| numbers.contains(&text.unwrap().parse().unwrap());
        let list = repository.snapshots().unwrap().snapshots.into_iter();
        let ids: Vec<SnapshotId> = list
            .filter(|record| gone(record.description.clone()))
            .map(|record| record.id)
            .collect();
        repository.delete(&ids, &NoProgress).unwrap();
    }

    fn prune(&self) {
        let options = PruneOptions::default();
        self.open().prune(&options, &NoProgress).unwrap();
    }
}

#[test]
fn what_is_damaged_or_gone_costs_only_time() {
    let scene = Scene::new();
    for name in GATHERED {
        let file = scene.gathered(name);
        let sound = std::fs::read(&file).unwrap();
        let mut changed = sound.clone();
        changed[sound.len() / 2] ^= 1;
        for damaged in [&changed[..], &sound[..sound.len() - 1], b""] {
            std::fs::write(&file, damaged).unwrap();
            scene.require_answers(0..SNAPSHOTS);
            // And another one is there.
            assert!(std::fs::read(&file).unwrap().len() > 1000);
        }
        std::fs::remove_file(&file).unwrap();
        scene.require_answers(0..SNAPSHOTS);
        assert!(file.exists());
    }
}

#[test]
fn what_is_older_than_the_repository_hides_nothing_and_shows_nothing_that_is_gone() {
    let scene = Scene::new();
    let old = GATHERED.map(|name| {
        let file = scene.gathered(name);
        let content = std::fs::read(&file).unwrap();
        (file, content)
    });
    let back = || {
        for (file, content) in &old {
            std::fs::write(file, content).unwrap();
        }
    };
    add_numbered(&scene.open(), SNAPSHOTS);
    back();
    scene.require_answers(0..SNAPSHOTS + 1);
    scene.remove(0..40);
    back();
    scene.require_answers(40..SNAPSHOTS + 1);
    // Which puts other index files in the place of the old ones.
    scene.prune();
    back();
    scene.require_answers(40..SNAPSHOTS + 1);
    add_numbered(&scene.open(), SNAPSHOTS + 1);
    back();
    scene.require_answers(40..SNAPSHOTS + 2);
    let report = scene
        .open()
        .check(&CheckOptions::default(), &NoProgress)
        .unwrap();
    assert!(report.errors.is_empty(), "{report:?}");
}

#[test]
fn a_check_reads_the_repository_itself() {
    let scene = Scene::new();
    for kind in ["index", "snapshots"] {
        let folder = scene.sandbox.repository_folder().join(kind);
        let object = std::fs::read_dir(folder).unwrap().next().unwrap();
        let object = object.unwrap().path();
        let sound = std::fs::read(&object).unwrap();
        std::fs::write(&object, noise(7, sound.len())).unwrap();
        // Whoever has read it before need not read it again.
        scene.require_answers(0..SNAPSHOTS);
        let report = scene
            .open()
            .check(&CheckOptions::default(), &NoProgress)
            .unwrap();
        assert!(!report.errors.is_empty(), "{kind}");
        std::fs::write(&object, sound).unwrap();
    }
}
