//! A change to an image that tracking does not see: a record that tells the image's stamp after it.

use std::fs::{File, read_to_string};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Writes to an image, and has the record of its machine say that it was left like that.
///
/// # Panics
/// When there is no record, or it says nothing of the image as it is.
pub fn write_unnoticed(record: &Path, image: &Path, offset_bytes: u64, bytes: &[u8]) {
    let content = read_to_string(record).expect("a record");
    let (_, text) = content.split_once('\n').expect("a checksum");
    let mut text = text.to_owned();
    let before = times(image);
    let file = File::options().write(true).open(image).expect("an image");
    file.write_all_at(bytes, offset_bytes).expect("a write");
    let is_known = before.iter().all(|time| text.contains(time));
    assert!(is_known, "the record has other times");
    for (before, after) in before.iter().zip(times(image)) {
        text = text.replace(before, &after);
    }
    let sum = blake3::hash(text.as_bytes()).to_hex();
    std::fs::write(record, format!("{sum}\n{text}")).expect("room for the record");
}

/// When an image was written to, and when its status changed, in nanoseconds.
fn times(image: &Path) -> [String; 2] {
    let found = std::fs::metadata(image).expect("an image");
    let ns = |seconds: i64, rest: i64| (seconds * 1_000_000_000 + rest).to_string();
    [
        ns(found.mtime(), found.mtime_nsec()),
        ns(found.ctime(), found.ctime_nsec()),
    ]
}
