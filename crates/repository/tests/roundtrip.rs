//! What was stored comes back, also through stock restic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use common::*;
use vrs_repository::SnapshotStore;
use vrs_repository::store::{Chunking, read_to_vec};

/// Noise, zeros and repetitions, like a disk.
fn disk(seed: u64) -> Vec<u8> {
    [
        noise(seed, 100_000),
        vec![0; 50_000],
        noise(seed, 30_000),
        b"text ".repeat(9_000),
        noise(seed + 1, 70_001),
    ]
    .concat()
}

#[test]
fn stock_restic_checks_lists_and_restores_a_snapshot() {
    let sandbox = Sandbox::new();
    let disk = disk(1);
    let state = noise(9, 300_000);
    let disk_path = sandbox.write("vm/disk \"ü\".vdi", &disk);
    let state_path = sandbox.write("vm/state.sav", &state);
    let empty_path = sandbox.write("vm/empty", b"");
    let taken = take(
        &sandbox.open(),
        &[
            source("m/disk \"ü\".vdi", &disk_path, GRID),
            source(
                "m/Snapshots/state.sav",
                &state_path,
                Chunking::ContentDefined {
                    average_bytes: 16 << 10,
                },
            ),
            source("m/-empty\n", &empty_path, Chunking::Whole),
        ],
    );
    assert!(
        sandbox
            .restic(&["check", "--read-data"])
            .contains("no errors were found")
    );
    let listed = sandbox.restic(&["snapshots", "--json"]);
    assert!(
        listed.contains(&taken.id.to_string()) && listed.contains("\"machine=1\""),
        "{listed}"
    );
    let target = sandbox.path("out");
    sandbox.restic(&[
        "restore",
        &taken.id.to_string(),
        "--target",
        target.to_str().unwrap(),
    ]);
    assert!(std::fs::read(target.join("m/disk \"ü\".vdi")).unwrap() == disk);
    assert!(std::fs::read(target.join("m/Snapshots/state.sav")).unwrap() == state);
    assert_eq!(std::fs::read(target.join("m/-empty\n")).unwrap(), b"");
    assert_eq!(
        std::fs::read(target.join("vrs/manifest.json")).unwrap(),
        b"{}"
    );
    let times = [disk_path, target.join("m/disk \"ü\".vdi")]
        .map(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    assert_eq!(times[0], times[1]);
}

#[test]
fn a_repository_made_by_stock_restic_can_be_used() {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.repository_folder()).unwrap();
    sandbox.restic(&["init", "--repository-version", "2"]);
    let content = disk(2);
    let local = sandbox.write("disk", &content);
    sandbox.restic(&["backup", local.to_str().unwrap()]);
    let repository = sandbox.open();
    let snapshot = repository.snapshots().unwrap().snapshots[0].id;
    let files = repository.files(&snapshot).unwrap();
    assert_eq!(files.len(), 1);
    let mut reader = repository.open_file(&snapshot, &files[0].path).unwrap();
    assert!(read_to_vec(&mut *reader, u64::MAX).unwrap() == content);
    drop(reader);
    take(&repository, &[source("disk", &local, GRID)]);
    assert!(
        sandbox
            .restic(&["check", "--read-data"])
            .contains("no errors were found")
    );
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[test]
fn the_list_and_the_files_tell_what_was_stored() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &disk(3));
    let repository = sandbox.open();
    let taken = take(&repository, &[source("m/disk", &local, GRID)]);
    let list = repository.snapshots().unwrap();
    assert_eq!(list.unreadable, Vec::<String>::new());
    let record = &list.snapshots[0];
    assert_eq!(
        (record.id, record.time, record.hostname.as_str()),
        (taken.id, label().time, "host")
    );
    assert_eq!(record.tags, ["machine=1", "vrs"]);
    assert_eq!(record.description, label().description);
    assert_eq!(record.size_bytes, Some(taken.stats.total_bytes));
    let files = repository.files(&taken.id).unwrap();
    assert_eq!(
        files
            .iter()
            .map(|file| file.path.as_str())
            .collect::<Vec<_>>(),
        ["m/disk", "vrs/manifest.json"]
    );
    assert_eq!(files[0].stamp, Some(taken.files[0].stamp));
    assert_eq!(files[1].stamp, None);
}

#[test]
fn any_range_of_a_stored_file_can_be_read() {
    let sandbox = Sandbox::new();
    let content = disk(4);
    let local = sandbox.write("disk", &content);
    let repository = sandbox.open();
    let taken = take(&repository, &[source("disk", &local, GRID)]);
    let mut reader = repository.open_file(&taken.id, &path("disk")).unwrap();
    for (offset, length) in [
        (0, 1),
        (511, 2),
        (4000, 10_000),
        (content.len() - 1, 1),
        (content.len(), 0),
        (99_990, 60_000),
    ] {
        let mut buffer = vec![1; length];
        reader.read_at(offset as u64, &mut buffer).unwrap();
        assert!(
            buffer == content[offset..offset + length],
            "{length} bytes at {offset}"
        );
    }
    let error = reader.read_at(content.len() as u64, &mut [0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read 1 bytes at offset 295001 of disk: it has only 295001 bytes"
    );
}

/// Chunks of the largest size, more of them than the reader keeps.
#[test]
fn a_file_larger_than_the_cache_is_read_in_small_steps() {
    let sandbox = Sandbox::new();
    let content = noise(1, 41 << 20);
    let local = sandbox.write("large", &content);
    let repository = sandbox.open();
    let taken = take(&repository, &[source("large", &local, Chunking::Whole)]);
    let mut reader = repository.open_file(&taken.id, &path("large")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for (number, expected) in content.chunks(buffer.len()).enumerate() {
        reader.read_at((number << 20) as u64, &mut buffer).unwrap();
        assert!(buffer == expected, "step {number}");
    }
}

#[test]
fn a_deleted_snapshot_is_gone_and_the_other_one_complete() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let local = sandbox.write("disk", &disk(5));
    let first = take(&repository, &[source("disk", &local, GRID)]);
    let local = sandbox.write("disk", &disk(6));
    let second = take(&repository, &[source("disk", &local, GRID)]);
    repository
        .delete(&[first.id], &vrs_progress::NoProgress)
        .unwrap();
    let left: Vec<_> = repository
        .snapshots()
        .unwrap()
        .snapshots
        .iter()
        .map(|record| record.id)
        .collect();
    assert_eq!(left, [second.id]);
    let error = repository
        .delete(&[first.id], &vrs_progress::NoProgress)
        .unwrap_err();
    assert_eq!(error.kind(), vrs_repository::ErrorKind::NotFound);
    sandbox.restic(&["prune"]);
    let out = sandbox.path("out");
    restore(&repository, &request(second.id, &[("disk", &out)]));
    assert!(std::fs::read(out).unwrap() == disk(6));
}
