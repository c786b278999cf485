//! Folders of files that only save time, of which the least used go.
//!
//! A file was used when it was last written, or when whoever read it said so with [`mark_used`].

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Whatever a file is about is gone, or nobody takes snapshots of it any more.
pub(crate) const UNUSED_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How much may be in a folder.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Says that a file is used now.
pub(crate) fn mark_used(file: &File) {
    // Who cannot note the use loses the file early, which costs time.
    let _ = file.set_modified(SystemTime::now());
}

/// Removes the files that were not used for [`UNUSED_FOR`], and of the others the longest unused until no
/// more than `most` are left. The one used last always stays.
pub(crate) fn remove_unused(folder: &Path, now: SystemTime, most: Most) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Another process may have replaced it.
        if let Ok(metadata) = entry.metadata() {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort_unstable();
    let mut sum_bytes: u64 = 0;
    for (number, (used, size_bytes, path)) in files.iter().rev().enumerate() {
        sum_bytes = sum_bytes.saturating_add(*size_bytes);
        let is_unused = now.duration_since(*used).is_ok_and(|age| age > UNUSED_FOR);
        if number > 0 && (is_unused || sum_bytes > most.bytes || number >= most.files) {
            // Whoever cannot remove it tries again the next time.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// Files of 100 bytes, each used so many days ago, and which of them are still there.
    fn left(ages_days: [u64; 4], files: usize, bytes: u64) -> [bool; 4] {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let paths = ages_days.map(|days| {
            let path = folder.path().join(format!("used {days} days ago"));
            std::fs::write(&path, [0; 100]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(now - DAY * u32::try_from(days).unwrap())
                .unwrap();
            path
        });
        remove_unused(folder.path(), now, Most { files, bytes }).unwrap();
        paths.map(|path| path.exists())
    }

    #[test]
    fn what_nobody_uses_is_removed_and_the_longest_unused_goes_first() {
        assert_eq!(left([0, 1, 89, 91], 4, 400), [true, true, true, false]);
        assert_eq!(left([3, 1, 89, 2], 4, 200), [false, true, false, true]);
        assert_eq!(left([3, 1, 89, 2], 2, 400), [false, true, false, true]);
        assert_eq!(left([91, 92, 93, 94], 4, 400), [true, false, false, false]);
        assert_eq!(left([0, 1, 2, 3], 0, 0), [true, false, false, false]);
    }
}
