//! How long the guest stood still, as VirtualBox itself logs it.
//!
//! Not guaranteed: an answer. The log is for people and may be absent, cut or in another form.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a capture adds to the log is a few kilobytes.
const MAX_READ_BYTES: u64 = 4 << 20;

/// The machine's log from now on.
pub(super) struct PauseLog {
    file: PathBuf,
    from_bytes: u64,
}

impl PauseLog {
    /// Starts to look at the log in a machine's folder.
    pub(super) fn begin(machine_folder: &Path) -> Self {
        let file = machine_folder.join("Logs").join("VBox.log");
        let from_bytes = std::fs::metadata(&file).map_or(0, |log| log.len());
        Self { file, from_bytes }
    }

    /// How long the guest has stood still since then.
    pub(super) fn paused(&self) -> Option<Duration> {
        let mut log = File::open(&self.file).ok()?;
        log.seek(SeekFrom::Start(self.from_bytes)).ok()?;
        let mut added = Vec::new();
        log.take(MAX_READ_BYTES).read_to_end(&mut added).ok()?;
        paused_in(&String::from_utf8_lossy(&added))
    }
}

/// Adds up the times from leaving RUNNING to coming back to it.
fn paused_in(log: &str) -> Option<Duration> {
    let mut stopped_at = None;
    let mut paused = None;
    for line in log.lines() {
        let Some((time, change)) = line.split_once(" Changing the VM state from ") else {
            continue;
        };
        let time = time_of(time)?;
        if change.starts_with("'RUNNING' to ") {
            stopped_at = Some(time);
        } else if change.ends_with(" to 'RUNNING'")
            && let Some(stopped) = stopped_at.take()
        {
            let pause = time.checked_sub(stopped)?;
            paused = paused.unwrap_or(Duration::ZERO).checked_add(pause);
        }
    }
    paused
}

/// `00:01:02.123456`, the time since the machine was started.
fn time_of(text: &str) -> Option<Duration> {
    let (clock, fraction) = text.split_once('.')?;
    let seconds = clock.split(':').try_fold(0_u64, |sum, part| {
        sum.checked_mul(60)?.checked_add(part.parse().ok()?)
    })?;
    let micros = fraction.get(..6)?.parse().ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 7.2.22 wrote it.
    const LOG: &str = "\
00:00:02.712901 Changing the VM state from 'RUNNING' to 'SUSPENDING'
00:00:02.714086 Changing the VM state from 'SUSPENDING' to 'SUSPENDED'
00:00:02.714616 Changing the VM state from 'SUSPENDED' to 'SAVING'
00:00:02.779944 Changing the VM state from 'SAVING' to 'SUSPENDED'
00:00:02.814142 Changing the VM state from 'SUSPENDED' to 'RESUMING'
00:00:02.814923 Changing the VM state from 'RESUMING' to 'RUNNING'
";

    #[test]
    fn a_pause_is_read_from_the_log() {
        assert_eq!(paused_in(LOG), Some(Duration::from_micros(102_022)));
        let twice = format!("{LOG}00:00:03.000000 something else\n{LOG}");
        assert_eq!(paused_in(&twice), Some(Duration::from_micros(204_044)));
    }

    #[test]
    fn what_is_not_there_is_not_made_up() {
        assert_eq!(paused_in(""), None);
        assert_eq!(paused_in(LOG.lines().next().unwrap()), None);
        assert_eq!(paused_in(&LOG.replace("00:00:02", "x")), None);
    }
}
