//! Copies in a second repository.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::id::SnapshotId;
use vrs_repository::{Copied, InitOptions, ResticRepository, SnapshotStore};

/// A repository with another master key, so that chunks cannot just be moved.
fn other() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.scene = Some(sandbox.folder.path().join("other"));
    std::fs::create_dir_all(sandbox.path("")).unwrap();
    ResticRepository::init(&sandbox.location(), &password(), &InitOptions::default()).unwrap();
    sandbox
}

fn copy(from: &ResticRepository, to: &ResticRepository, ids: &[SnapshotId]) -> Vec<Copied> {
    let mut all = Vec::new();
    to.copy_from(from, ids, &NoProgress, |_, copied| all.push(copied))
        .unwrap();
    all
}

#[test]
fn copies_are_incremental_and_equal() {
    let sandbox = Sandbox::new();
    let second = other();
    let (from, to) = (sandbox.open(), second.open());
    let local = sandbox.write("disk", &noise(1, 300_000));
    let first = take(&from, &[source("m/disk", &local, GRID)]).id;
    let one = copy(&from, &to, &[first])[0];
    assert!(one.is_new && one.sent_bytes > 300_000, "{one:?}");

    let mut changed = noise(1, 300_000);
    changed[100_000] ^= 1;
    std::fs::write(&local, &changed).unwrap();
    let next = take(&from, &[source("m/disk", &local, GRID)]).id;
    let both = copy(&from, &to, &[first, next]);
    assert_eq!((both[0].is_new, both[0].id), (false, one.id));
    assert!(both[1].is_new && both[1].sent_bytes < 40_000, "{both:?}");
    assert_eq!(to.snapshots().unwrap().snapshots.len(), 2);

    let out = second.path("out");
    restore(&to, &request(both[1].id, &[("m/disk", &out)]));
    assert!(std::fs::read(out).unwrap() == changed);
    assert_eq!(check(&to).errors, Vec::<String>::new());
    second.restic(&["check", "--read-data"]);
    // A copy of a copy comes from the same snapshot.
    assert!(
        copy(&to, &from, &[one.id])
            .iter()
            .all(|copied| !copied.is_new)
    );
    let error = from
        .copy_from(&sandbox.open(), &[first], &NoProgress, |_, _| {})
        .unwrap_err();
    assert!(error.to_string().contains("to itself"), "{error}");
}

#[test]
fn a_copy_that_was_interrupted_is_continued() {
    let sandbox = Sandbox::new();
    let second = other();
    let (from, to) = (sandbox.open(), second.open());
    let local = sandbox.write("disk", &noise(1, 300_000));
    let id = take(&from, &[source("m/disk", &local, GRID)]).id;
    let stops = StopsAt::step(4);
    assert!(to.copy_from(&from, &[id], &stops, |_, _| {}).is_err());
    assert!(to.snapshots().unwrap().snapshots.is_empty());
    let copied = copy(&from, &to, &[id])[0];
    assert!(copied.sent_bytes < 250_000, "{copied:?}");
    assert_eq!(check(&to).errors, Vec::<String>::new());
}
