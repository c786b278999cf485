//! `cargo xtask bench` and `cargo xtask saved-states`: see docs/performance.md.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vrs_testkit::SampleDisk;
use vrs_xtask::memory::{Comparison, Disks, Peaks, Rest};
use vrs_xtask::{saved_states, scene, speed};

const USAGE: &str = "usage: cargo xtask bench [--mib N | --memory] (N at least 50)
       cargo xtask saved-states FILE FILE...
       rig/run cargo xtask saved-states";
const DEFAULT_MIB: u64 = 512;
const GIB: u64 = 1 << 30;
const STATES: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bench"] => speed(DEFAULT_MIB),
        ["bench", "--memory"] => memory(&scene::build_vrs("release")),
        ["bench", "--mib", mib] => match mib.parse() {
            Ok(mib) if mib >= 50 => speed(mib),
            _ => usage(),
        },
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

fn speed(mib: u64) -> ExitCode {
    println!("{}", speed::table(&scene::build_vrs("release"), mib));
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
