//! The same start for all programs, whichever of them is first in a turn.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::files::files_below;

/// Has everything written out that earlier programs wrote, and reads all files below the folders that are
/// there: nobody waits for the disk, or for the memory that the files take.
///
/// # Panics
/// When a file cannot be read.
pub(crate) fn settle(folders: &[&Path]) {
    let flushed = Command::new("sync").status().expect("sync");
    assert!(flushed.success(), "sync");
    for folder in folders.iter().filter(|folder| folder.exists()) {
        for entry in files_below(folder) {
            let mut file = File::open(entry.path()).expect("a file of the benchmark");
            io::copy(&mut file, &mut io::sink()).expect("its content");
        }
    }
}
