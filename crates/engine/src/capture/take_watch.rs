//! When a VirtualBox snapshot that is being taken has to be cancelled.

use std::path::Path;
use std::time::{Duration, Instant};

use super::CaptureIntent;
use crate::platform;

/// A guest that changes its RAM faster than it is written never lets a live snapshot end: 44 GB were
/// written for 128 MB of RAM (tried on 7.2.22). One that ends writes little more than the RAM.
const LIVE_MAX_RAMS: u64 = 2;

/// What devices and a small machine's RAM may take on top of that.
const LIVE_EXTRA_BYTES: u64 = 256 << 20;

/// How long a live snapshot may take.
const LIVE_MAX_TIME: Duration = Duration::from_secs(600);

/// A capture gives up rather than leave less than this for the rest of the host.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// Looks at what VirtualBox writes meanwhile.
pub(super) struct TakeWatch<'a> {
    intent: &'a CaptureIntent,
    begun: Instant,
    live_max_bytes: Option<u64>,
}

impl<'a> TakeWatch<'a> {
    /// From now on, for a machine with so much RAM.
    pub(super) fn new(intent: &'a CaptureIntent, ram_bytes: u64, live: bool) -> Self {
        let max_bytes = ram_bytes
            .saturating_mul(LIVE_MAX_RAMS)
            .saturating_add(LIVE_EXTRA_BYTES);
        Self {
            intent,
            begun: Instant::now(),
            live_max_bytes: live.then_some(max_bytes),
        }
    }

    /// Whether going on would leave too little for the rest of the host.
    pub(super) fn is_full(&self) -> bool {
        platform::free_bytes(&self.intent.snapshot_folder).is_ok_and(|free| free < MIN_FREE_BYTES)
    }

    /// Whether a live one takes so long, or so much, that it will not end.
    pub(super) fn never_ends(&self) -> bool {
        self.is_hopeless_after(self.begun.elapsed())
    }

    fn is_hopeless_after(&self, time: Duration) -> bool {
        self.live_max_bytes.is_some_and(|max_bytes| {
            time > LIVE_MAX_TIME || self.written_bytes(&self.intent.snapshot_folder) > max_bytes
        })
    }

    fn written_bytes(&self, folder: &Path) -> u64 {
        let files = super::files_in(folder).unwrap_or_default();
        let new = files.iter().filter(|file| {
            !self.intent.files_before.contains(file)
                && file.extension().is_some_and(|extension| extension == "sav")
        });
        let sizes = new.map(|file| std::fs::metadata(file).map_or(0, |file| file.len()));
        sizes.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureMode;

    const RAM_BYTES: u64 = 128 << 20;

    fn intent(snapshot_folder: &Path) -> CaptureIntent {
        CaptureIntent {
            machine: uuid::Uuid::from_u128(1).into(),
            machine_name: "web".to_owned(),
            mode: CaptureMode::Live,
            virtualbox_snapshot_name: "vrs transient 1".to_owned(),
            was_paused: false,
            had_window: false,
            stateless_key_before: None,
            snapshot_folder: snapshot_folder.to_owned(),
            files_before: vec![snapshot_folder.join("old.sav")],
            media_before: Vec::new(),
            settings_file: "/vms/web/web.vbox".into(),
            tracker: None,
        }
    }

    fn write(file: &Path, length_bytes: u64) {
        let file = std::fs::File::create(file).unwrap();
        file.set_len(length_bytes).unwrap();
    }

    #[test]
    fn a_live_take_is_given_up_by_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let intent = intent(folder.path());
        let (usual, long) = (LIVE_MAX_TIME, LIVE_MAX_TIME + Duration::from_secs(1));
        let live = TakeWatch::new(&intent, RAM_BYTES, true);
        assert!(!live.is_hopeless_after(usual) && live.is_hopeless_after(long));
        let plain = TakeWatch::new(&intent, RAM_BYTES, false);
        assert!(!plain.is_hopeless_after(long), "its guest stands still");
    }

    #[test]
    fn a_live_take_is_given_up_by_what_it_wrote_itself() {
        let folder = tempfile::tempdir().unwrap();
        let intent = intent(folder.path());
        let live = TakeWatch::new(&intent, RAM_BYTES, true);
        write(&folder.path().join("old.sav"), 1 << 40);
        write(&folder.path().join("new.vdi"), 1 << 40);
        let most = 2 * RAM_BYTES + LIVE_EXTRA_BYTES;
        write(&folder.path().join("new.sav"), most);
        assert!(!live.never_ends());
        write(&folder.path().join("new.sav"), most + 1);
        assert!(live.never_ends());
    }
}
