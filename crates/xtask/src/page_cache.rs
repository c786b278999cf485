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
    flush();
    for mut file in folders.iter().copied().flat_map(open_files) {
        io::copy(&mut file, &mut io::sink()).expect("its content");
    }
}

/// Has everything written out that was written.
///
/// # Panics
/// When that fails.
pub(crate) fn flush() {
    let flushed = Command::new("sync").status().expect("sync");
    assert!(flushed.success(), "sync");
}

/// Gives the memory back that the files below a folder take: where it is full, what was read last may go
/// before what was read often.
///
/// # Panics
/// When a file cannot be written out.
pub(crate) fn forget(folder: &Path) {
    for file in open_files(folder) {
        file.sync_data().expect("a disk that works");
        platform::forget_content(&file);
    }
}

/// All files below a folder, if it is there.
fn open_files(folder: &Path) -> impl Iterator<Item = File> {
    let entries = folder.exists().then(|| files_below(folder));
    let entries = entries.into_iter().flatten();
    entries.map(|entry| File::open(entry.path()).expect("a file of the benchmark"))
}
