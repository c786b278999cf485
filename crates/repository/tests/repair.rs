//! Damage is named, what is sound stays, and what is lost comes back from where it still is.
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
use jiff::{SignedDuration, Timestamp};
use vrs_progress::NoProgress;
use vrs_repository::store::{CheckOptions, PruneOptions};
use vrs_repository::{ResticRepository, SnapshotStore};

/// Changes one byte in the middle of a file.
fn rot(file: &PathBuf) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, content).unwrap();
}

/// The largest pack, which holds chunks of the disk.
fn data_pack(sandbox: &Sandbox) -> PathBuf {
    let packs = sandbox.objects("data").into_iter();
    packs.max_by_key(|(_, size)| *size).unwrap().0
}

fn repair(repository: &ResticRepository) -> Vec<String> {
    repository
        .repair(&CheckOptions::everything(), &NoProgress)
        .unwrap()
}

fn structure(repository: &ResticRepository) -> Vec<String> {
    let report = repository.check(&CheckOptions::default(), &NoProgress);
    report.unwrap().errors
}

struct Scene {
    sandbox: Sandbox,
    content: Vec<u8>,
    local: PathBuf,
    taken: Taken,
}

/// A disk in many chunks.
fn scene() -> Scene {
    let sandbox = Sandbox::new();
    let content = noise(1, 512 + 40 * 4096);
    let local = sandbox.write("disk", &content);
    let taken = take(&sandbox.open(), &[source("m/disk", &local, GRID)]);
    Scene {
        sandbox,
        content,
        local,
        taken,
    }
}

