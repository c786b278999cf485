//! `cargo xtask bench` and `cargo xtask saved-states`: see docs/performance.md.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tempfile::TempDir;
use vrs_testkit::SampleDisk;
use vrs_xtask::memory::{Comparison, Disks, Peaks, Rest};
use vrs_xtask::states::{Size, States};
use vrs_xtask::{crowd, document, limits, next_state, race, saved_states, scene, tracked};

const USAGE: &str = "usage: cargo xtask bench [GIB_OF_DISK MIB_OF_MEMORY ROUNDS]
       cargo xtask bench --quick
       cargo xtask bench --memory
       cargo xtask bench --tracked
       cargo xtask bench --snapshots
       cargo xtask saved-states FILE FILE...
       rig/run cargo xtask saved-states";
/// The machine of docs/performance.md.
const FULL_SIZE: [u64; 3] = [20, 3072, 3];
const QUICK_SIZE: [u64; 3] = [1, 128, 1];
const SNAPSHOTS: usize = 1000;
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");
const GIB: u64 = 1 << 30;
const STATES: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bench"] => bench(FULL_SIZE),
        ["bench", "--quick"] => quick_bench(),
        ["bench", "--tracked"] => print(&tracked_tables(&scene::build_vrs("release"))),
        ["bench", "--memory"] => memory(&scene::build_vrs("release")),
        ["bench", "--snapshots"] => print(&crowd::table(&scene::build_vrs("release"), SNAPSHOTS)),
        ["bench", numbers @ ..] => {
            let numbers: Result<Vec<u64>, _> = numbers.iter().map(|text| text.parse()).collect();
            let numbers = numbers
                .ok()
                .and_then(|numbers| <[u64; 3]>::try_from(numbers).ok());
            match numbers.filter(|numbers| numbers.iter().all(|number| *number > 0)) {
                Some(numbers) => bench(numbers),
                None => usage(),
            }
        }
        ["saved-states"] => {
            let folder = tempfile::tempdir().expect("a temporary folder");
            saved_states(&saved_states::of_linux_guest(folder.path(), STATES))
        }
        ["saved-states", files @ ..] if files.len() > 1 => {
            saved_states(&files.iter().map(PathBuf::from).collect::<Vec<_>>())
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Everything, into docs/performance.md.
fn bench(numbers: [u64; 3]) -> ExitCode {
    let vrs = scene::build_vrs("release");
    let parts = [
        race_here(&vrs, numbers),
        crowd::table(&vrs, SNAPSHOTS),
        tracked::table(&vrs, QUICK_SIZE[0]),
        race_elsewhere(&vrs, numbers),
    ];
    let printed = parts.join("\n\n");
    println!("{printed}");
    let command = format!(
        "cargo xtask bench {}",
        numbers.map(|n| n.to_string()).join(" ")
    );
    match document::write(Path::new(DOCUMENT), &command, &printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {DOCUMENT}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn race_here(vrs: &Path, numbers: [u64; 3]) -> String {
    let (mut states, _folder, rounds) = states(numbers);
    let [gibibytes, mebibytes, _] = numbers;
    let title = format!(
        "A disk of {gibibytes} GiB and a memory of {mebibytes} MiB; medians of {rounds}, in \
         brackets as a part of the best other's"
    );
    let race = race::here(vrs, &states, rounds);
    [title, race, next_state::table(vrs, &mut states, rounds)].join("\n\n")
}

fn tracked_tables(vrs: &Path) -> String {
    let [gibibytes, mebibytes, _] = QUICK_SIZE;
    let (mut states, _folder, rounds) = states([gibibytes, mebibytes, tracked::REPEATS]);
    let next_state = next_state::table(vrs, &mut states, rounds);
    [tracked::table(vrs, gibibytes), next_state].join("\n\n")
}

/// Of a machine that is not on its way for hours; and what this computer can do at all.
fn race_elsewhere(vrs: &Path, [gibibytes, mebibytes, _]: [u64; 3]) -> String {
    let [most_gibibytes, most_mebibytes, _] = QUICK_SIZE;
    let (gibibytes, mebibytes) = (gibibytes.min(most_gibibytes), mebibytes.min(most_mebibytes));
    let (states, _folder, _) = states([gibibytes, mebibytes, 1]);
    let title = format!(
        "Repositories on servers, a disk of {gibibytes} GiB and a memory of {mebibytes} MiB; where no \
         whole machine passes, the line carries 20 Mbit/s"
    );
    let race = race::elsewhere(vrs, &states, 1);
    [title, race, limits::table(&states)].join("\n\n")
}

/// One race in a minute; nothing is written.
fn quick_bench() -> ExitCode {
    let (states, _folder, rounds) = states(QUICK_SIZE);
    let vrs = scene::build_vrs("release");
    println!("{}", race::here(&vrs, &states, rounds));
    ExitCode::SUCCESS
}

/// One table alone; nothing is written.
fn print(table: &str) -> ExitCode {
    println!("{table}");
    ExitCode::SUCCESS
}

/// With the folder in which they are, and the number of rounds.
fn states([gibibytes, memory_mebibytes, rounds]: [u64; 3]) -> (States, TempDir, usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let size = Size {
        disk_mebibytes: gibibytes << 10,
        memory_mebibytes,
    };
    let states = States::make(folder.path(), size);
    (states, folder, usize::try_from(rounds).unwrap_or(1))
}

fn saved_states(files: &[PathBuf]) -> ExitCode {
    println!("added to the repository, in MB, by each state; chunks of the last one");
    let vrs = scene::build_vrs("release");
    println!("{}", saved_states::table(&vrs, files));
    ExitCode::SUCCESS
}

fn memory(vrs: &Path) -> ExitCode {
    println!("peak MiB                    take,  4 GiB   64 GiB   restore,  4 GiB   64 GiB");
    let sparse = Disks {
        kind: SampleDisk::dynamic,
        small_bytes: 4 * GIB,
        large_bytes: 64 * GIB,
        used_mebibytes: 128,
        rest: Rest::Empty,
    };
    let full = Disks {
        kind: SampleDisk::fixed,
        rest: Rest::Full,
        ..sparse
    };
    let hold = [("dynamic, 128 MiB used", sparse), ("fixed, full", full)].map(|(title, disks)| {
        let peaks = disks.compare(vrs);
        println!("{}", row(title, &peaks));
        peaks.holds()
    });
    if hold == [true, true] {
        return ExitCode::SUCCESS;
    }
    eprintln!("a disk of 64 GiB needs more than a fifth more than one of 4 GiB, beside its index");
    ExitCode::FAILURE
}

fn row(title: &str, Comparison { small, large, .. }: &Comparison) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let take = |peaks: &Peaks| mib(peaks.take_bytes);
    let restore = |peaks: &Peaks| mib(peaks.restore_bytes);
    format!(
        "{title:<25} {:>14.1} {:>8.1} {:>16.1} {:>8.1}",
        take(small),
        take(large),
        restore(small),
        restore(large)
    )
}
