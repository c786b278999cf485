//! The ticks in which file times move.
//!
//! A file that was changed in the tick in which it was read could change once more without a trace in its
//! stamp; git's index guards against the same.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use vrs_repository::store::FileStamp;

use crate::error::{Error, Result};

/// Where times are whole seconds, as on FAT.
const COARSEST: Duration = Duration::from_secs(2);
/// Elsewhere, at most: a tick of a slow kernel's clock is of 10 milliseconds.
const FINE: Duration = Duration::from_millis(20);

/// Whether a change after the file was read would show in its stamp, on whatever file system.
pub(crate) fn is_settled(stamp: &FileStamp, read_at: Timestamp) -> bool {
    age(stamp, read_at) > COARSEST
}

/// The stamp of a file in which every later change will show: waits for the next tick if need be.
pub(crate) fn settled_stamp(path: &Path) -> Result<FileStamp> {
    let look = || FileStamp::of(path).map_err(|error| Error::io("look at", path, error));
    let stamp = look()?;
    let is_whole_second = latest_ns(&stamp).checked_rem(1_000_000_000) == Some(0);
    let tick = if is_whole_second { COARSEST } else { FINE };
    std::thread::sleep(tick.saturating_sub(age(&stamp, Timestamp::now())));
    look()
}

/// Nothing for a stamp of the future.
fn age(stamp: &FileStamp, now: Timestamp) -> Duration {
    let nanoseconds = now.as_nanosecond().saturating_sub(latest_ns(stamp));
    u64::try_from(nanoseconds).map_or(Duration::ZERO, Duration::from_nanos)
}

fn latest_ns(stamp: &FileStamp) -> i128 {
    stamp.mtime_ns.max(stamp.ctime_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_just_changed_is_not_settled_and_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"1").unwrap();
        let now = Timestamp::now();
        assert!(!is_settled(&FileStamp::of(&path).unwrap(), now));
        let later = now.checked_add(jiff::SignedDuration::from_secs(3)).unwrap();
        assert!(is_settled(&FileStamp::of(&path).unwrap(), later));
        for _ in 0..5 {
            std::fs::write(&path, b"2").unwrap();
            let stamp = settled_stamp(&path).unwrap();
            std::fs::write(&path, b"3").unwrap();
            assert_ne!(FileStamp::of(&path).unwrap(), stamp);
        }
    }
}
