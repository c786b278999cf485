//! What can go wrong between vrs and VirtualBox.
//!
//! Guarantees: each text says what happened, why, and what to do; the text of a [source] is not
//! repeated in it. A failed command keeps VirtualBox's own code, its words and the exact command.
//!
//! [source]: std::error::Error::source

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::id::{MachineId, MediumId};
use crate::result_code::ResultCode;
use crate::saved_state::SavedStateFault;
use crate::state::MachineState;
use crate::version::Version;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What a terminal or a system that shuts down sends; the same numbers on every Unix.
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// What to do about settings that cannot be used.
const INSTEAD: &str =
    "restore them from the file's copy with -prev at the end of its name, or from a snapshot";

/// The class of an error, stable where texts may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no usable `VBoxManage`.
    NoVirtualBox,
    /// Another program uses the machine or medium; later it may work.
    Busy,
    /// A command did not end in time.
    Timeout,
    /// Somebody had a command stopped.
    Interrupted,
    /// VirtualBox does not know the object.
    NotFound,
    /// VirtualBox refused.
    Refused,
    /// VirtualBox did or said something else than expected.
    Unexpected,
    /// Machine settings that cannot be used.
    Settings,
    /// The machine's settings are encrypted.
    Encrypted,
    /// A saved state that is damaged or incomplete.
    SavedState,
    /// A file of a kind or version that cannot be read; it need not be damaged.
    Unsupported,
    /// A file could not be read.
    Io,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No `VBoxManage` anywhere.
    #[error("VBoxManage was not found (looked in {}); install VirtualBox or give the path of VBoxManage", places(.looked_in))]
    NoProgram {
        /// Where it was looked for.
        looked_in: Vec<String>,
    },

    /// The program that was named is not there.
    #[error("'{}' is not a program that can be run; give the path of VBoxManage", .program.display())]
    NotAProgram {
        /// What was named.
        program: PathBuf,
    },

    /// The version is older than the oldest that works.
    #[error("'{}' is version {found}, vrs needs {minimum} or later: {reason}; update VirtualBox", .program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest version that works.
        minimum: Version,
        /// Why.
        reason: &'static str,
    },

    /// A command could not be started.
    #[error("cannot run {command}; check that VirtualBox is installed completely")]
    Spawn {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// A command ended with an error.
    #[error("VirtualBox says: {}{}; the command was {command}", .message, code_suffix(.code.as_ref()))]
    Exit {
        /// The command.
        command: String,
        /// How it ended, for example "exit status: 1".
        status: Box<str>,
        /// VirtualBox's code.
        code: Option<ResultCode>,
        /// VirtualBox's words, without codes and places in its source.
        message: String,
        /// All it wrote to standard error, cut where it is very long.
        stderr: Box<str>,
        /// Whether the words are those of a machine or medium in use.
        is_busy: bool,
        /// Whether it may work in a moment.
        is_passing: bool,
    },

    /// A command was ended by a signal.
    #[error(
        "{command} was ended by signal {signal}; look at the state of the machine, then try again"
    )]
    Signal {
        /// The command.
        command: String,
        /// Number of the signal.
        signal: i32,
    },

    /// A command made no progress and was ended.
    #[error(
        "{command} did nothing for {} seconds{} and was ended; look at the state of the machine in VirtualBox, then try again",
        .waited.as_secs(), percent_suffix(*.percent)
    )]
    Timeout {
        /// The command.
        command: String,
        /// How long nothing was heard of it.
        waited: Duration,
        /// How far it had got.
        percent: Option<u8>,
    },

    /// A command was cancelled, as its caller wanted.
    #[error("{command} was cancelled; what it had begun is undone")]
    Cancelled {
        /// The command.
        command: String,
    },

    /// A machine is not in a state in which that can be done.
    #[error("cannot {operation} machine {machine}, which is {state}; {}", wait_or_bring(.state))]
    WrongState {
        /// What was to be done.
        operation: &'static str,
        /// The machine.
        machine: MachineId,
        /// What it is doing.
        state: MachineState,
    },

    /// A machine stayed on the way to another state.
    #[error(
        "machine {machine} is still {state} after {} seconds; wait until that is over, or look at the machine in VirtualBox, then try again",
        .waited.as_secs()
    )]
    Unsettled {
        /// The machine.
        machine: MachineId,
        /// What it is doing.
        state: MachineState,
        /// How long it was watched.
        waited: Duration,
    },

    /// An image stays locked, by an operation that is still going on or by one that died.
    #[error(
        "VirtualBox says: {message}; an operation on it goes on, or one has died: wait for the end of the former; after the latter end all machines and VirtualBox windows, so that VirtualBox's service ends 5 seconds later, then try again; the command was {command}"
    )]
    MediaLocked {
        /// The command.
        command: String,
        /// VirtualBox's words, which name the image.
        message: String,
    },

    /// The output of a command is not what is known of VirtualBox.
    #[error(
        "cannot make sense of the answer of {command}: {problem}; this version of VirtualBox may be unknown to vrs"
    )]
    Output {
        /// The command.
        command: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A command claimed success, or nothing, but what it was to do is not done.
    #[error("{command} ended, but {problem}; look at it in VirtualBox, then try again")]
    NotDone {
        /// The command.
        command: String,
        /// What is, and what should be.
        problem: String,
    },

    /// VirtualBox does not list the machine.
    #[error("VirtualBox has no machine {machine}; `VBoxManage list vms` shows those it has")]
    NoSuchMachine {
        /// The machine.
        machine: MachineId,
    },

    /// A file could not be read or found.
    #[error("cannot {operation} '{}'", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// Settings that are no XML.
    #[error("{} are not valid XML; {INSTEAD}", settings_of(.path.as_deref()))]
    Xml {
        /// The settings file, where it is known.
        path: Option<PathBuf>,
        /// What is wrong.
        #[source]
        source: roxmltree::Error,
    },

    /// Settings that VirtualBox would not have written.
    #[error("{} are not usable: {problem}; {INSTEAD}", settings_of(.path.as_deref()))]
    Settings {
        /// The settings file, where it is known.
        path: Option<PathBuf>,
        /// What is wrong and where.
        problem: String,
    },

    /// Settings that only VirtualBox can read, with a password.
    #[error("{} are encrypted; vrs cannot read them: decrypt the machine with `VBoxManage encryptvm ID setencryption --old-password FILE` first", settings_of(.path.as_deref()))]
    Encrypted {
        /// The settings file, where it is known.
        path: Option<PathBuf>,
        /// The machine, which is not secret.
        machine: Option<MachineId>,
    },

    /// A saved state that cannot be used.
    #[error("the saved state '{}' cannot be used: {fault}", .path.display())]
    SavedState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: SavedStateFault,
    },

    /// Somebody had the reading of a file stopped.
    #[error("interrupted while reading '{}'", .path.display())]
    Interrupted {
        /// The file.
        path: PathBuf,
    },

    /// A medium to be changed is not in the settings.
    #[error(
        "the machine settings have no hard disk {medium}; they belong to another state of the machine"
    )]
    NoSuchMedium {
        /// The medium.
        medium: MediumId,
    },
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProgram { .. }
            | Self::NotAProgram { .. }
            | Self::TooOld { .. }
            | Self::Spawn { .. } => ErrorKind::NoVirtualBox,
            Self::Exit { is_busy: true, .. }
            | Self::Unsettled { .. }
            | Self::MediaLocked { .. } => ErrorKind::Busy,
            Self::WrongState { state, .. } if state.is_transitional() => ErrorKind::Busy,
            Self::WrongState { .. } => ErrorKind::Refused,
            Self::Cancelled { .. } => ErrorKind::Interrupted,
            Self::Exit {
                code: Some(code), ..
            } if code.is_not_found() => ErrorKind::NotFound,
            Self::Exit { .. } => ErrorKind::Refused,
            Self::Signal {
                signal: SIGINT | SIGTERM,
                ..
            }
            | Self::Interrupted { .. } => ErrorKind::Interrupted,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Signal { .. } | Self::Output { .. } | Self::NotDone { .. } => {
                ErrorKind::Unexpected
            }
            Self::NoSuchMachine { .. } | Self::NoSuchMedium { .. } => ErrorKind::NotFound,
            Self::Io { .. } => ErrorKind::Io,
            Self::Xml { .. } | Self::Settings { .. } => ErrorKind::Settings,
            Self::Encrypted { .. } => ErrorKind::Encrypted,
            Self::SavedState {
                fault: SavedStateFault::UnknownFormat { .. },
                ..
            } => ErrorKind::Unsupported,
            Self::SavedState { .. } => ErrorKind::SavedState,
        }
    }

    /// VirtualBox's code, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&ResultCode> {
        match self {
            Self::Exit { code, .. } => code.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn settings(problem: impl fmt::Display) -> Self {
        Self::Settings {
            path: None,
            problem: problem.to_string(),
        }
    }

    /// The same error, with the file that it is about.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        let path = Some(file.to_owned());
        match self {
            Self::Xml { source, .. } => Self::Xml { path, source },
            Self::Settings { problem, .. } => Self::Settings { path, problem },
            Self::Encrypted { machine, .. } => Self::Encrypted { path, machine },
            other => other,
        }
    }
}

