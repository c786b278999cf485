//! The scan cache makes a difference to the work, and none to what is stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use common::*;
use proptest::prelude::*;
use vrs_repository::ResticRepository;
use vrs_repository::store::Chunking;

const CHUNK: usize = 64 << 10;
const GRID: Chunking = Chunking::Grid {
    chunk_bytes: CHUNK as u32,
    phase_bytes: 512,
};
const CHUNKS: usize = 272;
const SIZE: usize = 512 + CHUNKS * CHUNK;

fn caching() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.options.pack_bytes = 4 << 20;
    sandbox.options.cache_folder = Some(sandbox.path("cache"));
    sandbox
}

fn take_disk(repository: &ResticRepository, disk: &Path) -> Taken {
    take(repository, &[source("m/disk", disk, GRID)])
}

/// In pieces of 16 KiB, as saved states are cut.
const BY_CONTENT: Chunking = Chunking::ContentDefined {
    average_bytes: 16 << 10,
};

fn recognised_chunks(taken: &Taken) -> usize {
    let bytes = usize::try_from(taken.files[0].recognised_bytes).unwrap();
    assert_eq!(
        taken.stats.recognised_bytes,
        taken.files[0].recognised_bytes
    );
    assert_eq!(bytes % CHUNK % 512, 0);
    bytes / CHUNK
}

fn require_stored(sandbox: &Sandbox, repository: &ResticRepository, taken: &Taken, wanted: &[u8]) {
    let out = sandbox.path("out");
    let _ = std::fs::remove_file(&out);
    restore(repository, &request(taken.id, &[("m/disk", &out)]));
    assert!(std::fs::read(out).unwrap() == wanted);
}

fn cache_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(sandbox.path("cache")).into_iter();
    let files = all.flatten().filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn only_what_changed_is_hashed_again() {
    let sandbox = caching();
    let mut content = noise(1, SIZE);
    let disk = sandbox.write("disk", &content);
    let first = take_disk(&sandbox.open(), &disk);
    assert_eq!(recognised_chunks(&first), 0);
    for chunk in [0, 7, 8, CHUNKS - 1] {
        content[512 + chunk * CHUNK] ^= 1;
    }
    std::fs::write(&disk, &content).unwrap();
    let repository = sandbox.open();
    let second = take_disk(&repository, &disk);
    assert_eq!(recognised_chunks(&second), CHUNKS - 4);
    assert_eq!(second.files[0].new_chunks, 4);
    require_stored(&sandbox, &repository, &second, &content);
    // The changed ones are known now, too.
    let third = take_disk(&sandbox.open(), &disk);
    assert_eq!(recognised_chunks(&third), CHUNKS);
    assert_eq!(third.files[0].new_chunks, 0);
}

#[test]
fn a_saved_state_is_recognised_under_another_name_and_where_it_moved() {
    let sandbox = caching();
    let mut content = noise(1, SIZE);
    let states = sandbox.path("states");
    std::fs::create_dir(&states).unwrap();
    let take_state = |name: &str, content: &[u8]| {
        let state = states.join(name);
        std::fs::write(&state, content).unwrap();
        let taken = take(&sandbox.open(), &[source("m/disk", &state, BY_CONTENT)]);
        std::fs::remove_file(&state).unwrap();
        taken
    };
    assert_eq!(take_state("1.sav", &content).stats.recognised_bytes, 0);
    content[SIZE / 2] ^= 1;
    content.splice(100..100, noise(2, 12_345));
    content.extend(vec![0; 1 << 20]);
    let second = take_state("2.sav", &content);
    let differing = SIZE as u64 - second.stats.recognised_bytes;
    assert!(differing < 5 * (64 << 10), "{differing}");
    require_stored(&sandbox, &sandbox.open(), &second, &content);
    let third = take_state("3.sav", &content);
    assert_eq!(third.files[0].new_chunks, 0);
    assert!(third.stats.recognised_bytes > second.stats.recognised_bytes);
    // Another folder is that of another machine.
    let elsewhere = sandbox.write("4.sav", &content);
    let fourth = take(&sandbox.open(), &[source("m/disk", &elsewhere, BY_CONTENT)]);
    assert_eq!(fourth.stats.recognised_bytes, 0);
}

#[test]
fn another_repository_has_a_cache_of_its_own() {
    let sandbox = caching();
    let disk = sandbox.write("disk", &noise(1, SIZE));
    take_disk(&sandbox.open(), &disk);
    let mut other = Sandbox::new();
    other
        .options
        .cache_folder
        .clone_from(&sandbox.options.cache_folder);
    let repository = other.open();
    let taken = take_disk(&repository, &disk);
    assert_eq!(recognised_chunks(&taken), 0);
    assert_eq!(taken.files[0].new_chunks as usize, CHUNKS + 1);
    require_stored(&other, &repository, &taken, &noise(1, SIZE));
}

