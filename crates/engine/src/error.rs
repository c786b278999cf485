//! Everything that can go wrong in a use case, in words for the person who has to act on it.
//!
//! Each text says what happened, why, and what to do next. [`Error::kind`] is stable and decides
//! the exit code of the command line.

use std::path::{Path, PathBuf};

use vrs_progress::Progress;
use vrs_virtualbox::{MachineId, MachineState};

use crate::file_holder::FileHolder;
use crate::portability;
use crate::preflight::{self, Verdict};

/// The result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

/// What class an [`Error`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operation failed.
    Failed,
    /// The request makes no sense as given.
    Usage,
    /// An interrupted operation has to be finished first.
    NeedsRecovery,
    /// Somebody else is using the machine or the repository.
    Busy,
    /// The user asked to stop.
    Interrupted,
}

/// An error of a use case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// VirtualBox, its settings or its driver.
    #[error(transparent)]
    VirtualBox(Box<vrs_virtualbox::Error>),
    /// The repository.
    #[error(transparent)]
    Repository(Box<vrs_repository::Error>),
    /// A disk image.
    #[error(transparent)]
    Image(Box<vrs_vdisk::Error>),
    /// A file operation.
    #[error("could not {operation} '{}'", path.display())]
    Io {
        /// What was tried, an infinitive.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No machine of that name, id or settings file.
    #[error(
        "no machine '{wanted}' is known here; `vrs vms` lists the machines, and a settings file may be named by its path"
    )]
    MachineNotFound {
        /// As typed.
        wanted: String,
    },
    /// Two machines share a name.
    #[error("'{wanted}' names {count} machines; use one of their ids: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    MachineAmbiguous {
        /// As typed.
        wanted: String,
        /// How many.
        count: usize,
        /// Which.
        ids: Vec<MachineId>,
    },
    /// VirtualBox is needed and not there.
    #[error("this needs VirtualBox: {reason}")]
    NoVirtualBox {
        /// Why VBoxManage was not found.
        reason: String,
    },
    /// The machine's state does not allow the operation.
    #[error("machine '{name}' is {state}, so it cannot be {verb} now; {advice}")]
    WrongState {
        /// The machine.
        name: String,
        /// Its state.
        state: MachineState,
        /// A past participle: "taken", "restored".
        verb: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A capture could hurt the machine.
    #[error("machine '{name}' is not taken, because that could hurt it: {}; `--force NAME` overrides a verdict of that name", refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and "))]
    PreflightRefused {
        /// The machine.
        name: String,
        /// Why.
        refusals: Vec<Verdict>,
    },
    /// The machine would not resume here.
    #[error("machine '{name}' cannot go on here where it was: {}; `--cold` leaves its memory out, so that it boots from its disks; `--force saved-state` tries it all the same", refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and "))]
    NotPortable {
        /// The machine.
        name: String,
        /// Why.
        refusals: Vec<portability::Verdict>,
    },
    /// The machine does not live here any more.
    #[error(
        "machine '{name}' moved on {day} into snapshot {snapshot} of the repository {location}; `vrs migrate --accept {snapshot}` takes it over, here or elsewhere"
    )]
    Moved {
        /// The machine.
        name: String,
        /// The snapshot.
        snapshot: String,
        /// The repository.
        location: String,
        /// When, a day.
        day: String,
    },
    /// The machine moved into the snapshot and lives nowhere yet, as far as is known.
    #[error(
        "machine '{name}' is on its way in snapshot {snapshot}; `vrs migrate --accept {snapshot}` takes it over, and `vrs clone` makes a second machine of it"
    )]
    OnItsWay {
        /// The machine.
        name: String,
        /// The snapshot.
        snapshot: String,
    },
    /// Somebody took the machine over.
    #[error(
        "machine '{name}' was taken over already: {how}; `vrs clone` makes a second machine; `--force accepted` takes it over all the same, if the other one will never run again"
    )]
    AcceptedAlready {
        /// The machine.
        name: String,
        /// How that is known.
        how: String,
    },
    /// A machine was started while it moved.
    #[error(
        "machine '{name}' was started or changed after snapshot {snapshot} was taken, so it did not move and stays here; do not accept that snapshot anywhere: delete it, then move the machine again"
    )]
    LivesOn {
        /// The machine.
        name: String,
        /// The snapshot.
        snapshot: String,
    },
    /// Other machines depend on a machine that is to move.
    #[error("machine '{name}' cannot move, because {} use{} its images; move or detach what depends on it first, or use `vrs take` and `vrs clone`", users.join(", "), if users.len() == 1 { "s" } else { "" })]
    OthersUse {
        /// The machine.
        name: String,
        /// Names of the machines.
        users: Vec<String>,
    },
    /// A file of the machine is missing.
    #[error("'{}' is part of machine '{name}' but is not there; put it back, or detach it from the machine", path.display())]
    MissingFile {
        /// The machine.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A medium that no registry knows a file for.
    #[error(
        "machine '{name}' uses medium {medium}, but no media registry says where its file is; attach the disk again in VirtualBox"
    )]
    UnknownMedium {
        /// The machine.
        name: String,
        /// The medium.
        medium: vrs_virtualbox::MediumId,
    },
    /// Somebody writes to a file of the machine.
    #[error("'{}' is open for writing by {holder}; its content cannot be trusted while it is; end that process and try again", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// The process.
        holder: FileHolder,
    },
    /// The machine changed while it was read.
    #[error(
        "machine '{name}' was started or changed while it was read ({what}); nothing was stored under a snapshot; take it again while it is powered off, what was sent is reused"
    )]
    ChangedWhileRead {
        /// The machine.
        name: String,
        /// The file or state that changed.
        what: String,
    },
    /// The RAM of a running machine could not be captured, and the user wants no snapshot without.
    #[error(
        "the memory of machine '{name}' could not be captured: {reason}; nothing was stored, because of --strict"
    )]
    MemoryLost {
        /// The machine.
        name: String,
        /// Why.
        reason: String,
    },
    /// A capture that would have filled a disk.
    #[error(
        "capturing machine '{name}' was given up, because VirtualBox would soon have had too little room to merge its images again; the machine is as it was; make room and take it again, what was sent is reused"
    )]
    RoomRanOut {
        /// The machine.
        name: String,
    },
    /// There is too little room to delete the VirtualBox snapshot that an earlier take left.
    #[error(
        "machine '{name}' was not taken, and nothing was changed: what its guest wrote since the last take has to be merged into '{}' first, and VirtualBox does that only where {needed_mib} MiB are free; make room there", base.display()
    )]
    NoRoomToMerge {
        /// The machine.
        name: String,
        /// An image on the volume.
        base: PathBuf,
        /// What has to be free there.
        needed_mib: u64,
    },
    /// A snapshot was taken, but the machine could not be let go.
    #[error(
        "snapshot {snapshot} of machine '{name}' was taken, but the machine is not yet as it was before; run `vrs recover` to try that again"
    )]
    ThawOwed {
        /// The machine.
        name: String,
        /// The snapshot, which is complete.
        snapshot: String,
        /// What went wrong.
        source: Box<Error>,
    },
    /// VirtualBox does not let images of an interrupted VirtualBox snapshot go.
    #[error(
        "VirtualBox's service still holds images of machine '{name}' from the VirtualBox snapshot that was interrupted, and would not open the machine the next time; power the machine off if it runs, close VirtualBox's windows and end every program that uses it, wait ten seconds, then run `vrs recover`; do not unregister the machine before"
    )]
    LeftoverImages {
        /// The machine.
        name: String,
    },
    /// A name that cannot be given to a snapshot.
    #[error("'{name}' cannot be the name of a snapshot: {reason}")]
    BadSnapshotName {
        /// As typed.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No snapshot answers to a selection.
    #[error("no snapshot '{wanted}': {reason}; `vrs list` shows what there is")]
    SnapshotNotFound {
        /// As typed.
        wanted: String,
        /// Which part of it did not match.
        reason: String,
    },
    /// A snapshot that this version cannot read.
    #[error(
        "snapshot {snapshot} was written by vrs {written_by} in manifest version {version}, which this vrs does not know; it is sound: use vrs {written_by} or newer"
    )]
    NewerManifest {
        /// The snapshot.
        snapshot: String,
        /// The manifest's version.
        version: u32,
        /// Who wrote it.
        written_by: String,
    },
    /// A manifest that cannot be understood.
    #[error(
        "the manifest of snapshot {snapshot} cannot be understood ({reason}); `vrs check` tells whether the repository is damaged, and `restic restore` still gets the files"
    )]
    BadManifest {
        /// The snapshot.
        snapshot: String,
        /// What is wrong.
        reason: String,
    },
    /// A retention policy that cannot be used.
    #[error(
        "the retention policy of the repository cannot be used: {reason}; set it again with `vrs policy set`, or use the vrs that wrote it"
    )]
    BadPolicy {
        /// Why.
        reason: String,
    },
    /// Not all snapshots are known, so that none may be deleted by a rule.
    #[error(
        "nothing is pruned, because a snapshot cannot be read and rules would count the others wrongly: {reason}; `vrs check --repair` removes what is of no use"
    )]
    CannotJudge {
        /// Which, and why.
        reason: String,
    },
    /// Another vrs works on the machine.
    #[error("another vrs is working on machine '{name}'; wait until it is done")]
    MachineBusy {
        /// The machine.
        name: String,
    },
    /// Work is owed.
    #[error("{title} was interrupted; run `vrs recover` to finish it first")]
    NeedsRecovery {
        /// The interrupted operation.
        title: String,
    },
    /// The journal makes no sense.
    #[error("the journal '{}' cannot be read; look at it with a text editor: the machine it names may be unregistered and half restored; restore that machine again, then remove the file", path.display())]
    JournalUnreadable {
        /// The file.
        path: PathBuf,
    },
    /// The journal is of another version.
    #[error("the journal '{}' was written by another version of vrs; finish its operation with that version", path.display())]
    JournalNewer {
        /// The file.
        path: PathBuf,
    },
    /// The journal belongs to another repository.
    #[error("{title} used the repository {wanted}; run `vrs recover` with --repo for that one")]
    OtherRepository {
        /// The operation.
        title: String,
        /// The repository's location then.
        wanted: String,
    },
    /// Files of somebody else are where the machine would go.
    #[error("'{}' is in the way and does not belong to machine '{name}'; move it away, or use `vrs clone` with another --dir", path.display())]
    InTheWay {
        /// The file or folder.
        path: PathBuf,
        /// The machine to restore.
        name: String,
    },
    /// A linked clone depends on an image that would change.
    #[error("the image '{}' would change, but {} depend{} on it; use `vrs clone` to get a second machine beside this one", path.display(), dependents.join(", "), if dependents.len() == 1 { "s" } else { "" })]
    OthersDepend {
        /// The image.
        path: PathBuf,
        /// Names of the machines.
        dependents: Vec<String>,
    },
    /// A registered medium stands in the way.
    #[error("VirtualBox has medium {medium} registered at '{}' for {user}; detach it there first", location.display())]
    MediumTaken {
        /// The medium.
        medium: vrs_virtualbox::MediumId,
        /// Where it is.
        location: PathBuf,
        /// By whom it is used.
        user: String,
    },
    /// Too little room for a restore.
    #[error("restoring needs about {needed_bytes} more bytes in '{}', but only {free_bytes} are free; make room or restore elsewhere", folder.display())]
    NoSpace {
        /// Where.
        folder: PathBuf,
        /// How much would be written.
        needed_bytes: u64,
        /// How much is there.
        free_bytes: u64,
    },
    /// Giving an interrupted operation up would lose data.
    #[error("{title} cannot be undone: {reason}")]
    CannotUndo {
        /// The interrupted operation.
        title: String,
        /// Why not, and what to do instead.
        reason: &'static str,
    },
    /// After the work the machine is not what it should be.
    #[error(
        "machine '{name}' does not look as it should after {after}: {what}; nothing more was changed, run `vrs recover` to try the rest again"
    )]
    NotAsExpected {
        /// The machine.
        name: String,
        /// What was done.
        after: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A repair is not what it should be, before it changed anything.
    #[error("{title} was stopped: {reason}; nothing was changed, `vrs doctor` looks again")]
    RepairStopped {
        /// The repair.
        title: String,
        /// Why.
        reason: String,
    },
    /// A repair did not help.
    #[error(
        "{title} did not help: {what}; a copy of what was changed is kept, and `vrs restore` brings the whole machine back to a snapshot"
    )]
    NotCured {
        /// The repair.
        title: String,
        /// What is still wrong.
        what: String,
    },
    /// A unit of systemd that somebody else wrote.
    #[error(
        "'{}' was not written by vrs, and is left as it is; move it away or remove it, then run this again",
        path.display()
    )]
    ForeignUnit {
        /// The file.
        path: PathBuf,
    },
    /// A file with a password that others can read.
    #[error(
        "others than its owner can read the password file '{}'; run `chmod 600` on it first",
        path.display()
    )]
    OpenSecret {
        /// The file.
        path: PathBuf,
    },
    /// `systemctl` failed.
    #[error(
        "systemd did not do it: `systemctl {command}`: {reason}; run this where systemd runs, as root or with --user, or write the units to a folder with --units"
    )]
    Systemd {
        /// What it was asked.
        command: String,
        /// What it said.
        reason: String,
    },
    /// A timer is not what it must be after it was started or stopped.
    #[error("the timer '{timer}' {state}; `systemctl status '{timer}'` says more")]
    TimerState {
        /// The timer.
        timer: String,
        /// What it is.
        state: String,
    },
    /// A request that cannot be carried out as given.
    #[error("{message}")]
    Usage {
        /// What is wrong and what to do.
        message: String,
    },
    /// The user asked to stop.
    #[error("interrupted; {outcome}")]
    Interrupted {
        /// What that means for the machine.
        outcome: &'static str,
    },
}