fn places(looked_in: &[String]) -> String {
    looked_in.join(", ")
}

fn wait_or_bring(state: &MachineState) -> &'static str {
    if state.is_transitional() {
        "wait until that is over, then try again"
    } else {
        "bring it into a state in which that can be done, then try again"
    }
}

fn code_suffix(code: Option<&ResultCode>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

fn percent_suffix(percent: Option<u8>) -> String {
    percent.map_or_else(String::new, |percent| format!(" after {percent} %"))
}

fn settings_of(path: Option<&Path>) -> String {
    path.map_or_else(
        || "the machine settings".to_owned(),
        |path| format!("the machine settings in '{}'", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn command() -> String {
        "VBoxManage registervm '/vms/two words/two words.vbox'".to_owned()
    }

    fn file() -> Option<PathBuf> {
        Some(PathBuf::from("/vms/m/m.vbox"))
    }

    #[test]
    fn texts_about_the_program() {
        let looked_in = vec![
            "the search path".to_owned(),
            "/usr/lib/virtualbox".to_owned(),
        ];
        assert_snapshot!(Error::NoProgram { looked_in }, @"VBoxManage was not found (looked in the search path, /usr/lib/virtualbox); install VirtualBox or give the path of VBoxManage");
        assert_snapshot!(Error::NotAProgram { program: "/opt/vb".into() }, @"'/opt/vb' is not a program that can be run; give the path of VBoxManage");
        let found = Version::parse("6.1.50r161033").unwrap();
        let minimum = Version::parse("7.0.0").unwrap();
        let program = "/usr/bin/VBoxManage".into();
        assert_snapshot!(Error::TooOld { program, found, minimum, reason: "it has no nvram" }, @"'/usr/bin/VBoxManage' is version 6.1.50r161033, vrs needs 7.0.0 or later: it has no nvram; update VirtualBox");
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_snapshot!(Error::Spawn { command: command(), source }, @"cannot run VBoxManage registervm '/vms/two words/two words.vbox'; check that VirtualBox is installed completely");
    }

    #[test]
    fn texts_about_commands() {
        let exit = |code: Option<&str>| Error::Exit {
            command: command(),
            status: "exit status: 1".into(),
            code: code.map(ResultCode::new),
            message: "The object is not ready".to_owned(),
            stderr: "".into(),
            is_busy: false,
            is_passing: false,
        };
        assert_snapshot!(exit(Some("E_ACCESSDENIED")), @"VirtualBox says: The object is not ready (E_ACCESSDENIED); the command was VBoxManage registervm '/vms/two words/two words.vbox'");
        assert_snapshot!(exit(None), @"VirtualBox says: The object is not ready; the command was VBoxManage registervm '/vms/two words/two words.vbox'");
        assert_snapshot!(Error::Signal { command: command(), signal: 11 }, @"VBoxManage registervm '/vms/two words/two words.vbox' was ended by signal 11; look at the state of the machine, then try again");
        let waited = Duration::from_secs(60);
        assert_snapshot!(Error::Timeout { command: command(), waited, percent: Some(40) }, @"VBoxManage registervm '/vms/two words/two words.vbox' did nothing for 60 seconds after 40 % and was ended; look at the state of the machine in VirtualBox, then try again");
        assert_snapshot!(Error::Timeout { command: command(), waited, percent: None }, @"VBoxManage registervm '/vms/two words/two words.vbox' did nothing for 60 seconds and was ended; look at the state of the machine in VirtualBox, then try again");
        assert_snapshot!(Error::Output { command: command(), problem: "it has no line VMState=".to_owned() }, @"cannot make sense of the answer of VBoxManage registervm '/vms/two words/two words.vbox': it has no line VMState=; this version of VirtualBox may be unknown to vrs");
        assert_snapshot!(Error::NotDone { command: command(), problem: "the machine is not listed".to_owned() }, @"VBoxManage registervm '/vms/two words/two words.vbox' ended, but the machine is not listed; look at it in VirtualBox, then try again");
        assert_snapshot!(Error::NoSuchMachine { machine: MachineId::default() }, @"VirtualBox has no machine 00000000-0000-0000-0000-000000000000; `VBoxManage list vms` shows those it has");
    }

    #[test]
    fn texts_about_states() {
        let machine = MachineId::default();
        let wrong = |state| Error::WrongState {
            operation: "pause",
            machine,
            state,
        };
        assert_eq!(
            wrong(MachineState::LiveSnapshotting).kind(),
            ErrorKind::Busy
        );
        assert_eq!(wrong(MachineState::Saved).kind(), ErrorKind::Refused);
        assert_snapshot!(wrong(MachineState::LiveSnapshotting), @"cannot pause machine 00000000-0000-0000-0000-000000000000, which is livesnapshotting; wait until that is over, then try again");
        assert_snapshot!(wrong(MachineState::Saved), @"cannot pause machine 00000000-0000-0000-0000-000000000000, which is saved; bring it into a state in which that can be done, then try again");
        let waited = Duration::from_secs(60);
        assert_snapshot!(Error::Unsettled { machine, state: MachineState::Saving, waited }, @"machine 00000000-0000-0000-0000-000000000000 is still saving after 60 seconds; wait until that is over, or look at the machine in VirtualBox, then try again");
        assert_snapshot!(Error::Cancelled { command: command() }, @"VBoxManage registervm '/vms/two words/two words.vbox' was cancelled; what it had begun is undone");
        let message = "Medium '/vms/a.vdi' is locked for reading by another task".to_owned();
        assert_snapshot!(Error::MediaLocked { command: command(), message }, @"VirtualBox says: Medium '/vms/a.vdi' is locked for reading by another task; an operation on it goes on, or one has died: wait for the end of the former; after the latter end all machines and VirtualBox windows, so that VirtualBox's service ends 5 seconds later, then try again; the command was VBoxManage registervm '/vms/two words/two words.vbox'");
    }

    #[test]
    fn texts_about_settings() {
        let source = roxmltree::Document::parse("<a").unwrap_err();
        assert_snapshot!(Error::Xml { path: file(), source }, @"the machine settings in '/vms/m/m.vbox' are not valid XML; restore them from the file's copy with -prev at the end of its name, or from a snapshot");
        assert_snapshot!(Error::settings("there is no <Machine>"), @"the machine settings are not usable: there is no <Machine>; restore them from the file's copy with -prev at the end of its name, or from a snapshot");
        assert_snapshot!(Error::settings("there is no <Machine>").in_file(Path::new("/m.vbox")), @"the machine settings in '/m.vbox' are not usable: there is no <Machine>; restore them from the file's copy with -prev at the end of its name, or from a snapshot");
        assert_snapshot!(Error::Encrypted { path: file(), machine: None }, @"the machine settings in '/vms/m/m.vbox' are encrypted; vrs cannot read them: decrypt the machine with `VBoxManage encryptvm ID setencryption --old-password FILE` first");
        assert_snapshot!(Error::NoSuchMedium { medium: MediumId::default() }, @"the machine settings have no hard disk 00000000-0000-0000-0000-000000000000; they belong to another state of the machine");
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_snapshot!(Error::Io { operation: "read", path: "/vms/m/m.vbox".into(), source }, @"cannot read '/vms/m/m.vbox'");
    }
}
