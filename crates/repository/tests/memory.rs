//! Memory does not grow with the file.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use jiff::{SignedDuration, Timestamp};
use vrs_progress::NoProgress;
use vrs_repository::store::{Chunking, PreviousFile, PruneOptions, SnapshotStore};
use vrs_repository::{Location, OpenOptions, ResticRepository};
use vrs_testkit::make_repository;

const OPERATION: &str = "VRS_TEST_MEMORY_OPERATION";
const FOLDER: &str = "VRS_TEST_MEMORY_FOLDER";
const MIB: usize = 1 << 20;
/// Small, so that there are many.
const CHUNK: usize = 1 << 10;
/// Sizes of the small and the large file.
const MEBIBYTES: [usize; 2] = [32, 192];
const OPERATIONS: [Operation; 4] = [
    ("take", 74, take_new),
    ("take unchanged", 82, take_unchanged),
    ("restore", 78, restore_all),
    ("prune", 80, prune_half),
];

/// The name, how many bytes a chunk may cost, and what is done.
type Operation = (&'static str, u64, fn(&ResticRepository, &Path));

const GRID: Chunking = Chunking::Grid {
    chunk_bytes: CHUNK as u32,
    phase_bytes: 0,
};

fn take_new(repository: &ResticRepository, folder: &Path) {
    take(repository, &[source("disk", &folder.join("disk"), GRID)]);
}

fn take_unchanged(repository: &ResticRepository, folder: &Path) {
    let disk = folder.join("disk");
    let mut source = source("disk", &disk, GRID);
    source.previous = Some(PreviousFile {
        snapshot: latest(repository),
        path: path("disk"),
        unchanged: std::iter::once(0..disk.metadata().unwrap().len()).collect(),
    });
    take(repository, &[source]);
}

fn restore_all(repository: &ResticRepository, folder: &Path) {
    let target = folder.join("target");
    std::fs::write(&target, noise(5, MIB)).unwrap();
    let request = request(latest(repository), &[("disk", &target)]);
    restore(repository, &request);
}

/// What half of the snapshots need is copied out of packs of which they need a part.
fn prune_half(repository: &ResticRepository, folder: &Path) {
    let all = repository.snapshots().unwrap().snapshots;
    let older: Vec<_> = all.iter().map(|record| record.id).collect();
    let local = halve(folder);
    take(repository, &[source("half", &local, GRID)]);
    repository.delete(&older, &NoProgress).unwrap();
    prune(repository, folder);
}

/// A file with every second chunk of the disk.
fn halve(folder: &Path) -> PathBuf {
    let half = folder.join("half");
    let disk = std::fs::File::open(folder.join("disk")).unwrap();
    let mut disk = std::io::BufReader::new(disk);
    let mut to = std::io::BufWriter::new(std::fs::File::create(&half).unwrap());
    let mut pair = vec![0; 2 * CHUNK];
    while disk.read_exact(&mut pair).is_ok() {
        to.write_all(&pair[..CHUNK]).unwrap();
    }
    to.flush().unwrap();
    half
}

fn prune(repository: &ResticRepository, _: &Path) {
    let options = PruneOptions {
        max_unused_percent: 0,
        now: Timestamp::now() + SignedDuration::from_hours(25),
    };
    let begun = std::time::Instant::now();
    let recorder = Recorder::default();
    let stats = repository.prune(&options, &recorder).unwrap();
    let steps = ["write pack", "write index", "remove index"];
    let steps = steps.map(|step| (step, recorder.count(step)));
    println!("prune: {stats:?}, {steps:?}, {:?}", begun.elapsed());
    assert!(
        stats.marked_bytes > 0 && stats.repacked_bytes > 0,
        "{stats:?}"
    );
}

fn latest(repository: &ResticRepository) -> vrs_repository::id::SnapshotId {
    repository.snapshots().unwrap().snapshots.pop().unwrap().id
}

/// No test of its own: an operation in a process of its own.
#[test]
fn run_operation() {
    let Ok(wanted) = std::env::var(OPERATION) else {
        return;
    };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let repository = open(&folder);
    let prune_only: Operation = ("prune only", 0, prune);
    let mut operations = OPERATIONS.iter().chain([&prune_only]);
    operations.find(|(name, ..)| *name == wanted).unwrap().2(&repository, &folder);
    println!("peak {} kB", peak_kilobytes());
}

/// Chunks that all differ and compress well, as the test shall not be bound by the disk.
fn write_disk(path: &Path, mebibytes: usize) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut block = vec![7; CHUNK];
    for number in 0..mebibytes * (MIB / CHUNK) {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
}

fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The peaks of all operations, one after the other, on a file of this size.
fn peaks(mebibytes: usize) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    make_repository(&folder.path().join("repository"));
    write_disk(&folder.path().join("disk"), mebibytes);
    let names = OPERATIONS.iter().map(|(name, ..)| *name);
    let peaks = names.map(|name| peak_of(name, folder.path())).collect();
    let errors = check(&open(folder.path())).errors;
    assert_eq!(errors, Vec::<String>::new());
    peaks
}

