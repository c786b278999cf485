//! Restoring in place over whatever is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use common::*;
use proptest::prelude::*;
use vrs_progress::NoProgress;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{
    Chunking, FileStamp, KnownFile, RestoreRequest, RestoreStats, SeedFile,
};
use vrs_repository::{ErrorKind, ResticRepository, SnapshotStore};

const BLOCK: usize = 4096;

/// One repository for all cases, because opening one costs a third of a second.
fn shared() -> &'static (Sandbox, ResticRepository) {
    static SHARED: OnceLock<(Sandbox, ResticRepository)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let sandbox = Sandbox::new();
        let repository = sandbox.open();
        (sandbox, repository)
    })
}

/// A file made of numbered blocks, 0 being zeros, behind a head of 512 bytes.
fn file_of(blocks: &[u8], tail: usize) -> Vec<u8> {
    let mut content = noise(1000, 512);
    for block in blocks {
        content.extend(if *block == 0 {
            vec![0; BLOCK]
        } else {
            noise((*block).into(), BLOCK)
        });
    }
    content.extend(noise(2000, tail));
    content
}

fn sum(stats: &RestoreStats) -> u64 {
    stats.in_place_bytes + stats.local_bytes + stats.zero_bytes + stats.fetched_bytes
}

/// A file as it is now, said to be what a snapshot has.
fn known_by(file: &Path, snapshot: SnapshotId, name: &str) -> KnownFile {
    KnownFile {
        stamp: FileStamp::of(file).unwrap(),
        snapshot,
        path: path(name),
    }
}

/// Restores, and proves the plan, the bytes and that a second run does nothing.
fn restore_and_prove(
    repository: &ResticRepository,
    request: &RestoreRequest,
    wanted: &[Vec<u8>],
) -> RestoreStats {
    let plan = repository.plan_restore(request, &NoProgress).unwrap();
    let stats = restore(repository, request);
    assert_eq!(stats, plan);
    assert_eq!(sum(&stats), stats.total_bytes);
    for (file, wanted) in request.files.iter().zip(wanted) {
        assert!(
            std::fs::read(&file.target).unwrap() == *wanted,
            "{} differs",
            file.target.display()
        );
    }
    let recorder = Recorder::default();
    let again = repository.restore(request, &recorder).unwrap();
    assert_eq!(
        again.in_place_bytes + again.zero_bytes,
        again.total_bytes,
        "{again:?}"
    );
    assert_eq!(recorder.steps.lock().unwrap().as_slice(), &[] as &[&str]);
    stats
}

fn put(path: &Path, content: Option<Vec<u8>>) {
    match content {
        Some(content) => std::fs::write(path, content).unwrap(),
        None => std::fs::remove_file(path).unwrap_or_default(),
    }
}

fn blocks() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..12, 0..40)
}

/// What a target may hold: nothing, or blocks in another order, moved by some bytes.
fn other_state() -> impl Strategy<Value = Option<Vec<u8>>> {
    let content = (
        blocks(),
        0_usize..600,
        prop::sample::select(vec![0, 512, 700, BLOCK]),
    );
    prop::option::of(
        content.prop_map(|(blocks, tail, shift)| {
            [noise(3000, shift), file_of(&blocks, tail)].concat()
        }),
    )
}

