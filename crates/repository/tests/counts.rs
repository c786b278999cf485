//! How much is read, sent and fetched: counted, because times prove nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::sync::atomic::Ordering;

use common::*;
use vrs_repository::SnapshotStore;
use vrs_repository::store::{FileSource, PreviousFile, TreePath};

const CHUNK: u64 = 4096;
const SIZE: usize = 512 + 200 * 4096;

#[allow(clippy::single_range_in_vec_init)]
fn vouched(source: FileSource, taken: &Taken, unchanged: Vec<std::ops::Range<u64>>) -> FileSource {
    let previous = PreviousFile {
        snapshot: taken.id,
        path: source.path.clone(),
        unchanged,
    };
    FileSource {
        previous: Some(previous),
        ..source
    }
}

#[test]
fn an_unchanged_file_is_not_read_and_nothing_but_the_snapshot_is_sent() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, SIZE));
    let repository = sandbox.open();
    let first = take(&repository, &[source("m/disk", &local, GRID)]);
    let mut whole = vouched(source("m/disk", &local, GRID), &first, Vec::new());
    whole
        .previous
        .as_mut()
        .unwrap()
        .unchanged
        .push(0..SIZE as u64);
    // Proof that it is not read: there is something else in it now.
    std::fs::write(&local, noise(2, SIZE)).unwrap();
    let second = take(&repository, &[whole]);
    assert_eq!(
        (second.files[0].read_bytes, second.files[0].reused_bytes),
        (0, SIZE as u64)
    );
    assert_eq!(second.stats.objects["snapshot"], 1);
    assert!(second.stats.objects["pack"] <= 1, "{:?}", second.stats);
    let out = sandbox.path("out");
    restore(&repository, &request(second.id, &[("m/disk", &out)]));
    assert!(std::fs::read(out).unwrap() == noise(1, SIZE));
}

#[test]
fn a_file_read_again_sends_nothing() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, SIZE));
    let repository = sandbox.open();
    take(&repository, &[source("m/disk", &local, GRID)]);
    let again = take(&repository, &[source("m/disk", &local, GRID)]);
    assert_eq!(
        (again.files[0].read_bytes, again.files[0].new_chunks),
        (SIZE as u64, 0)
    );
    assert_eq!(
        again.stats.objects,
        [("index", 0), ("pack", 0), ("snapshot", 1)].into()
    );
}

#[test]
fn a_small_change_sends_its_chunk_and_a_fixed_number_of_objects() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, SIZE));
    let repository = sandbox.open();
    let first = take(&repository, &[source("m/disk", &local, GRID)]);
    let mut changed = noise(1, SIZE);
    changed[100_000] ^= 1;
    std::fs::write(&local, &changed).unwrap();
    let source = vouched(
        source("m/disk", &local, GRID),
        &first,
        vec![0..100_000, 100_001..SIZE as u64],
    );
    let second = take(&repository, &[source]);
    assert_eq!(
        (second.files[0].read_bytes, second.files[0].new_chunks),
        (CHUNK, 1)
    );
    assert_eq!(
        second.stats.objects,
        [("index", 1), ("pack", 2), ("snapshot", 1)].into()
    );
    // One more chunk list of 200 chunks, but no other chunk.
    assert!(
        second.stats.sent_bytes < CHUNK + 24_000,
        "{:?}",
        second.stats
    );

    std::fs::write(&local, noise(1, SIZE)).unwrap();
    let recorder = Recorder::default();
    let stats = repository
        .restore(&request(second.id, &[("m/disk", &local)]), &recorder)
        .unwrap();
    assert_eq!((stats.fetched_chunks, stats.fetched_bytes), (1, CHUNK));
    assert!(recorder.fetched.load(Ordering::Relaxed) < CHUNK + 64);
    assert_eq!(recorder.count("write target"), 1);
    assert!(std::fs::read(&local).unwrap() == changed);
}

#[test]
fn zeros_are_stored_once_and_holes_are_not_read() {
    let sandbox = Sandbox::new();
    let local = sandbox.path("disk");
    let length = 64 << 20;
    std::fs::File::create(&local)
        .unwrap()
        .set_len(length)
        .unwrap();
    let taken = take(&sandbox.open(), &[source("disk", &local, GRID)]);
    assert_eq!(
        taken.files[0].new_chunks, 3,
        "the first, a whole and the last one"
    );
    if cfg!(target_os = "linux") {
        assert_eq!(taken.files[0].read_bytes, 0);
    }
}

#[test]
fn a_file_stored_under_two_names_is_sent_once() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, SIZE));
    let taken = take(
        &sandbox.open(),
        &[source("a", &local, GRID), source("b", &local, GRID)],
    );
    assert_eq!(
        (taken.files[0].new_chunks, taken.files[1].new_chunks),
        (201, 0)
    );
}

#[test]
fn changed_bytes_are_those_of_chunks_that_the_old_file_has_nowhere() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, SIZE));
    let repository = sandbox.open();
    let old = take(&repository, &[source("m/disk", &local, GRID)]);
    let mut changed = noise(1, SIZE);
    changed[100_000] ^= 1;
    // Moved, not new.
    changed.copy_within(512..512 + 4096, 512 + 100 * 4096);
    std::fs::write(&local, &changed).unwrap();
    let new = take(&repository, &[source("m/disk", &local, GRID)]);
    let path = TreePath::new("m/disk").unwrap();
    let bytes = |old: &Taken, new: &Taken| {
        repository
            .changed_bytes((&old.id, &path), (&new.id, &path))
            .unwrap()
    };
    assert_eq!(bytes(&old, &new), CHUNK);
    assert_eq!(bytes(&new, &old), 2 * CHUNK);
    assert_eq!(bytes(&new, &new), 0);
}
