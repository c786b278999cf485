//! Files of this computer, of which guests' disks and memories are made.

use std::fs::File;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

pub(crate) struct HostFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The readable files below a folder, in the order of their names, so that it is the same each time.
pub(crate) fn host_files(folder: &Path) -> impl Iterator<Item = HostFile> {
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter();
    let files = entries
        .flatten()
        .filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| {
        let metadata = File::open(entry.path()).and_then(|file| file.metadata());
        Some(HostFile {
            bytes: metadata.ok()?.len(),
            path: entry.into_path(),
        })
    })
}
