//! Pruning: what is used stays, what is not goes in two phases, and stock restic agrees each time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use common::*;
use jiff::{SignedDuration, Timestamp};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{PruneOptions, PruneStats};
use vrs_repository::{ErrorKind, ResticRepository, SnapshotStore};
use vrs_testkit::run_at_every_step;

/// Packs are left alone for a day, and marked ones for another.
fn days_later(days: i64) -> PruneOptions {
    PruneOptions {
        max_unused_percent: 0,
        now: Timestamp::now() + SignedDuration::from_hours(25 * days),
    }
}

fn prune(repository: &ResticRepository, days: i64) -> PruneStats {
    repository.prune(&days_later(days), &NoProgress).unwrap()
}

fn take_noise(sandbox: &Sandbox, repository: &ResticRepository, seeds: &[u64]) -> SnapshotId {
    let content: Vec<u8> = seeds
        .iter()
        .flat_map(|seed| noise(*seed, 40 << 10))
        .collect();
    let local = sandbox.write("disk", &content);
    take(repository, &[source("m/disk", &local, GRID)]).id
}

fn assert_holds(sandbox: &Sandbox, repository: &ResticRepository, id: SnapshotId, seeds: &[u64]) {
    let out = sandbox.path("out");
    restore(repository, &request(id, &[("m/disk", &out)]));
    let wanted: Vec<u8> = seeds
        .iter()
        .flat_map(|seed| noise(*seed, 40 << 10))
        .collect();
    assert!(std::fs::read(out).unwrap() == wanted, "{seeds:?}");
}

fn restic_is_content(sandbox: &Sandbox) {
    let text = sandbox.restic(&["check", "--read-data"]);
    assert!(text.contains("no errors were found"), "{text}");
}

fn assert_sound(sandbox: &Sandbox, repository: &ResticRepository) {
    let report = check(repository);
    assert_eq!(report.errors, Vec::<String>::new());
    restic_is_content(sandbox);
}

#[test]
fn what_a_deleted_snapshot_held_alone_goes_in_two_phases() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let kept = take_noise(&sandbox, &repository, &[1, 9, 5, 10]);
    repository.delete(&[gone], &NoProgress).unwrap();

    // Too new: an upload may be going on.
    let stats = prune(&repository, 0);
    assert!(stats.too_new_bytes > 200_000, "{stats:?}");
    assert_eq!((stats.marked_bytes, stats.freed_bytes), (0, 0));

    let planned = repository
        .plan_prune(&days_later(1), &[], &NoProgress)
        .unwrap();
    let before = sandbox.objects("data");
    let stats = prune(&repository, 1);
    assert_eq!(stats, planned);
    assert!(
        stats.marked_bytes > 200_000 && stats.repacked_bytes > 0,
        "{stats:?}"
    );
    assert_eq!(stats.freed_bytes, 0);
    assert!(
        before.keys().all(|pack| pack.exists()),
        "marked, not removed"
    );
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, kept, &[1, 9, 5, 10]);

    let stats = prune(&repository, 1);
    assert_eq!(
        (stats.freed_bytes, stats.marked_bytes),
        (0, 0),
        "not due yet"
    );
    assert!(stats.waiting_bytes > 200_000);
    let stats = prune(&repository, 3);
    assert!(stats.freed_bytes > 200_000, "{stats:?}");
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, kept, &[1, 9, 5, 10]);
    let left: u64 = sandbox.objects("data").values().sum();
    assert!(left < 4 * (40 << 10) + 40_000, "{left} bytes are left");

    // Nothing is left to do, and nothing is done.
    let objects = || (sandbox.objects("data"), sandbox.objects("index"));
    let before = objects();
    prune(&repository, 9);
    assert_eq!(objects(), before);
    assert!(sandbox.objects("locks").is_empty());
}

