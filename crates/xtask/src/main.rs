//! `cargo xtask bench` and `cargo xtask saved-states`: see docs/performance.md.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vrs_testkit::SampleDisk;
use vrs_xtask::memory::{Comparison, Disks, Peaks, Rest};
use vrs_xtask::states::Size;
use vrs_xtask::{race, saved_states, scene};

const USAGE: &str = "usage: cargo xtask bench [GIB_OF_DISK MIB_OF_MEMORY ROUNDS]
       cargo xtask bench --memory
       cargo xtask saved-states FILE FILE...
       rig/run cargo xtask saved-states";
/// The machine of docs/performance.md.
const FULL_SIZE: [u64; 3] = [20, 3072, 3];
const GIB: u64 = 1 << 30;
const STATES: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bench"] => race(FULL_SIZE),
        ["bench", "--memory"] => memory(&scene::build_vrs("release")),
        ["bench", numbers @ ..] => {
            let numbers: Result<Vec<u64>, _> = numbers.iter().map(|text| text.parse()).collect();
            let numbers = numbers
                .ok()
                .and_then(|numbers| <[u64; 3]>::try_from(numbers).ok());
            match numbers.filter(|numbers| numbers.iter().all(|number| *number > 0)) {
                Some(numbers) => race(numbers),
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

fn race([disk_gibibytes, memory_mebibytes, rounds]: [u64; 3]) -> ExitCode {
    let size = Size {
        disk_mebibytes: disk_gibibytes << 10,
        memory_mebibytes,
    };
    let rounds = usize::try_from(rounds).unwrap_or(1);
    println!(
        "{}",
        race::table(&scene::build_vrs("release"), size, rounds)
    );
    ExitCode::SUCCESS
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
    eprintln!("a disk of 64 GiB needs more than a fifth more than one of 4 GiB");
    ExitCode::FAILURE
}

fn row(title: &str, Comparison { small, large }: &Comparison) -> String {
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