fn open(folder: &Path) -> ResticRepository {
    let location = Location::parse(folder.join("repository").to_str().unwrap()).unwrap();
    let mut options = OpenOptions::default();
    options.pack_bytes = 1 << 18;
    ResticRepository::open(&location, &password(), &options).unwrap()
}

fn peak_of(operation: &str, folder: &Path) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "run_operation", "--nocapture"])
        .env(OPERATION, operation)
        // What is measured is what vrs holds, not what the allocator keeps for each thread.
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .env(FOLDER, folder);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text.lines()
        .filter(|line| line.contains("prune: "))
        .for_each(|line| println!("{line}"));
    let line = text
        .lines()
        .find_map(|line| line.split("peak ").nth(1))
        .unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// What is left is the index, and the list of the file's chunks.
#[test]
fn a_larger_file_costs_only_its_chunk_list() {
    let large = peaks(MEBIBYTES[1]);
    // Whether all threads are in the middle of something at once is chance where they have little to do.
    let tries: Vec<_> = (0..3).map(|_| peaks(MEBIBYTES[0])).collect();
    let most = |number: usize| tries.iter().map(|peaks| peaks[number]).max().unwrap();
    let more_chunks = ((MEBIBYTES[1] - MEBIBYTES[0]) * (MIB / CHUNK)) as u64;
    let mut exceeded = Vec::new();
    for (number, (operation, allowed, _)) in OPERATIONS.iter().enumerate() {
        let (small, large) = (most(number), large[number]);
        let per_chunk = large.saturating_sub(small) * 1024 / more_chunks;
        println!("{operation}: {small} kB, {large} kB: {per_chunk} bytes a chunk");
        if per_chunk > *allowed {
            exceeded.push(*operation);
        }
    }
    assert!(exceeded.is_empty(), "too much memory: {exceeded:?}");
}

/// Half of a thousand small snapshots go, and half of a million chunks.
#[test]
#[ignore = "soak: a million chunks take some minutes"]
fn soak_prune_a_thousand_snapshots_and_a_million_chunks() {
    const SNAPSHOTS: u64 = 1000;
    let folder = tempfile::tempdir().unwrap();
    make_repository(&folder.path().join("repository"));
    let repository = open(folder.path());
    let local = folder.path().join("disk");
    let mut gone = Vec::new();
    for number in 0..SNAPSHOTS {
        std::fs::write(&local, noise(number, 20 * CHUNK)).unwrap();
        let taken = take(&repository, &[source("disk", &local, GRID)]);
        gone.extend((number % 2 == 0).then_some(taken.id));
    }
    write_disk(&local, 1000);
    let whole = take(&repository, &[source("disk", &local, GRID)]);
    let half = halve(folder.path());
    take(&repository, &[source("half", &half, GRID)]);
    gone.push(whole.id);
    repository.delete(&gone, &NoProgress).unwrap();
    drop(repository);
    let peak = peak_of("prune only", folder.path());
    println!("peak of the prune: {peak} kB");
    assert!(peak * 1024 < (1 << 20) * 100 + (64 << 20), "{peak} kB");
    let errors = check(&open(folder.path())).errors;
    assert_eq!(errors, Vec::<String>::new());
}