fn chunking() -> impl Strategy<Value = Chunking> {
    prop_oneof![
        Just(GRID),
        Just(Chunking::ContentDefined {
            average_bytes: 1024
        }),
        Just(Chunking::Whole),
        Just(Chunking::Grid {
            chunk_bytes: 1024,
            phase_bytes: 0
        })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_state_becomes_the_stored_one(
        one in blocks(),
        other in blocks(),
        tail in 0_usize..600,
        cut in chunking(),
        former in prop::option::of(chunking()),
        present in other_state(),
        present_other in other_state(),
        seed in blocks(),
    ) {
        let (sandbox, repository) = shared();
        let wanted = [file_of(&one, tail), file_of(&other, 0)];
        let (first, second) = (sandbox.write("a", &wanted[0]), sandbox.write("b", &wanted[1]));
        let taken = take(repository, &[source("a", &first, cut), source("m/b", &second, GRID)]);
        put(&first, present);
        put(&second, present_other);
        let mut request = request(taken.id, &[("a", &first), ("m/b", &second)]);
        request.files[0].local_chunking = former;
        request.seeds = vec![
            SeedFile { local: sandbox.write("seed", &file_of(&seed, 9)), chunking: GRID, known: None },
            SeedFile { local: second.clone(), chunking: cut, known: None },
            SeedFile { local: sandbox.path("absent"), chunking: GRID, known: None },
        ];
        restore_and_prove(repository, &request, &wanted);
    }

    /// Copying in the right order needs nothing from the repository.
    #[test]
    fn blocks_in_another_order_are_moved_and_not_fetched(order in Just((1_u8..60).collect::<Vec<_>>()).prop_shuffle()) {
        let (sandbox, repository) = shared();
        let wanted = file_of(&(1_u8..60).collect::<Vec<_>>(), 100);
        let local = sandbox.write("shuffled", &wanted);
        let taken = take(repository, &[source("disk", &local, GRID)]);
        std::fs::write(&local, file_of(&order, 100)).unwrap();
        let stats = restore_and_prove(repository, &request(taken.id, &[("disk", &local)]), &[wanted]);
        prop_assert_eq!(stats.fetched_bytes, 0);
    }
}

#[test]
fn a_disk_shifted_by_one_block_is_moved_in_place() {
    let (sandbox, repository) = shared();
    let blocks: Vec<u8> = (1..200).collect();
    for (name, local_blocks) in [
        ("up", [&[250], &blocks[..]].concat()),
        ("down", blocks[1..].to_vec()),
    ] {
        let wanted = file_of(&blocks, 0);
        let local = sandbox.write(name, &wanted);
        let taken = take(repository, &[source("disk", &local, GRID)]);
        std::fs::write(&local, file_of(&local_blocks, 0)).unwrap();
        let mut request = request(taken.id, &[("disk", &local)]);
        request.files[0].local_chunking = Some(GRID);
        let stats = restore_and_prove(repository, &request, &[wanted]);
        assert!(stats.fetched_chunks <= 1, "{name}: {stats:?}");
    }
}

#[test]
fn chunks_come_from_another_target_and_from_a_seed() {
    let (sandbox, repository) = shared();
    let (left, right) = (file_of(&[1, 2, 3], 0), file_of(&[4, 5, 6], 0));
    let (one, other) = (sandbox.write("left", &left), sandbox.write("right", &right));
    let taken = take(
        repository,
        &[source("one", &one, GRID), source("other", &other, GRID)],
    );
    // The two have changed places, and a third copy lies elsewhere.
    std::fs::write(&one, &right).unwrap();
    std::fs::write(&other, &left).unwrap();
    let exchanged = restore_and_prove(
        repository,
        &request(taken.id, &[("one", &one), ("other", &other)]),
        &[left.clone(), right.clone()],
    );
    assert_eq!(exchanged.fetched_bytes, 0);
    let fresh = sandbox.path("fresh");
    let mut from_seed = request(taken.id, &[("one", &fresh)]);
    from_seed.seeds = vec![SeedFile {
        local: one,
        chunking: GRID,
        known: None,
    }];
    assert_eq!(
        restore_and_prove(repository, &from_seed, &[left]).fetched_bytes,
        0
    );
}

/// A saved state is searched in parts, by several threads: chunks at their borders are found as well.
#[test]
fn a_file_that_is_not_there_is_filled_with_what_is_found() {
    let (sandbox, repository) = shared();
    let cut = Chunking::ContentDefined {
        average_bytes: 16 << 10,
    };
    let (former, present) = (sandbox.path("former.sav"), sandbox.path("present.sav"));
    let wanted = noise(77, 70 << 20);
    std::fs::write(&former, &wanted).unwrap();
    let taken = take(repository, &[source("m/1.sav", &former, cut)]);
    let shifted = [&noise(78, 12_345)[..], &wanted].concat();
    std::fs::write(&present, &shifted).unwrap();
    std::fs::remove_file(&former).unwrap();
    let mut request = request(taken.id, &[("m/1.sav", &former)]);
    request.seeds = vec![SeedFile {
        local: present,
        chunking: cut,
        known: None,
    }];
    // As a command does, which reads the index of now.
    let repository = &sandbox.open();
    let recorder = Recorder::default();
    let stats = repository.restore(&request, &recorder).unwrap();
    assert!(std::fs::read(&former).unwrap() == wanted);
    assert!(stats.fetched_chunks <= 1, "{stats:?}");
    // What was found is not read once more to be copied.
    let dealt_with = recorder.scanned.load(Ordering::Relaxed);
    assert_eq!(dealt_with, shifted.len() as u64 + stats.fetched_bytes);
}

#[test]
fn a_file_whose_content_is_known_is_read_only_where_something_is_moved() {
    let (sandbox, repository) = shared();
    let blocks: Vec<u8> = (1..60).collect();
    let mut later = blocks.clone();
    later[7] = 200;
    later.swap(20, 40);
    let (wanted, present) = (file_of(&blocks, 9), file_of(&later, 9));
    let file = sandbox.write("known", &wanted);
    let first = take(repository, &[source("known", &file, GRID)]);
    std::fs::write(&file, &present).unwrap();
    let second = take(repository, &[source("known", &file, GRID)]);
    // As a command does, which reads the index of now.
    let repository = &sandbox.open();
    let known = |snapshot| {
        let mut request = request(first.id, &[("known", &file)]);
        request.files[0].known = Some(known_by(&file, snapshot, "known"));
        request
    };
    let recorder = Recorder::default();
    let plan = repository
        .plan_restore(&known(second.id), &recorder)
        .unwrap();
    assert_eq!(recorder.scanned.load(Ordering::Relaxed), 0);
    let stats = repository.restore(&known(second.id), &recorder).unwrap();
    assert_eq!(stats, plan);
    assert_eq!(stats.fetched_chunks, 1, "{stats:?}");
    assert_eq!(stats.local_bytes, 2 * BLOCK as u64, "{stats:?}");
    // What is written counts, and nothing else was looked at.
    let written = stats.local_bytes + stats.fetched_bytes;
    assert_eq!(recorder.scanned.load(Ordering::Relaxed), written);
    assert!(std::fs::read(&file).unwrap() == wanted);
    // A snapshot that is gone says nothing, nor does one whose file has another length.
    let gone = SnapshotId::from_bytes([7; 32]);
    std::fs::write(&file, &present).unwrap();
    restore(repository, &known(gone));
    assert!(std::fs::read(&file).unwrap() == wanted);
    std::fs::write(&file, &present[..5 * BLOCK]).unwrap();
    restore(repository, &known(second.id));
    assert!(std::fs::read(&file).unwrap() == wanted);
    // One that has changed since is read.
    std::fs::write(&file, &present).unwrap();
    let outdated = known(second.id);
    let mut other = present;
    other[30 * BLOCK] ^= 1;
    std::fs::write(&file, &other).unwrap();
    restore(repository, &outdated);
    assert!(std::fs::read(&file).unwrap() == wanted);
}

/// As a file that rots, which leaves no trace in its times.
#[test]
fn what_does_not_lie_where_it_should_is_fetched() {
    let (sandbox, repository) = shared();
    let blocks: Vec<u8> = (60..120).collect();
    let mut moved = blocks.clone();
    moved.rotate_left(7);
    let (wanted, present) = (file_of(&blocks, 9), file_of(&moved, 9));
    let file = sandbox.write("rotten", &wanted);
    let first = take(repository, &[source("rotten", &file, GRID)]);
    std::fs::write(&file, &present).unwrap();
    let second = take(repository, &[source("rotten", &file, GRID)]);
    let repository = &sandbox.open();
    let mut rotten = present;
    let offset = 512 + 30 * BLOCK;
    rotten[offset] ^= 1;
    std::fs::write(&file, &rotten).unwrap();
    let known = || Some(known_by(&file, second.id, "rotten"));
    let fresh = sandbox.path("from rotten");
    let mut beside = request(first.id, &[("rotten", &fresh)]);
    beside.seeds = vec![SeedFile {
        local: file.clone(),
        chunking: GRID,
        known: known(),
    }];
    let mut over = request(first.id, &[("rotten", &file)]);
    over.files[0].known = known();
    for (request, target) in [(beside, &fresh), (over, &file)] {
        let plan = repository.plan_restore(&request, &NoProgress).unwrap();
        assert_eq!(plan.fetched_chunks, 0, "{plan:?}");
        let stats = repository.restore(&request, &NoProgress).unwrap();
        assert_eq!(stats.fetched_chunks, 1, "{stats:?}");
        assert_eq!(stats.fetched_bytes, BLOCK as u64, "{stats:?}");
        assert_eq!(sum(&stats), sum(&plan), "{stats:?}");
        assert!(std::fs::read(target).unwrap() == wanted);
    }
}

/// Small chunks in another order all over a file that was read just before, so that writing past the page cache, copying
/// in the file and reading it meet everywhere.
#[test]
fn a_file_reads_as_restored_although_it_was_in_the_page_cache() {
    let (sandbox, repository) = shared();
    let cut = Chunking::Grid {
        chunk_bytes: BLOCK as u32,
        phase_bytes: 0,
    };
    let blocks: Vec<Vec<u8>> = (0..3000).map(|seed| noise(5000 + seed, BLOCK)).collect();
    let wanted = blocks.concat();
    let file = sandbox.write("in the cache", &wanted);
    let taken = take(repository, &[source("disk", &file, cut)]);
    for tail in [0, 1, BLOCK] {
        let order = (0..blocks.len()).map(|at| &blocks[at * 7 % blocks.len()]);
        let some = order.enumerate().map(|(at, block)| {
            let is_lost = at % 3 == 0;
            if is_lost {
                noise(9000 + at as u64, BLOCK)
            } else {
                block.clone()
            }
        });
        let mut present = some.collect::<Vec<_>>().concat();
        present.extend(noise(4, tail));
        std::fs::write(&file, &present).unwrap();
        assert!(std::fs::read(&file).unwrap() == present);
        let restored = restore_and_prove(
            repository,
            &request(taken.id, &[("disk", &file)]),
            std::slice::from_ref(&wanted),
        );
        assert!(
            restored.local_bytes > 0 && restored.fetched_bytes > 0,
            "{restored:?}"
        );
    }
}

#[test]
fn zeros_become_holes() {
    let (sandbox, repository) = shared();
    let wanted = [noise(1, 4096), vec![0; 8 << 20], noise(2, 4096)].concat();
    let local = sandbox.write("sparse", &wanted);
    let cut = Chunking::Grid {
        chunk_bytes: 64 << 10,
        phase_bytes: 0,
    };
    let taken = take(repository, &[source("disk", &local, cut)]);
    for present in [None, Some(noise(3, wanted.len())), Some(noise(3, 5 << 20))] {
        put(&local, present);
        restore_and_prove(
            repository,
            &request(taken.id, &[("disk", &local)]),
            std::slice::from_ref(&wanted),
        );
        let stored =
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&local).unwrap()) * 512;
        assert!(
            stored < 1 << 20,
            "{stored} bytes of {} are allocated",
            wanted.len()
        );
    }
}