#[test]
fn a_marked_pack_that_is_needed_again_is_taken_back() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let kept = take_noise(&sandbox, &repository, &[1, 2, 3]);
    // A snapshot that a prune does not see: its object comes back after the marks were written.
    let objects = sandbox.objects("snapshots");
    let object = objects.keys().next().unwrap();
    let content = std::fs::read(object).unwrap();
    std::fs::remove_file(object).unwrap();
    assert!(prune(&repository, 2).marked_bytes > 100_000);
    std::fs::write(object, content).unwrap();
    let stats = prune(&repository, 9);
    assert!(stats.recovered_bytes > 100_000, "{stats:?}");
    assert_eq!(stats.freed_bytes, 0);
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, kept, &[1, 2, 3]);
}

#[test]
fn a_snapshot_in_the_making_survives_a_prune() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2, 3]);
    repository.delete(&[gone], &NoProgress).unwrap();
    let local = sandbox.path("disk");
    let mut ingest = repository.ingest(&NoProgress).unwrap();
    let file = ingest.file(&source("m/disk", &local, GRID)).unwrap();
    assert_eq!(file.new_chunks, 0);
    // Another process prunes meanwhile. The packs are as old as if an upload had been given up.
    let stats = prune(&sandbox.open(), 15);
    assert!(stats.marked_bytes > 100_000, "{stats:?}");
    let (id, _) = ingest.commit(&label()).unwrap();
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, id, &[1, 2, 3]);
    prune(&repository, 30);
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, id, &[1, 2, 3]);
}

#[test]
fn a_snapshot_that_appears_while_marks_are_written_is_served_by_the_prune() {
    /// Brings a snapshot's object back when the prune has decided.
    struct Appears(std::path::PathBuf, Vec<u8>);
    impl Progress for Appears {
        fn phase(&self, _: vrs_progress::Phase) {}
        fn add(&self, _: vrs_progress::Counter, _: u64) {}
        fn warn(&self, _: &str) {}
        fn step(&self, step: &'static str) {
            if step == "write index" {
                std::fs::write(&self.0, &self.1).unwrap();
            }
        }
    }
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let id = take_noise(&sandbox, &repository, &[1, 2, 3]);
    let object = sandbox.objects("snapshots").into_keys().next().unwrap();
    let appears = Appears(object.clone(), std::fs::read(&object).unwrap());
    std::fs::remove_file(object).unwrap();
    let stats = repository.prune(&days_later(2), &appears).unwrap();
    assert!(
        stats.marked_bytes > 100_000 && stats.recovered_bytes > 100_000,
        "{stats:?}"
    );
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, id, &[1, 2, 3]);
}

#[test]
fn a_snapshot_whose_data_was_removed_meanwhile_does_not_appear() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2, 3]);
    repository.delete(&[gone], &NoProgress).unwrap();
    let local = sandbox.path("disk");
    let mut ingest = repository.ingest(&NoProgress).unwrap();
    ingest.file(&source("m/disk", &local, GRID)).unwrap();
    let other = sandbox.open();
    other.prune(&days_later(20), &NoProgress).unwrap();
    other.prune(&days_later(22), &NoProgress).unwrap();
    let error = ingest.commit(&label()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(repository.snapshots().unwrap().snapshots.is_empty());
    let id = take_noise(&sandbox, &repository, &[1, 2, 3]);
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, id, &[1, 2, 3]);
}

#[test]
fn packs_of_an_interrupted_take_are_adopted_or_removed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let snapshot = take_noise(&sandbox, &repository, &[1, 2, 3]);
    repository.delete(&[snapshot], &NoProgress).unwrap();
    for index in sandbox.objects("index").into_keys() {
        std::fs::remove_file(index).unwrap();
    }
    let stats = repository
        .prune(&PruneOptions::default(), &NoProgress)
        .unwrap();
    assert!(stats.marked_bytes > 100_000, "{stats:?}");
    // The next take still uses what is marked.
    let local = sandbox.path("disk");
    let taken = take(&repository, &[source("m/disk", &local, GRID)]);
    assert_eq!(taken.files[0].new_chunks, 0);
    assert_sound(&sandbox, &repository);
    repository.delete(&[taken.id], &NoProgress).unwrap();
    for index in sandbox.objects("index").into_keys() {
        std::fs::remove_file(index).unwrap();
    }
    prune(&repository, 0);
    assert!(prune(&repository, 2).freed_bytes > 100_000);
    assert!(sandbox.objects("data").is_empty());
}