#[test]
fn a_rotten_byte_is_named_and_healed_by_the_next_snapshot() {
    let scene = scene();
    rot(&data_pack(&scene.sandbox));
    let repository = scene.sandbox.open();
    let losses = check(&repository).losses;
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert_eq!(
        (losses[0].snapshot, losses[0].path.as_str()),
        (scene.taken.id, "m/disk")
    );
    let range = losses[0].ranges[0].clone();
    assert_eq!((losses[0].ranges.len(), range.end - range.start), (1, 4096));
    assert_eq!((range.start - 512) % 4096, 0);

    let done = repair(&repository);
    assert_eq!(done.len(), 1, "{done:?}");
    assert!(done[0].contains("chunks in it are kept"), "{done:?}");
    let after = check(&repository).losses;
    assert_eq!(after, losses, "the same is lost, and no more");

    // The file is still what it was, and read again.
    let again = take(&repository, &[source("m/disk", &scene.local, GRID)]);
    assert_eq!(again.files[0].new_chunks, 1);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    let out = scene.sandbox.path("out");
    restore(&repository, &request(scene.taken.id, &[("m/disk", &out)]));
    assert!(std::fs::read(out).unwrap() == scene.content);
    // The rotten pack goes with later prunes; restic agrees then.
    let later = PruneOptions {
        now: Timestamp::now() + SignedDuration::from_hours(50),
        ..PruneOptions::default()
    };
    repository.prune(&later, &NoProgress).unwrap();
    scene.sandbox.restic(&["check", "--read-data"]);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[test]
fn a_lost_pack_comes_back_from_a_copy() {
    let scene = scene();
    let mut other = Sandbox::new();
    other.scene = Some(other.folder.path().join("other"));
    std::fs::create_dir_all(other.path("")).unwrap();
    let options = vrs_repository::InitOptions::default();
    ResticRepository::init(&other.location(), &password(), &options).unwrap();
    let (repository, copy) = (scene.sandbox.open(), other.open());
    copy.copy_from(&repository, &[scene.taken.id], &NoProgress, |_, _| {})
        .unwrap();
    // All: folder lists as well.
    for pack in scene.sandbox.objects("data").into_keys() {
        std::fs::remove_file(pack).unwrap();
    }
    assert!(!structure(&repository).is_empty());
    repair(&repository);
    let fetched = repository.fetch_missing(&copy, &NoProgress).unwrap();
    assert!(fetched > 40, "{fetched}");
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    let out = scene.sandbox.path("out");
    restore(&repository, &request(scene.taken.id, &[("m/disk", &out)]));
    assert!(std::fs::read(out).unwrap() == scene.content);
    scene.sandbox.restic(&["check", "--read-data"]);
}

#[test]
fn a_damaged_index_file_is_written_anew() {
    let scene = scene();
    let index = scene.sandbox.objects("index").into_keys().next().unwrap();
    rot(&index);
    let repository = scene.sandbox.open();
    assert!(!structure(&repository).is_empty());
    assert!(repair(&repository)[0].contains("is written anew"));
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    scene.sandbox.restic(&["check", "--read-data"]);
}

#[test]
fn a_damaged_snapshot_object_is_removed_and_the_others_stay() {
    let scene = scene();
    let second = take(
        &scene.sandbox.open(),
        &[source("m/disk", &scene.local, GRID)],
    );
    let object = scene
        .sandbox
        .path("repository/snapshots")
        .join(scene.taken.id.to_string());
    rot(&object);
    let repository = scene.sandbox.open();
    assert!(repair(&repository)[0].contains("damaged beyond use"));
    let list = repository.snapshots().unwrap();
    assert_eq!((list.unreadable.len(), list.snapshots.len()), (0, 1));
    assert_eq!(list.snapshots[0].id, second.id);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[test]
fn repairing_what_is_sound_changes_nothing() {
    let scene = scene();
    let repository = scene.sandbox.open();
    let objects =
        || ["data", "index", "snapshots", "locks"].map(|kind| scene.sandbox.objects(kind));
    let before = objects();
    assert_eq!(repair(&repository), Vec::<String>::new());
    assert_eq!(objects(), before);
}

#[test]
fn a_part_of_the_data_is_read_and_another_the_next_time() {
    let scene = scene();
    let repository = scene.sandbox.open();
    let all: u64 = scene.sandbox.objects("data").values().sum();
    let mut read = Vec::new();
    for _ in 0..40 {
        let recorder = Recorder::default();
        let half = CheckOptions { read_percent: 50 };
        repository.check(&half, &recorder).unwrap();
        read.push(recorder.scanned.load(std::sync::atomic::Ordering::Relaxed));
    }
    let mean = read.iter().sum::<u64>() / 40;
    assert!(mean > all / 4 && mean < all * 3 / 4, "{mean} of {all}");
    read.sort_unstable();
    read.dedup();
    assert!(read.len() > 1, "always the same part");
}

/// Everything a repair mends, at once: a rotten pack, a damaged index file and a damaged snapshot.
fn damage(sandbox: &Sandbox) {
    let repository = sandbox.open();
    let disk = sandbox.write("disk", &noise(1, 512 + 40 * 4096));
    let gone = take(&repository, &[source("m/disk", &disk, GRID)]);
    let other = sandbox.write("other", &noise(2, 512 + 40 * 4096));
    let sources = [
        source("m/disk", &disk, GRID),
        source("m/other", &other, GRID),
    ];
    take(&repository, &sources);
    rot(&data_pack(sandbox));
    rot(&sandbox.objects("index").into_keys().next().unwrap());
    let name = gone.id.to_string();
    rot(&sandbox.repository_folder().join("snapshots").join(name));
}

#[test]
fn a_plan_says_what_a_repair_will_do_and_does_nothing() {
    let sandbox = Sandbox::new();
    damage(&sandbox);
    let repository = sandbox.open();
    let objects = || ["data", "index", "snapshots", "locks"].map(|kind| sandbox.objects(kind));
    let before = objects();
    let everything = CheckOptions::everything();
    let planned = repository.plan_repair(everything, &NoProgress).unwrap();
    assert_eq!(objects(), before);
    for sign in ["would be written anew", "would be removed"] {
        let count = planned.iter().filter(|text| text.contains(sign)).count();
        assert_eq!(count, 1, "{planned:?}");
    }
    repair(&repository);
    assert_eq!(
        repository.plan_repair(everything, &NoProgress).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn a_repair_killed_at_any_step_is_finished_by_the_next() {
    let sandbox_of = |scene: &std::path::Path| {
        let mut sandbox = Sandbox::new();
        sandbox.scene = Some(scene.to_path_buf());
        sandbox
    };
    let crashes = vrs_testkit::run_at_every_step(
        "a_repair_killed_at_any_step_is_finished_by_the_next",
        |scene| {
            let sandbox = sandbox_of(scene);
            vrs_testkit::make_repository(&sandbox.repository_folder());
            damage(&sandbox);
        },
        |scene, progress| {
            let repository = sandbox_of(scene).open();
            let done = repository.repair(&CheckOptions::everything(), progress);
            assert!(done.unwrap().len() >= 3);
        },
        |scene, crash| {
            let sandbox = sandbox_of(scene);
            let repository = sandbox.open();
            repair(&repository);
            // Only the rotten chunk is lost, of one file, and the next take brings it back.
            let lost = check(&repository).losses;
            let ranges: Vec<_> = lost.iter().flat_map(|loss| &loss.ranges).collect();
            let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            assert!(bytes <= 4096, "{crash:?}: {lost:?}");
            let names = ["disk", "other"];
            let files = names.map(|name| (format!("m/{name}"), sandbox.path(name)));
            let sources = files
                .each_ref()
                .map(|(name, local)| source(name, local, GRID));
            take(&repository, &sources);
            let errors = check(&repository).errors;
            assert_eq!(errors, Vec::<String>::new(), "{crash:?}");
            let list = repository.snapshots().unwrap();
            assert_eq!((list.unreadable.len(), list.snapshots.len()), (0, 2));
            let out = sandbox.path("out");
            restore(
                &repository,
                &request(list.snapshots[0].id, &[("m/other", &out)]),
            );
            assert!(std::fs::read(out).unwrap() == noise(2, 512 + 40 * 4096));
        },
    );
    let steps: std::collections::BTreeSet<&str> =
        crashes.iter().map(|crash| crash.step.as_str()).collect();
    for step in ["remove index", "remove snapshot", "write index"] {
        assert!(steps.contains(step), "{steps:?}");
    }
}
