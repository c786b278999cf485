//! Memory does not grow with the file.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::*;
use vrs_repository::store::Chunking;
use vrs_repository::{OpenOptions, ResticRepository};

const CASE: &str = "VRS_TEST_MEMORY_MIB";
const MIB: usize = 1 << 20;
/// Small, so that there are many.
const CHUNK: usize = 4 << 10;

/// No test of its own: measured in a process of its own, from after the password is checked.
#[test]
fn run_case() {
    let Ok(size) = std::env::var(CASE) else {
        return;
    };
    let sandbox = Sandbox::new();
    let local = sandbox.path("disk");
    write_disk(&local, size.parse().unwrap());
    let mut options = OpenOptions::default();
    options.pack_bytes = 1 << 20;
    let repository = ResticRepository::open(&sandbox.location(), &password(), &options).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let grid = Chunking::Grid {
        chunk_bytes: CHUNK as u32,
        phase_bytes: 0,
    };
    let taken = take(&repository, &[source("disk", &local, grid)]);
    let target = sandbox.path("target");
    std::fs::write(&target, noise(5, MIB)).unwrap();
    restore(&repository, &request(taken.id, &[("disk", &target)]));
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

fn peak_for(mebibytes: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "run_case", "--nocapture"])
        .env(CASE, mebibytes.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.split("peak ").nth(1))
        .unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// What is left is the list of chunks, in its many forms.
#[test]
fn a_larger_file_costs_only_its_chunk_list() {
    let (small, large) = (128, 512);
    let (small_peak, large_peak) = (peak_for(small), peak_for(large));
    let grown_bytes = large_peak.saturating_sub(small_peak) * 1024;
    let more_chunks = ((large - small) * (MIB / CHUNK)) as u64;
    let per_chunk = grown_bytes / more_chunks;
    println!("{small_peak} kB, {large_peak} kB: {per_chunk} bytes a chunk");
    assert!(per_chunk < 512, "{per_chunk} bytes a chunk");
}
