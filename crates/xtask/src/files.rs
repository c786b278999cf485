//! Files of the benchmark.

use std::path::Path;

use walkdir::{DirEntry, WalkDir};

/// All files below a folder that is there.
///
/// # Panics
/// When something in it cannot be looked at.
pub(crate) fn files_below(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    let entries = WalkDir::new(folder).into_iter();
    let entries = entries.map(|entry| entry.expect("a folder of the benchmark"));
    entries.filter(|entry| entry.file_type().is_file())
}

/// How long all of them are together.
///
/// # Panics
/// As [`files_below`].
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    let lengths = files_below(folder).map(|file| file.metadata().expect("its size").len());
    lengths.sum()
}