impl From<vrs_virtualbox::Error> for Error {
    fn from(error: vrs_virtualbox::Error) -> Self {
        Self::VirtualBox(Box::new(error))
    }
}

impl From<vrs_repository::Error> for Error {
    fn from(error: vrs_repository::Error) -> Self {
        Self::Repository(Box::new(error))
    }
}

impl From<vrs_vdisk::Error> for Error {
    fn from(error: vrs_vdisk::Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// What the preflight holds against the machine, where that is the error.
    #[must_use]
    pub fn refusals(&self) -> Vec<Verdict> {
        match self {
            Self::PreflightRefused { refusals, .. } => refusals.clone(),
            Self::VirtualBox(error) => preflight::encrypted_settings(error).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Repository(error) => match error.kind() {
                vrs_repository::ErrorKind::Busy => ErrorKind::Busy,
                vrs_repository::ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ => ErrorKind::Failed,
            },
            Self::VirtualBox(error) => match error.kind() {
                vrs_virtualbox::ErrorKind::Busy => ErrorKind::Busy,
                vrs_virtualbox::ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ => ErrorKind::Failed,
            },
            Self::Image(error) => match error.kind() {
                vrs_vdisk::ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ => ErrorKind::Failed,
            },
            Self::WrongState { state, .. } if state.is_online() || state.is_transitional() => {
                ErrorKind::Busy
            }
            Self::MachineBusy { .. } | Self::FileInUse { .. } => ErrorKind::Busy,
            Self::NeedsRecovery { .. }
            | Self::NotAsExpected { .. }
            | Self::ThawOwed { .. }
            | Self::LeftoverImages { .. }
            | Self::CannotUndo { .. } => ErrorKind::NeedsRecovery,
            Self::Interrupted { .. } => ErrorKind::Interrupted,
            Self::Usage { .. } | Self::BadSnapshotName { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }
}

/// Stops here if the user asked to.
pub(crate) fn stop_if_interrupted(progress: &dyn Progress, outcome: &'static str) -> Result<()> {
    if progress.interrupted() {
        Err(Error::Interrupted { outcome })
    } else {
        Ok(())
    }
}