#[test]
fn a_damaged_repository_is_not_pruned() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    take_noise(&sandbox, &repository, &[1]);
    let gone = take_noise(&sandbox, &repository, &[2, 3, 4]);
    repository.delete(&[gone], &NoProgress).unwrap();
    let before = sandbox.objects("data");
    // The pack with the first snapshot's chunks.
    let oldest = before
        .keys()
        .min_by_key(|pack| std::fs::metadata(pack).unwrap().modified().unwrap());
    std::fs::remove_file(oldest.unwrap()).unwrap();
    let error = repository.prune(&days_later(2), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("not pruned, because"), "{error}");
    let planned = repository.plan_prune(&days_later(2), &[], &NoProgress);
    assert_eq!(planned.unwrap_err().to_string(), error.to_string());
    assert_eq!(sandbox.objects("data").len(), before.len() - 1);
}

#[test]
fn restic_and_a_prune_keep_away_from_each_other_and_vrs_does_not() {
    struct Looks<'a>(&'a Sandbox);
    impl Progress for Looks<'_> {
        fn phase(&self, _: vrs_progress::Phase) {}
        fn add(&self, _: vrs_progress::Counter, _: u64) {}
        fn warn(&self, _: &str) {}
        fn step(&self, step: &'static str) {
            if step == "write index" {
                let output = std::process::Command::new("restic")
                    .args(["--no-cache", "-r"])
                    .arg(self.0.repository_folder())
                    .arg("check")
                    .env("RESTIC_PASSWORD", PASSWORD)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(text.contains("already locked exclusively"), "{text}");
                let other = self.0.open();
                assert_eq!(
                    other.prune(&days_later(1), &NoProgress).unwrap_err().kind(),
                    ErrorKind::Busy
                );
                take(&other, &[]);
            }
        }
    }
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2]);
    repository.delete(&[gone], &NoProgress).unwrap();
    repository.prune(&days_later(1), &Looks(&sandbox)).unwrap();
    assert_sound(&sandbox, &repository);
}

#[test]
fn restic_may_prune_between_two_prunes() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2, 3, 4]);
    let kept = take_noise(&sandbox, &repository, &[1, 5]);
    repository.delete(&[gone], &NoProgress).unwrap();
    assert!(prune(&repository, 1).marked_bytes > 0);
    let marked = sandbox.objects("data").len();
    sandbox.restic(&["prune"]);
    assert!(sandbox.objects("data").len() < marked);
    assert_sound(&sandbox, &repository);
    // What is gone is not waited for, and not needed.
    let stats = prune(&repository, 3);
    assert_eq!((stats.freed_bytes, stats.waiting_bytes), (0, 0));
    assert_sound(&sandbox, &repository);
    assert_holds(&sandbox, &repository, kept, &[1, 5]);
    let again = take_noise(&sandbox, &repository, &[2, 3]);
    assert_holds(&sandbox, &repository, again, &[2, 3]);
    assert_sound(&sandbox, &repository);
}

#[test]
fn many_small_packs_and_index_files_become_few() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let local = sandbox.path("disk");
    let mut ids = Vec::new();
    for seed in 0..60 {
        std::fs::write(&local, noise(seed, 2000)).unwrap();
        ids.push(take(&repository, &[source("m/disk", &local, GRID)]).id);
    }
    assert!(sandbox.objects("index").len() >= 60);
    prune(&repository, 1);
    prune(&repository, 3);
    assert!(sandbox.objects("index").len() < 10);
    assert!(
        sandbox.objects("data").len() < 20,
        "{}",
        sandbox.objects("data").len()
    );
    assert_sound(&sandbox, &repository);
    let out = sandbox.path("out");
    for (seed, id) in (0..).zip(ids) {
        restore(&repository, &request(id, &[("m/disk", &out)]));
        assert!(std::fs::read(&out).unwrap() == noise(seed, 2000));
    }
}

