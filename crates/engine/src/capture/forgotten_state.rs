//! A saved state of ours that VirtualBox wrote and does not know of.
//!
//! VirtualBox saves the machine's state and then fails to write the settings that name it, as on a full
//! disk; at the next change of the machine that fails it forgets the state too, and the machine is
//! powered off (seen on 7.2.22). It also forgets it by itself, at a moment without a client. The file
//! holds the only copy of the guest's memory then.
//!
//! Guarantees: a state that VirtualBox still knows is kept in its memory; one that it forgot is given
//! back to the machine if it is whole and nothing ran since it was written.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vrs_progress::Progress;
use vrs_virtualbox::{HeldClient, MachineState, MachineStatus, SavedState};

use super::freeze::Capture;
use super::{CaptureMode, files_in};
use crate::error::{Error, Result};
use crate::journal::Step;

/// The line is the second of the log.
const MAX_READ_BYTES: u64 = 16 << 10;

impl Capture<'_> {
    /// Keeps VirtualBox from forgetting a state that was saved for the capture, where its settings do
    /// not name it. They are not written for that: a failure would have it forgotten.
    pub(super) fn keep_unnamed_state(&self, status: &MachineStatus) -> Result<Option<HeldClient>> {
        let is_saved = status.state == MachineState::Saved;
        if self.intent.mode != CaptureMode::SaveState
            || !is_saved
            || status.is_saved_state_named()?
        {
            return Ok(None);
        }
        Ok(Some(self.virtualbox.hold_client(self.intent.machine)?))
    }

    /// Whether the machine is saved. One that is off is given the state that was saved for the capture.
    pub(super) fn has_state_again(&mut self) -> Result<bool> {
        let status = self.settle()?;
        if !status.state.is_off() {
            return Ok(status.state == MachineState::Saved);
        }
        let Some(state) = self.whole_new_state()? else {
            return Ok(false);
        };
        if has_run_since(&state, &status.settings_file)? {
            self.progress.warn(&format!(
                "machine '{}' has run since its state was saved for the capture, or its log does not tell; '{}' holds its memory of then, and is left there",
                self.intent.machine_name,
                state.display()
            ));
            // As what is not ours to remove.
            self.intent.files_before.push(state);
            return Ok(false);
        }
        self.announce(Step::AdoptState)?;
        self.progress.step("adopt-state");
        let machine = self.intent.machine;
        self.virtualbox
            .adopt_state(machine, &state, self.progress)?;
        Ok(true)
    }

    fn whole_new_state(&self) -> Result<Option<PathBuf>> {
        for file in files_in(&self.intent.snapshot_folder)? {
            if !self.intent.files_before.contains(&file) && is_whole_state(&file, self.progress)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

/// Whether a file is a saved state, and was not cut short with the process that wrote it.
fn is_whole_state(file: &Path, progress: &dyn Progress) -> Result<bool> {
    if file.extension().is_none_or(|extension| extension != "sav") {
        return Ok(false);
    }
    match SavedState::verify(file, progress) {
        Ok(_) => Ok(true),
        Err(vrs_virtualbox::Error::SavedState { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the machine's last process began after the state was written. The settings do not tell: it
/// is they that could not be written.
fn has_run_since(state: &Path, settings_file: &Path) -> Result<bool> {
    let written = std::fs::metadata(state).and_then(|metadata| metadata.modified());
    let written = written.map_err(|error| Error::io("look at", state, error))?;
    let folder = settings_file.parent().unwrap_or(Path::new("/"));
    let begun = log_opened(&folder.join("Logs").join("VBox.log"));
    Ok(begun.is_none_or(|begun| begun >= written.try_into().unwrap_or(Timestamp::MIN)))
}

/// When VirtualBox began the log of the machine's last process.
fn log_opened(log: &Path) -> Option<Timestamp> {
    let head = BufReader::new(File::open(log).ok()?.take(MAX_READ_BYTES));
    head.lines()
        .map_while(std::io::Result::ok)
        .find_map(|line| opened_in(&line))
}

fn opened_in(line: &str) -> Option<Timestamp> {
    let (_, time) = line.split_once(" Log opened ")?;
    time.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    // As 7.2.22 wrote it.
    #[case(
        "00:00:00.013861 Log opened 2026-11-27T04:40:19.746598000Z",
        Some("2026-11-27T04:40:19.746598Z")
    )]
    #[case("00:00:00.013861 Log opened at noon", None)]
    #[case(
        "00:00:00.013860 VirtualBox VM 7.2.22_Debian r175245 linux.amd64 (Oct 22 2026 07:33:03) release log",
        None
    )]
    fn the_time_in_a_log(#[case] line: &str, #[case] expected: Option<&str>) {
        let expected = expected.map(|time| time.parse().unwrap());
        assert_eq!(opened_in(line), expected);
    }
}
