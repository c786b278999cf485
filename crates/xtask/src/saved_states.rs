//! What successive saved states of one machine cost, by how they are cut and by program.

mod cuts;
mod memory_pages;
mod stored;

use std::fs;
use std::path::{Path, PathBuf};

use vrs_testkit::{LinuxGuest, Rig};

use self::cuts::Cuts;
use self::stored::Store;
use crate::programs::Program;

const RECORDS_BETWEEN: u64 = 1000;

/// Saves states of the Linux guest of the rig, which writes a thousand records to each of its disks
/// from one to the next. The files lie in `folder`.
///
/// # Panics
/// Outside of `rig/run`.
#[must_use]
pub fn of_linux_guest(folder: &Path, count: usize) -> Vec<PathBuf> {
    let rig = Rig::start();
    let guest = LinuxGuest::saved(&rig);
    let save = |number| {
        guest.resume();
        guest.wait_for_records(RECORDS_BETWEEN);
        guest.machine().save_running_state();
        let path = folder.join(format!("{number}.sav"));
        fs::copy(guest.machine().saved_state(), &path).expect("room for a saved state");
        path
    };
    (1..=count).map(save).collect()
}

/// Compares ways of cutting, then programs. `files` are states of one machine, the oldest first.
#[must_use]
pub fn table(vrs: &Path, files: &[PathBuf]) -> String {
    let states: Vec<_> = files
        .iter()
        .map(|file| fs::read(file).expect("a saved state"))
        .collect();
    let sizes = states.iter().map(|state| state.len() as u64);
    let mut rows = vec![row("bytes of the file", sizes.map(Some), None)];
    for cuts in Cuts::all() {
        let mut store = Store::default();
        let costs: Vec<_> = states.iter().map(|state| store.add(state, &cuts)).collect();
        rows.push(row(
            &cuts.to_string(),
            costs.into_iter().map(Some),
            Some(store.chunks),
        ));
    }
    for program in Program::installed(vrs) {
        let costs: Vec<_> = files.iter().map(|file| program.store(file)).collect();
        rows.push(row(program.name(), costs.into_iter().map(Some), None));
    }
    rows.join("\n")
}

/// Megabytes, and the number of chunks of the last state.
fn row(title: &str, bytes: impl Iterator<Item = Option<u64>>, chunks: Option<usize>) -> String {
    let megabytes = |bytes: Option<u64>| {
        let text = bytes.map(|bytes| format!("{:.2}", bytes as f64 / 1e6));
        format!("{:>9}", text.unwrap_or_default())
    };
    let columns: String = bytes.map(megabytes).collect();
    let chunks = chunks
        .map(|chunks| format!("{chunks:>9}"))
        .unwrap_or_default();
    format!("{title:<34}{columns}{chunks}")
}
