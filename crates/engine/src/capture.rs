//! Making a running machine hold still while its files are read, and letting it go again.
//!
//! | mode | how | what the snapshot holds |
//! | --- | --- | --- |
//! | memory | a transient VirtualBox snapshot; the machine stands still while its RAM is written | disks and RAM of one instant |
//! | live | the same, the RAM written while the machine runs, where that comes to an end | disks and RAM of one instant |
//! | disks-only | paused for a moment, a transient VirtualBox snapshot without RAM | all disks at one instant |
//! | savestate | the machine's state is saved, and started again when its files were read | disks and RAM of one instant |
//!
//! Guarantees: what is done to the machine is in the journal first. `thaw` finishes or undoes it
//! from any point, however often it is called: the transient VirtualBox snapshot is merged, what an
//! interrupted one left behind is removed, extra data gets its old value, a machine that was paused
//! or saved for the capture goes on; VirtualBox snapshots for tracking are deleted, unless the capture was the
//! whole of a take that left one. Apart from those, only VirtualBox snapshots, images and files that came
//! after the intent was written, and that VirtualBox does not use otherwise, are touched.
//!
//! Not guaranteed: that a machine whose process dies meanwhile goes on; it is aborted then, with its
//! disks whole.

mod forgotten_state;
mod freeze;
mod leftovers;
mod pause;
mod strays;
mod take_watch;
mod thaw;
mod tracker;
mod watch;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_virtualbox::{MachineId, MachineState, MediumId};

pub(crate) use freeze::{Capture, Frozen};
pub(crate) use tracker::TrackerFate;
pub(crate) use watch::LowWater;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::tracking::TrackerSnapshot;

/// VirtualBox takes a VirtualBox snapshot of a running machine without saving its RAM while this
/// item of its extra data is `1`. Source: `SnapshotImpl.cpp` of VirtualBox 4 to 7.2, and tried on
/// 7.2.22.
pub(crate) const STATELESS_KEY: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";

/// How the name of every transient VirtualBox snapshot begins.
pub(crate) const TRANSIENT_PREFIX: &str = "vrs transient ";

/// How a running machine is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureMode {
    /// With its RAM, standing still while that is written.
    Memory,
    /// With its RAM, running while that is written.
    Live,
    /// All disks at one instant, without RAM.
    DisksOnly,
    /// Saved, read, and started again.
    SaveState,
}

impl CaptureMode {
    /// Whether the snapshot is meant to hold the machine's RAM.
    #[must_use]
    pub const fn has_memory(self) -> bool {
        !matches!(self, Self::DisksOnly)
    }
}

/// What a capture is going to do to a machine, and how the machine was before: all that letting it
/// go needs, also after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureIntent {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// How it is captured.
    pub mode: CaptureMode,
    /// Name of the transient VirtualBox snapshot: holds an id that nobody else uses.
    pub virtualbox_snapshot_name: String,
    /// Whether the machine was paused before.
    pub was_paused: bool,
    /// Whether it had a window.
    pub had_window: bool,
    /// The value of the extra data item that makes VirtualBox leave the RAM out.
    pub stateless_key_before: Option<String>,
    /// Where VirtualBox keeps differencing images and saved states of the machine.
    pub snapshot_folder: PathBuf,
    /// What was in that folder.
    pub files_before: Vec<PathBuf>,
    /// The machine's images.
    pub media_before: Vec<MediumId>,
    /// Its settings file.
    pub settings_file: PathBuf,
    /// What happens to VirtualBox snapshots that stay between takes, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerIntent>,
}

/// VirtualBox snapshots that stay between takes, see [`tracking`](crate::tracking). Undone, a capture leaves
/// none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerIntent {
    /// Those that earlier takes left.
    pub former: Vec<TrackerSnapshot>,
    /// Name of the next one, which no other has.
    pub next_name: Option<String>,
}

impl CaptureIntent {
    /// Looks at a machine that is going to be captured.
    pub fn new(
        host: &Host,
        machine: &Machine,
        inventory: &Inventory,
        mode: CaptureMode,
        tracker: Option<TrackerIntent>,
    ) -> Result<Self> {
        let virtualbox = host.require_virtualbox()?;
        let session = virtualbox.machine(machine.id)?.session;
        let snapshot_folder = inventory
            .settings
            .resolve(&inventory.local_folder, &inventory.settings.snapshot_folder);
        Ok(Self {
            machine: machine.id,
            machine_name: machine.name.clone(),
            mode,
            virtualbox_snapshot_name: format!("{TRANSIENT_PREFIX}{}", Uuid::new_v4()),
            was_paused: machine.state == MachineState::Paused,
            had_window: session.is_some_and(|session| session != "headless"),
            stateless_key_before: virtualbox.extra_data(machine.id, STATELESS_KEY)?,
            files_before: files_in(&snapshot_folder)?,
            snapshot_folder,
            media_before: inventory.media.iter().map(|medium| medium.id).collect(),
            settings_file: machine.settings_file.clone(),
            tracker,
        })
    }

    /// What the user would call it.
    #[must_use]
    pub fn title(&self) -> String {
        format!("capturing machine '{}'", self.machine_name)
    }
}

/// The files in a folder, which may be missing.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read the folder", folder, error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths = entries.map(|entry| Ok(entry.map_err(failed)?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
