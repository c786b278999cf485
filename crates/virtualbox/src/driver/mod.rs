//! Driver of the program `VBoxManage`.
//!
//! Guarantees: no exit code is trusted alone; what changes something looks afterwards whether it is
//! so, and fails if it is not. Every call ends: a command that shows no sign of life is stopped, as
//! VirtualBox wants it, and ended only then. Failures that pass by themselves, such as a machine
//! locked for a moment, are tried again a few times; changes say so through
//! [`Progress::note`](vrs_progress::Progress::note). One command at a time.
//!
//! Not guaranteed: that nobody else works with VirtualBox at the same time.
//!
//! Source of all formats and texts: VirtualBox 7.2.22, whose outputs are in `tests/recorded`.

mod client;
mod execution;
mod extra_data;
mod failure;
mod host;
mod image_ids;
mod locate;
mod machinereadable;
mod machines;
mod media;
mod order;
mod power;
mod process;
mod settle;
mod virtualbox_snapshot;
mod virtualbox_snapshot_list;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::client::HeldClient;
use self::failure::Failure;
pub use self::host::{ExtensionPack, HostInfo};
pub use self::image_ids::ImageIds;
pub use self::locate::LocateOptions;
pub use self::machinereadable::MachineReadable;
use self::machinereadable::behind_line;
pub use self::machines::{MachineStatus, RegisteredMachine};
pub use self::media::{DeviceType, Medium, MediumKind};
pub use self::order::SERVICE_ENDS_WITHIN;
pub use self::power::Frontend;
use self::process::{Ended, Invocation, Watch};
pub use self::virtualbox_snapshot::TakeVirtualBoxSnapshot;
pub use self::virtualbox_snapshot_list::{ListedVirtualBoxSnapshot, parse_virtualbox_snapshots};
use crate::error::{Error, ErrorKind, Result};
use crate::platform;
use crate::result_code::ResultCode;
use crate::version::Version;

/// How long to wait before each further attempt: 3 seconds in all. A machine that is locked for
/// longer is in use.
const ANSWER_DELAY: Duration = Duration::from_millis(500);

const DELAYS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// The program `VBoxManage` of an installed VirtualBox.
#[derive(Debug)]
pub struct VBoxManage {
    program: PathBuf,
    version: Version,
    patience: Duration,
    secret_variables: Vec<OsString>,
    /// VirtualBox refuses calls on a machine while another locks it; questions lock it, too.
    one_at_a_time: Mutex<()>,
}

impl VBoxManage {
    /// Its version.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Where it is.
    #[must_use]
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Asks for something and gives the answer, which is what VirtualBox had said by then if its service
    /// ends meanwhile without a word.
    fn ask<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let invocation = self.invocation(arguments);
        let mut delays = DELAYS.into_iter();
        loop {
            let error = match self.run(&invocation, &Watch::patient(self.patience)) {
                Ok(ended) if !is_aborted(Failure::parse(&ended.stderr).code.as_ref()) => {
                    return Ok(without_warning(&ended.stdout));
                }
                // `VBoxManage` shows what it has, and ends well.
                Ok(ended) => exit_error(&invocation, &ended),
                Err(error) => error,
            };
            // VBoxManage itself crashes once in several thousand calls (seen on 7.2.22).
            let is_crash =
                matches!(error, Error::Signal { .. }) && error.kind() != ErrorKind::Interrupted;
            let may_pass = is_passing(&error) || is_crash || is_aborted(error.code());
            match delays.next() {
                Some(delay) if may_pass => std::thread::sleep(delay),
                _ => return Err(error),
            }
        }
    }

    /// Asks for something and understands the answer. Asks once more where that makes no sense: while
    /// VirtualBox's service ends an answer may be cut, without an error (seen on 7.2.22).
    fn ask_for<A: AsRef<OsStr>, T>(
        &self,
        arguments: &[A],
        parse: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        if let Ok(understood) = parse(&self.ask(arguments)?) {
            return Ok(understood);
        }
        std::thread::sleep(ANSWER_DELAY);
        parse(&self.ask(arguments)?).map_err(|problem| self.output_error(arguments, problem))
    }

    fn run(&self, invocation: &Invocation, watch: &Watch<'_>) -> Result<Ended> {
        // Whoever panicked with the lock held left nothing half-done in it.
        let _turn = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        successful(invocation, invocation.run(watch)?)
    }

    fn invocation<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned())
            .collect();
        Invocation {
            program: self.program.clone(),
            arguments,
            secret_variables: self.secret_variables.clone(),
        }
    }

    fn shown<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        self.invocation(arguments).to_string()
    }

    fn output_error<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        problem: String,
    ) -> Error {
        Error::Output {
            command: self.shown(arguments),
            problem,
        }
    }

    fn not_done<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        problem: String,
    ) -> Error {
        Error::NotDone {
            command: self.shown(arguments),
            problem,
        }
    }
}

/// What a command left behind, if it says that it succeeded.
fn successful(invocation: &Invocation, ended: Ended) -> Result<Ended> {
    if ended.was_stopped && !ended.status.success() {
        return Err(Error::Cancelled {
            command: invocation.to_string(),
        });
    }
    if let Some(signal) = platform::signal_of(ended.status) {
        return Err(Error::Signal {
            command: invocation.to_string(),
            signal,
        });
    }
    if ended.status.success() {
        Ok(ended)
    } else {
        Err(exit_error(invocation, &ended))
    }
}

fn exit_error(invocation: &Invocation, ended: &Ended) -> Error {
    const MAX_KEPT_CHARS: usize = 8000;
    let failure = Failure::of(ended);
    Error::Exit {
        command: invocation.to_string(),
        status: ended.status.to_string().into(),
        code: failure.code,
        message: failure.message,
        stderr: ended.stderr.chars().take(MAX_KEPT_CHARS).collect(),
        is_busy: failure.is_busy,
        is_passing: failure.is_passing,
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(
        error,
        Error::Exit {
            is_passing: true,
            ..
        }
    )
}

/// What a question comes to whose service, or machine's process, is killed while it answers (seen on
/// 7.2.22). A change may have been made for all that.
fn is_aborted(code: Option<&ResultCode>) -> bool {
    code.is_some_and(|code| code.name() == "NS_ERROR_ABORT")
}

/// Debian's wrapper writes a warning before the real output if the kernel driver is missing: a line
/// `WARNING: ...` and lines that begin with a tab, with empty ones between them.
fn without_warning(text: &str) -> String {
    let mut rest = text;
    while rest.starts_with("WARNING: ") {
        rest = behind_line(rest);
        while rest.starts_with('\t') || rest.trim_start_matches('\n').starts_with('\t') {
            rest = behind_line(rest);
        }
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_of_the_wrapper_is_skipped() {
        let warning = include_str!("../../tests/recorded/7.2.22/wrapper-warning.txt");
        for text in ["", "7.2.22_Debianr175245\n", "\n\"a\" {id}\n"] {
            assert_eq!(without_warning(&format!("{warning}{text}")), text);
            assert_eq!(without_warning(&format!("{warning}{warning}{text}")), text);
            assert_eq!(without_warning(text), text);
        }
    }
}
