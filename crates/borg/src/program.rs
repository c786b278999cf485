//! Calling `borg`: its arguments and environment, and what its complaints mean.
//!
//! Of the user's environment everything that is borg's own stays as it is (`BORG_CACHE_DIR`,
//! `BORG_REMOTE_PATH` and so on) except for passwords and the repository, which vrs is told itself.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use vrs_progress::Progress;
use vrs_repository::{Access, Error, Password, Result};

use crate::answers::LogLine;
use crate::location::BorgLocation;
use crate::platform;
use crate::repository::BorgOptions;
use crate::running::{Ended, Running};

const PROGRAM: &str = "borg";

/// Another borg may have the repository for a long take; then one is told.
const LOCK_WAIT_SECONDS: &str = "60";

/// They would come before the pipe, or lead elsewhere.
const NOT_HANDED_ON: [&str; 5] = [
    "BORG_PASSPHRASE",
    "BORG_PASSCOMMAND",
    "BORG_NEW_PASSPHRASE",
    "BORG_DISPLAY_PASSPHRASE",
    "BORG_REPO",
];

/// How `borg` is called for one repository.
#[derive(Debug, Clone)]
pub(crate) struct Borg {
    pub(crate) location: BorgLocation,
    pub(crate) password: Password,
    pub(crate) access: Access,
    secret_variables: Vec<String>,
    base_folder: Option<PathBuf>,
}

impl Borg {
    pub(crate) fn new(location: &BorgLocation, password: &Password, options: &BorgOptions) -> Self {
        Self {
            location: location.clone(),
            password: password.clone(),
            access: options.access.clone(),
            secret_variables: options.secret_variables.clone(),
            base_folder: options.base_folder.clone(),
        }
    }

    /// A call of a verb, without its arguments.
    pub(crate) fn command(&self, verb: &[&str]) -> Result<Command> {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--log-json", "--lock-wait", LOCK_WAIT_SECONDS])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("BORG_RSH", shell_words::join(self.ssh()))
            // The question is asked by `vrs check --repair`.
            .env("BORG_CHECK_I_KNOW_WHAT_I_AM_DOING", "YES")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8");
        self.keep_secrets_from(&mut command);
        if let Some(folder) = &self.base_folder {
            command.env("BORG_BASE_DIR", folder);
        }
        if let Some(limit) = self.access.upload_kib_per_second {
            command.args(["--upload-ratelimit", &limit.to_string()]);
        }
        platform::hand_over(&mut command, "BORG_PASSPHRASE_FD", &self.password)
            .map_err(|source| self.not_started(source))?;
        command.args(verb);
        Ok(command)
    }

    /// The program `ssh` and arguments, asking nothing.
    pub(crate) fn ssh(&self) -> impl Iterator<Item = &str> {
        let given = self.access.ssh.iter().map(String::as_str);
        given.chain(["-o", "BatchMode=yes"])
    }