#[test]
fn a_prune_killed_at_any_step_costs_nothing() {
    let folder_of = |scene: &std::path::Path| {
        let mut sandbox = Sandbox::new();
        sandbox.scene = Some(scene.to_path_buf());
        sandbox
    };
    let crashes = run_at_every_step(
        "a_prune_killed_at_any_step_costs_nothing",
        |scene| {
            let sandbox = folder_of(scene);
            vrs_testkit::make_repository(&sandbox.repository_folder());
            let repository = sandbox.open();
            take_noise(&sandbox, &repository, &[20, 21]);
            let first = repository.snapshots().unwrap().snapshots[0].id;
            repository.delete(&[first], &NoProgress).unwrap();
            prune(&repository, 1);
            let gone = take_noise(&sandbox, &repository, &[1, 2, 3, 4, 5, 6]);
            take_noise(&sandbox, &repository, &[1, 9, 5]);
            repository.delete(&[gone], &NoProgress).unwrap();
        },
        |scene, progress| {
            let sandbox = folder_of(scene);
            sandbox.open().prune(&days_later(3), progress).unwrap();
        },
        |scene, crash| {
            let sandbox = folder_of(scene);
            let repository = sandbox.open();
            let kept = repository.snapshots().unwrap().snapshots[0].id;
            let report = check(&repository);
            assert_eq!(report.errors, Vec::<String>::new(), "{crash:?}");
            assert_holds(&sandbox, &repository, kept, &[1, 9, 5]);
            prune(&repository, 3);
            prune(&repository, 6);
            assert_sound(&sandbox, &repository);
            assert_holds(&sandbox, &repository, kept, &[1, 9, 5]);
            let left: u64 = sandbox.objects("data").values().sum();
            assert!(
                left < 3 * (40 << 10) + 40_000,
                "{crash:?}: {left} bytes are left"
            );
        },
    );
    let steps: std::collections::BTreeSet<&str> =
        crashes.iter().map(|crash| crash.step.as_str()).collect();
    for step in ["remove pack", "write pack", "write index", "remove index"] {
        assert!(steps.contains(step), "{steps:?}");
    }
}

#[test]
fn a_prune_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let gone = take_noise(&sandbox, &repository, &[1, 2, 3]);
    repository.delete(&[gone], &NoProgress).unwrap();
    let recorder = Recorder::default();
    recorder
        .stop
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let error = repository.prune(&days_later(1), &recorder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(sandbox.objects("locks").is_empty());
}

mod model {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Take(Vec<u64>),
        Delete(usize),
        Prune(i64),
        /// Killed, or as good as: interrupted at this step.
        Cut(i64, usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => prop::collection::vec(0_u64..12, 1..5).prop_map(Act::Take),
            2 => any::<usize>().prop_map(Act::Delete),
            2 => (0_i64..4).prop_map(Act::Prune),
            2 => ((0_i64..4), (1_usize..14)).prop_map(|(days, step)| Act::Cut(days, step)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_every_kept_snapshot_is_whole(acts in prop::collection::vec(act(), 4..16)) {
            let sandbox = Sandbox::new();
            let repository = sandbox.open();
            let mut model: BTreeMap<SnapshotId, Vec<u64>> = BTreeMap::new();
            let mut passed = 0;
            for act in acts {
                match act {
                    Act::Take(seeds) => {
                        model.insert(take_noise(&sandbox, &repository, &seeds), seeds);
                    }
                    Act::Delete(number) => {
                        let Some(id) = model.keys().nth(number % model.len().max(1)).copied() else { continue };
                        repository.delete(&[id], &NoProgress).unwrap();
                        model.remove(&id);
                    }
                    Act::Prune(days) => {
                        passed += days;
                        prune(&repository, passed);
                    }
                    Act::Cut(days, step) => {
                        passed += days;
                        let cut = StopsAt::step(step);
                        if let Err(error) = repository.prune(&days_later(passed), &cut) {
                            prop_assert_eq!(error.kind(), ErrorKind::Interrupted);
                        }
                    }
                }
                let listed = repository.snapshots().unwrap().snapshots;
                prop_assert_eq!(listed.len(), model.len());
            }
            for (id, seeds) in &model {
                assert_holds(&sandbox, &repository, *id, seeds);
            }
            prop_assert_eq!(check(&repository).errors, Vec::<String>::new());
            restic_is_content(&sandbox);
        }
    }
}
