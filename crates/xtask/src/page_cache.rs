//! The same start for all programs, whichever of them is first in a turn.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::files::files_below;
use crate::platform;

/// Has everything written out that earlier programs wrote, and reads all files below the folders that are
/// there: nobody waits for the disk, or for the memory that the files take. That holds as long as
/// [`forget`] has been told of what is not needed.
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

/// Gives the memory back that the files below a folder take: where it is full, what was read last may go
/// before what was read often.
///
/// # Panics
/// When a file cannot be written out.
pub(crate) fn forget(folder: &Path) {
    let folders = std::iter::once(folder).filter(|folder| folder.exists());
    for entry in folders.flat_map(files_below) {
        let file = File::open(entry.path()).expect("a file of the benchmark");
        file.sync_data().expect("a disk that works");
        platform::forget_content(&file);
    }
}
