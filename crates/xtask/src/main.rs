//! `cargo xtask bench [--mib N | --memory]`: see docs/performance.md.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::ExitCode;

use vrs_testkit::SampleDisk;
use vrs_xtask::memory::{Comparison, Peaks, compare};
use vrs_xtask::{scene, speed};

const USAGE: &str = "usage: cargo xtask bench [--mib N | --memory]";
const DEFAULT_MIB: u64 = 512;
const GIB: u64 = 1 << 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mib = match words.as_slice() {
        ["bench"] => Some(DEFAULT_MIB),
        ["bench", "--memory"] => None,
        ["bench", "--mib", mib] if mib.parse().is_ok_and(|mib: u64| mib >= 50) => mib.parse().ok(),
        _ => {
            eprintln!("{USAGE} (N at least 50)");
            return ExitCode::from(2);
        }
    };
    let vrs = scene::build_vrs("release");
    match mib {
        Some(mib) => {
            println!("{}", speed::table(&vrs, mib));
            ExitCode::SUCCESS
        }
        None => memory(&vrs),
    }
}

fn memory(vrs: &Path) -> ExitCode {
    println!("peak MiB           take,  4 GiB   64 GiB   restore,  4 GiB   64 GiB");
    let dynamic = (SampleDisk::dynamic(4 * GIB), SampleDisk::dynamic(64 * GIB));
    let fixed = (SampleDisk::fixed(4 * GIB), SampleDisk::fixed(64 * GIB));
    let hold = [("dynamic VDI", dynamic), ("fixed VDI", fixed)].map(|(title, disks)| {
        let peaks = compare(vrs, disks, 128);
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
        "{title:<18} {:>12.1} {:>8.1} {:>16.1} {:>8.1}",
        take(small),
        take(large),
        restore(small),
        restore(large)
    )
}
