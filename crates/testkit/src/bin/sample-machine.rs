//! Makes a machine for the demonstration and plays its guest, without VirtualBox:
//!
//! - `sample-machine create FOLDER NAME RAW` makes a machine whose disk holds the raw image's
//!   bytes, prints its settings file
//! - `sample-machine write IMAGE RAW` lets the guest change its disk until it equals the raw image
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use vrs_testkit::{SampleDisk, SampleMachine, write_raw_to_image};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .collect();
    match words[..] {
        ["create", folder, name, raw] => create(Path::new(folder), name, Path::new(raw)),
        ["write", image, raw] => write_raw_to_image(Path::new(image), Path::new(raw)),
        _ => {
            eprintln!("usage: sample-machine create FOLDER NAME RAW | write IMAGE RAW");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn create(folder: &Path, name: &str, raw: &Path) {
    let disk = SampleDisk::from_raw(raw).at("disk.vdi");
    let machine = SampleMachine::builder(folder, name).disk(disk).build();
    println!("{}", machine.settings_path().display());
}
