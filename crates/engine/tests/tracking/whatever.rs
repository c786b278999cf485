//! Whatever happens between two takes, what is stored is what a scan stores.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vrs_testkit::LoopDisk;

use crate::common::Scene;
use crate::story::{Story, event};

/// What happens between two takes, some times, with two repositories.
fn whatever_happens(kind: &str, mount: &str, cases: u32) {
    let disk = LoopDisk::mount(kind, mount);
    let scene = Scene::with_repository(disk.path());
    whatever_happens_in(&scene, cases);
}

fn whatever_happens_in(scene: &Scene, cases: u32) {
    let elsewhere = scene.elsewhere();
    let config = Config {
        cases,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..Config::default()
    };
    let takes = prop::collection::vec(prop::collection::vec(event(), 0..4), 1..5);
    TestRunner::new(config)
        .run(&takes, |takes| {
            let mut story = Story {
                elsewhere: Some(&elsewhere),
                touches: false,
                ..Story::new(scene)
            };
            story.assert_taken_right();
            for events in takes {
                events.iter().for_each(|event| story.happens(event));
                story.assert_taken_right();
            }
            story.take_away();
            Ok(())
        })
        .unwrap();
}

#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_btrfs() {
    whatever_happens("btrfs", "", 6);
}

#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_xfs() {
    whatever_happens("xfs", "", 6);
}

/// What the cache of hashes says about chunks that were not read stays true.
#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_with_a_scan_cache() {
    let disk = LoopDisk::mount("xfs", "");
    let scene = Scene::with_repository(disk.path()).with_cache();
    whatever_happens_in(&scene, 3);
}

/// Compressed extents prove nothing.
#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_compressed_btrfs() {
    whatever_happens("btrfs", "compress-force=zstd", 2);
}
