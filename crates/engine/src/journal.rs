//! The write-ahead journal: one file per machine, from the intent to the last step.
//!
//! A journal is a text file of JSON lines. The first line says what was intended, each further line
//! one step that is about to be made. It is removed when the operation is done, so that a journal
//! that exists means work that is owed.
//!
//! Guarantees: a record is on disk (`fsync`, the folder included) before [`Journal::record`]
//! returns; a line that a crash cut short is ignored, because what it announces had not begun.
//! Not guaranteed: that a recorded step was made. Whoever recovers looks at the real state.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vrs_progress::Progress;
use vrs_virtualbox::{MachineId, VirtualBoxSnapshotId};

use crate::capture::CaptureIntent;
use crate::doctor::RepairIntent;
use crate::error::{Error, Result};
use crate::migrate::MigrateIntent;
use crate::restore::RestoreIntent;

/// What an operation set out to do, with everything that finishing it later needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Intent {
    /// A machine is brought into the state of a snapshot, in place or as a clone.
    Restore(Box<RestoreIntent>),
    /// Trouble with a machine or with VirtualBox's media registry is repaired.
    Repair(RepairIntent),
    /// A running machine is made to hold still while it is read.
    Capture(CaptureIntent),
    /// A machine moves away from this host.
    Migrate(MigrateIntent),
}

impl Intent {
    /// What the user would call it.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Restore(intent) => intent.title(),
            Self::Repair(intent) => intent.title(),
            Self::Capture(intent) => intent.title(),
            Self::Migrate(intent) => intent.title(),
        }
    }

    /// Name of the machine; empty if it is about none.
    #[must_use]
    pub fn machine_name(&self) -> &str {
        match self {
            Self::Restore(intent) => &intent.machine_name,
            Self::Repair(intent) => &intent.machine_name,
            Self::Capture(intent) => &intent.machine_name,
            Self::Migrate(intent) => &intent.machine_name,
        }
    }
}

/// A step that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// A running machine is powered off.
    PowerOff,
    /// The machine is taken out of VirtualBox's list.
    Unregister,
    /// The old settings file is moved into the journal's folder.
    SetAside,
    /// Files are written in place.
    Write,
    /// Images get their identities.
    Identify,
    /// Files that the machine no longer has are removed.
    Remove,
    /// The settings file is put in place.
    Settle,
    /// The machine is registered.
    Register,
    /// VirtualBox is told to leave the RAM out of VirtualBox snapshots of the machine.
    SetKey,
    /// The machine is paused.
    Pause,
    /// A transient VirtualBox snapshot is taken.
    TakeVirtualBoxSnapshot,
    /// The machine runs on.
    Resume,
    /// VirtualBox saves RAM as it did before.
    PutKeyBack,
    /// A VirtualBox snapshot that an earlier take left for tracking is deleted.
    DeleteTracker,
    /// One that stays until the next take is taken.
    LeaveTracker,
    /// The transient VirtualBox snapshot is deleted, which merges its images.
    Merge,
    /// The machine's state is saved.
    SaveState,
    /// VirtualBox is told of a saved state that it forgot.
    AdoptState,
    /// The machine is started again.
    Start,
    /// The machine is marked as moved away.
    MarkMoved,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Intent {
        version: u32,
        begun: jiff::Timestamp,
        intent: Box<Intent>,
    },
    Step {
        step: Step,
        at: jiff::Timestamp,
    },
    VirtualBoxSnapshot {
        id: VirtualBoxSnapshotId,
        at: jiff::Timestamp,
    },
}

const JOURNAL_VERSION: u32 = 1;

/// The journals of this user on this host.
#[derive(Debug, Clone)]
pub struct Journals {
    folder: PathBuf,
}

/// A journal that an earlier run left behind.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The machine that it is about.
    pub machine: MachineId,
    /// When the operation began.
    pub begun: jiff::Timestamp,
    /// What it was to do.
    pub intent: Intent,
    /// The furthest step that any run had announced: one that finishes the operation begins at the
    /// first again.
    pub furthest_step: Option<Step>,
    /// The transient VirtualBox snapshot that was made.
    pub virtualbox_snapshot: Option<VirtualBoxSnapshotId>,
    /// Whether VirtualBox listed the machine when the operation began.
    pub was_registered: bool,
}

impl Journals {
    /// The journals below vrs's state folder. Nothing is created yet.
    #[must_use]
    pub fn new(state_folder: &Path) -> Self {
        Self {
            folder: state_folder.join("journal"),
        }
    }