    /// What a verb printed. `operation` says in errors what it was to do to the repository.
    pub(crate) fn answer<A: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        verb: &[&str],
        arguments: impl IntoIterator<Item = A>,
        progress: Option<&dyn Progress>,
    ) -> Result<Vec<u8>> {
        let (answer, ended) = self.run(verb, arguments, progress)?;
        self.require_success(operation, &ended)?;
        Ok(answer)
    }

    /// The same, as JSON.
    pub(crate) fn json<T: DeserializeOwned, A: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        verb: &[&str],
        arguments: impl IntoIterator<Item = A>,
        progress: Option<&dyn Progress>,
    ) -> Result<T> {
        let answer = self.answer(operation, verb, arguments, progress)?;
        self.parse(operation, &answer)
    }

    pub(crate) fn parse<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        answer: &[u8],
    ) -> Result<T> {
        serde_json::from_slice(answer).map_err(|error| {
            self.failed(
                operation,
                format!("borg's answer is not understood: {error}"),
            )
        })
    }

    /// Runs a verb to its end, however that is.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        verb: &[&str],
        arguments: impl IntoIterator<Item = A>,
        progress: Option<&dyn Progress>,
    ) -> Result<(Vec<u8>, Ended)> {
        let mut command = self.command(verb)?;
        let running = self.start(command.args(arguments))?;
        let is_interrupted = || {
            progress.is_some_and(Progress::interrupted)
                || progress.is_none() && self.access.interrupted.is_set()
        };
        let output = running.output(&is_interrupted);
        output
            .map_err(|source| self.failed("use", source.to_string()))?
            .ok_or(Error::Interrupted)
    }

    pub(crate) fn start(&self, command: &mut Command) -> Result<Running> {
        Running::start(command).map_err(|source| self.not_started(source))
    }

    /// Starts another program than borg.
    pub(crate) fn start_program(&self, program: &str, command: &mut Command) -> Result<Running> {
        Running::start(command).map_err(|source| Error::NoProgram {
            location: self.place(),
            source: format!("cannot start {program}: {source}").into(),
        })
    }

    /// Another program than borg, which gets none of the secrets.
    pub(crate) fn helper(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        self.keep_secrets_from(&mut command);
        command
    }

    fn keep_secrets_from(&self, command: &mut Command) {
        let secrets = self.secret_variables.iter().map(String::as_str);
        for variable in NOT_HANDED_ON.into_iter().chain(secrets) {
            command.env_remove(variable);
        }
    }

    pub(crate) fn place(&self) -> String {
        self.location.to_string()
    }

    fn not_started(&self, source: io::Error) -> Error {
        Error::NoProgram {
            location: self.place(),
            source: format!("cannot start {PROGRAM}: {source}").into(),
        }
    }

    pub(crate) fn failed(&self, operation: &'static str, reason: String) -> Error {
        Error::Program {
            location: self.place(),
            program: PROGRAM,
            operation,
            source: reason.into(),
        }
    }

    /// borg ends with 0, with 1 when it warned, else with 2 or more. A warning is a file that was left
    /// out or is damaged, so it is no success here.
    pub(crate) fn require_success(&self, operation: &'static str, ended: &Ended) -> Result<()> {
        if ended.status.success() {
            return Ok(());
        }
        Err(self.error_of(operation, ended))
    }

    pub(crate) fn error_of(&self, operation: &'static str, ended: &Ended) -> Error {
        let location = self.place();
        let said = complaint(&ended.log);
        let source = || said.clone().into();
        let ids: Vec<&str> = ended.log.iter().map(|line| line.msgid.as_str()).collect();
        let is = |id: &str| ids.contains(&id);
        match () {
            () if is("Repository.DoesNotExist") => Error::NoRepository { location },
            () if is("Repository.InvalidRepository") => Error::NotARepository { location },
            () if is("Repository.AlreadyExists") => Error::AlreadyARepository { location },
            () if is("PassphraseWrong") => Error::WrongPassword { location },
            () if is("LockTimeout") || is("LockErrorT") => Error::LockedByBorg {
                location,
                source: source(),
            },
            () if is("Repository.InsufficientFreeSpaceError")
                || said.contains("No space left on device") =>
            {
                Error::NoSpace {
                    place: location,
                    source: source(),
                }
            }
            () if said.contains("Permission denied (") => Error::LoginRefused {
                location,
                source: source(),
            },
            () if is("ConnectionClosed") || is("ConnectionClosedWithHint") => Error::Unreachable {
                location,
                source: source(),
            },
            () if said.is_empty() => self.failed(operation, ended.status.to_string()),
            () => self.failed(operation, said),
        }
    }
}

/// What it complained about, without the traces that are for borg's makers.
fn complaint(log: &[LogLine]) -> String {
    let is_said = |line: &&LogLine| {
        let is_loud = matches!(line.levelname.as_str(), "WARNING" | "ERROR" | "CRITICAL");
        is_loud && !line.message.starts_with("Traceback") && !line.message.trim().is_empty()
    };
    let mut said: Vec<&str> = Vec::new();
    for line in log.iter().filter(is_said) {
        let message = line.message.trim();
        if !said.contains(&message) {
            said.push(message);
        }
    }
    let trace = log
        .iter()
        .find(|line| line.message.starts_with("Traceback"));
    let last_of_trace = trace.and_then(|line| {
        let before = line.message.split("\n\n").next()?;
        before.lines().last()
    });
    said.extend(last_of_trace);
    let from = said.len().saturating_sub(8);
    said.get(from..).unwrap_or_default().join("; ")
}