#[test]
fn what_was_pruned_meanwhile_is_stored_again() {
    let sandbox = caching();
    let disk = sandbox.write("disk", &noise(1, SIZE));
    take_disk(&sandbox.open(), &disk);
    for pack in sandbox.objects("data").into_keys() {
        std::fs::remove_file(pack).unwrap();
    }
    let repository = sandbox.open();
    let taken = take_disk(&repository, &disk);
    assert_eq!(recognised_chunks(&taken), 0);
    require_stored(&sandbox, &repository, &taken, &noise(1, SIZE));
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_time() {
    let mut sandbox = caching();
    sandbox.options.cache_folder = Some(sandbox.write("a file", b"").join("cache"));
    let disk = sandbox.write("disk", &noise(1, SIZE));
    let repository = sandbox.open();
    let taken = take_disk(&repository, &disk);
    require_stored(&sandbox, &repository, &taken, &noise(1, SIZE));
}

#[test]
fn a_restore_recognises_what_is_in_place() {
    let sandbox = caching();
    let mut content = noise(1, SIZE);
    let disk = sandbox.write("disk", &content);
    let first = take_disk(&sandbox.open(), &disk);
    for chunk in [3, 200] {
        content[512 + chunk * CHUNK] ^= 1;
    }
    std::fs::write(&disk, &content).unwrap();
    let second = take_disk(&sandbox.open(), &disk);
    // Rot that left no trace but in the bytes is found, too.
    content[512 + 250 * CHUNK] ^= 1;
    std::fs::write(&disk, &content).unwrap();
    let mut wanted = request(first.id, &[("m/disk", &disk)]);
    wanted.files[0].local_chunking = Some(GRID);
    for (request_of, differing) in [(first.id, 3), (second.id, 2)] {
        wanted.snapshot = request_of;
        let stats = restore(&sandbox.open(), &wanted);
        assert_eq!(stats.fetched_chunks, differing, "{stats:?}");
        assert_eq!(
            stats.in_place_bytes,
            (SIZE - differing as usize * CHUNK) as u64
        );
    }
    content[512 + 250 * CHUNK] ^= 1;
    assert!(std::fs::read(&disk).unwrap() == content);
}

#[test]
fn a_damaged_cache_does_not_mislead_a_restore() {
    let sandbox = caching();
    let content = noise(1, SIZE);
    let disk = sandbox.write("disk", &content);
    let taken = take_disk(&sandbox.open(), &disk);
    std::fs::write(&disk, noise(2, SIZE)).unwrap();
    take_disk(&sandbox.open(), &disk);
    for file in cache_files(&sandbox) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
        std::fs::write(file, bytes).unwrap();
    }
    let mut wanted = request(taken.id, &[("m/disk", &disk)]);
    wanted.files[0].local_chunking = Some(GRID);
    restore(&sandbox.open(), &wanted);
    assert!(std::fs::read(&disk).unwrap() == content);
}

/// Something that happens between two snapshots.
#[derive(Debug, Clone)]
enum Event {
    /// The guest writes: where, how much, what.
    Write(usize, usize, u64),
    /// The image ends here from now on, with zeros where there was nothing.
    Resize(usize),
    /// Blocks change places, as after a compaction.
    Swap(usize, usize),
    /// So many bytes of the cache change, or it is cut off.
    DamageCache(usize),
    CutCache(usize),
    RemoveCache,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..SIZE, 1..5 * CHUNK, any::<u64>()).prop_map(|(at, length, seed)| Event::Write(at, length, seed)),
        1 => (SIZE - 9 * CHUNK..SIZE + 9 * CHUNK).prop_map(Event::Resize),
        2 => (0..CHUNKS - 9, 0..CHUNKS - 9).prop_map(|(one, other)| Event::Swap(one, other)),
        2 => any::<usize>().prop_map(Event::DamageCache),
        1 => any::<usize>().prop_map(Event::CutCache),
        1 => Just(Event::RemoveCache),
    ]
}

fn happen(sandbox: &Sandbox, content: &mut Vec<u8>, event: &Event) {
    match *event {
        Event::Write(at, length, seed) => {
            let end = (at + length).min(content.len());
            let at = at.min(end);
            content[at..end].copy_from_slice(&noise(seed, end - at));
        }
        Event::Resize(size) => content.resize(size, 0),
        Event::Swap(one, other) => {
            for byte in 0..CHUNK {
                content.swap(512 + one * CHUNK + byte, 512 + other * CHUNK + byte);
            }
        }
        Event::DamageCache(_) | Event::CutCache(_) | Event::RemoveCache => {
            cache_files(sandbox)
                .iter()
                .for_each(|file| harm(file, event));
        }
    }
}

fn harm(file: &Path, event: &Event) {
    let mut bytes = std::fs::read(file).unwrap();
    match *event {
        Event::DamageCache(at) => {
            let at = at % bytes.len();
            bytes[at] ^= 0x55;
        }
        Event::CutCache(at) => bytes.truncate(at % bytes.len()),
        _ => return std::fs::remove_file(file).unwrap(),
    }
    std::fs::write(file, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// Whatever the guest, the user and the disk do.
    #[test]
    fn what_is_stored_is_what_is_there(
        events in proptest::collection::vec(proptest::collection::vec(event(), 1..5), 3),
        chunking in prop_oneof![Just(GRID), Just(BY_CONTENT)],
    ) {
        let sandbox = caching();
        let mut content = noise(1, SIZE);
        let disk = sandbox.write("disk", &content);
        let take_disk = |repository: &ResticRepository| take(repository, &[source("m/disk", &disk, chunking)]);
        take_disk(&sandbox.open());
        for round in events {
            round.iter().for_each(|event| happen(&sandbox, &mut content, event));
            std::fs::write(&disk, &content).unwrap();
            let repository = sandbox.open();
            let taken = take_disk(&repository);
            require_stored(&sandbox, &repository, &taken, &content);
            // Without a cache not a chunk more or less is found.
            let mut options = sandbox.options.clone();
            options.cache_folder = None;
            let plain = ResticRepository::open(&sandbox.location(), &password(), &options).unwrap();
            let again = take_disk(&plain);
            prop_assert_eq!(again.files[0].new_chunks, 0);
            prop_assert_eq!(again.stats.objects["pack"], 0);
        }
    }
}