    /// Every operation that is owed, oldest first.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read the journal folder", &self.folder, error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|error| Error::io("read the journal folder", &self.folder, error))?
                .path();
            if let Some(machine) = machine_of(&path) {
                found.extend(read(&path, machine)?);
            }
        }
        found.sort_by_key(|journal| journal.begun);
        Ok(found)
    }

    /// What is owed to one machine.
    pub fn of_machine(&self, machine: MachineId) -> Result<Option<Unfinished>> {
        let path = self.path(machine);
        if path.exists() {
            read(&path, machine)
        } else {
            Ok(None)
        }
    }

    /// Starts a journal. The intent is on disk when this returns.
    pub fn begin(
        &self,
        machine: MachineId,
        intent: Intent,
        progress: &dyn Progress,
    ) -> Result<Journal> {
        progress.step("journal-begin");
        create_private_folder(&self.folder)?;
        // What an operation that is done kept must not pass for what this one puts aside.
        remove_attachments(&self.folder, machine)?;
        let path = self.path(machine);
        let line = Line::Intent {
            version: JOURNAL_VERSION,
            begun: jiff::Timestamp::now(),
            intent: Box::new(intent),
        };
        let unwritten = path.with_extension("new");
        let mut file = create_private_file(&unwritten)?;
        append(&mut file, &line, &unwritten)?;
        fs::rename(&unwritten, &path)
            .map_err(|error| Error::io("create the journal", &path, error))?;
        sync_folder(&self.folder)?;
        Ok(Journal {
            path,
            file,
            machine,
        })
    }

    /// Continues a journal that an earlier run left.
    pub fn resume(&self, machine: MachineId) -> Result<Journal> {
        let path = self.path(machine);
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(|error| Error::io("open the journal", &path, error))?;
        // A record that was cut short must not swallow the next one.
        file.write_all(b"\n")
            .map_err(|error| Error::io("write the journal", &path, error))?;
        Ok(Journal {
            path,
            file,
            machine,
        })
    }

    /// Ends a journal that an earlier run left, as [`Journal::finish`] does. Takes no room on a disk
    /// that is full.
    pub fn finish(&self, machine: MachineId, progress: &dyn Progress) -> Result<()> {
        finish(&self.path(machine), machine, progress)
    }

    /// Where a file belonging to a journal is kept, for example a settings file that was set aside.
    #[must_use]
    pub fn attachment(&self, machine: MachineId, name: &str) -> PathBuf {
        self.folder.join(format!("{machine}.{name}"))
    }

    fn path(&self, machine: MachineId) -> PathBuf {
        self.folder.join(format!("{machine}.journal"))
    }
}

/// A journal being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    machine: MachineId,
}

impl Journal {
    /// Announces a step. It is on disk when this returns.
    pub fn record(&mut self, step: Step, progress: &dyn Progress) -> Result<()> {
        progress.step("journal-record");
        append(
            &mut self.file,
            &Line::Step {
                step,
                at: jiff::Timestamp::now(),
            },
            &self.path,
        )
    }

    /// Writes down the id of the transient VirtualBox snapshot.
    pub fn record_virtualbox_snapshot(
        &mut self,
        id: VirtualBoxSnapshotId,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.step("journal-record");
        let at = jiff::Timestamp::now();
        append(
            &mut self.file,
            &Line::VirtualBoxSnapshot { id, at },
            &self.path,
        )
    }

    /// The operation is done: nothing is owed any more. Files kept beside the journal go too.
    pub fn finish(self, progress: &dyn Progress) -> Result<()> {
        finish(&self.path, self.machine, progress)
    }
}

fn finish(path: &Path, machine: MachineId, progress: &dyn Progress) -> Result<()> {
    progress.step("journal-finish");
    fs::remove_file(path).map_err(|error| Error::io("remove the journal", path, error))?;
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    sync_folder(folder)?;
    remove_attachments(folder, machine)
}

fn remove_attachments(folder: &Path, machine: MachineId) -> Result<()> {
    let prefix = format!("{machine}.");
    let entries = fs::read_dir(folder)
        .map_err(|error| Error::io("read the journal folder", folder, error))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let path = entry.path();
            fs::remove_file(&path)
                .map_err(|error| Error::io("remove a journal file", &path, error))?;
        }
    }
    Ok(())
}

fn machine_of(path: &Path) -> Option<MachineId> {
    (path.extension()? == "journal").then(|| path.file_stem()?.to_str()?.parse().ok())?
}

fn read(path: &Path, machine: MachineId) -> Result<Option<Unfinished>> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the journal", path, error)),
    };
    let mut lines = text.lines();
    let unreadable = || Error::JournalUnreadable {
        path: path.to_owned(),
    };
    let first: serde_json::Value = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(unreadable)?;
    let version = first
        .pointer("/intent/version")
        .and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(JOURNAL_VERSION)) {
        return Err(Error::JournalNewer {
            path: path.to_owned(),
        });
    }
    let Ok(Line::Intent { begun, intent, .. }) = serde_json::from_value(first) else {
        return Err(unreadable());
    };
    let mut unfinished = Unfinished {
        machine,
        begun,
        intent: *intent,
        furthest_step: None,
        virtualbox_snapshot: None,
        was_registered: false,
    };
    for line in lines {
        match serde_json::from_str(line) {
            Ok(Line::Step { step, .. }) => {
                unfinished.was_registered |= step == Step::Unregister;
                unfinished.furthest_step = unfinished.furthest_step.max(Some(step));
            }
            Ok(Line::VirtualBoxSnapshot { id, .. }) => unfinished.virtualbox_snapshot = Some(id),
            _ => {}
        }
    }
    Ok(Some(unfinished))
}

fn append(file: &mut File, line: &Line, path: &Path) -> Result<()> {
    let failed = |error| Error::io("write the journal", path, error);
    let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
    text.push('\n');
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

use crate::platform::{create_private_file, create_private_folder, sync_folder};