#[test]
fn the_modification_time_comes_back_and_new_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (sandbox, repository) = shared();
    let local = sandbox.write("dated", b"content");
    std::fs::set_permissions(&local, std::fs::Permissions::from_mode(0o600)).unwrap();
    let modified = std::fs::metadata(&local).unwrap().modified().unwrap();
    let taken = take(repository, &[source("dated", &local, Chunking::Whole)]);
    std::fs::write(&local, b"changed").unwrap();
    restore(repository, &request(taken.id, &[("dated", &local)]));
    assert_eq!(
        std::fs::metadata(&local).unwrap().modified().unwrap(),
        modified
    );
    std::fs::remove_file(&local).unwrap();
    restore(repository, &request(taken.id, &[("dated", &local)]));
    let metadata = std::fs::metadata(&local).unwrap();
    assert_eq!(
        (
            metadata.modified().unwrap(),
            metadata.permissions().mode() & 0o777
        ),
        (modified, 0o600)
    );
}

#[test]
fn only_regular_files_are_written_to() {
    let (sandbox, repository) = shared();
    let local = sandbox.write("victim", b"content");
    let taken = take(repository, &[source("f", &local, Chunking::Whole)]);
    let link = sandbox.path("link");
    std::os::unix::fs::symlink(&local, &link).unwrap();
    let folder = sandbox.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for (target, found) in [(&link, "symbolic link"), (&folder, "folder")] {
        let error = repository
            .restore(&request(taken.id, &[("f", target)]), &NoProgress)
            .unwrap_err();
        let expected = format!(
            "{} is not a regular file but a {found}; nothing was done with it",
            target.display()
        );
        assert_eq!(error.to_string(), expected);
    }
    let twice = request(taken.id, &[("f", &local), ("f", &local)]);
    assert_eq!(
        repository.restore(&twice, &NoProgress).unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
    let absent = request(taken.id, &[("g", &local)]);
    assert_eq!(
        repository.restore(&absent, &NoProgress).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(std::fs::read(&local).unwrap(), b"content");
}
