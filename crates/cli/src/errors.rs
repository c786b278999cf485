//! The one place where errors become texts, hints and exit codes.

use std::error::Error as _;
use std::io;

use serde::Serialize;
use vrs_engine::ErrorKind;

use crate::config::ConfigError;
use crate::exit::Exit;
use crate::password::PasswordError;

/// The result of everything in the command line.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] vrs_engine::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The repository did not open with the password from `password_source`.
    #[error("{error}")]
    WrongPassword {
        error: vrs_engine::Error,
        password_source: String,
    },
    /// The request makes no sense as given.
    #[error("{message}")]
    Usage { message: String },
    /// A local file that a command was to write.
    #[error("could not write '{place}'")]
    Write { place: String, source: io::Error },
    /// What was asked for could not be written.
    #[error("could not write the result")]
    Output(#[from] io::Error),
    /// A service must name the program that it runs.
    #[error("the path of this program is unknown")]
    NoProgram { source: io::Error },
    #[error("could not listen to Ctrl-C")]
    Signals(#[from] ctrlc::Error),
    /// The user said no.
    #[error("nothing was changed")]
    Declined,
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
        }
    }

    /// Whether it only means that the reader of the output had enough.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub fn exit(&self) -> Exit {
        match self {
            _ if self.is_broken_pipe() => Exit::Success,
            Self::Engine(error) => exit_of(error.kind()),
            Self::Password(error) if error.is_interrupt() => Exit::Interrupted,
            Self::Usage { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => hint_for(error).map(str::to_owned),
            Self::WrongPassword {
                password_source, ..
            } => Some(format!("the password came from {password_source}")),
            _ => None,
        }
    }

    pub fn engine(&self) -> Option<&vrs_engine::Error> {
        match self {
            Self::Engine(error) | Self::WrongPassword { error, .. } => Some(error),
            _ => None,
        }
    }
}

const fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::NeedsRecovery => Exit::NeedsRecovery,
        ErrorKind::Busy => Exit::Busy,
        ErrorKind::Interrupted => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

/// What the command line can add to a text of the engine.
const fn hint_for(error: &vrs_engine::Error) -> Option<&'static str> {
    use vrs_engine::Error as Engine;
    match error {
        Engine::NoVirtualBox { .. } => Some(
            "a machine can also be named by the path of its .vbox file, which needs no VirtualBox",
        ),
        Engine::NotAsExpected { .. } | Engine::NeedsRecovery { .. } => {
            Some("`vrs recover --dry-run` shows what is owed")
        }
        _ => None,
    }
}

/// An error as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What happened, why, and what to do.
    pub message: String,
    /// The errors that led to it, the nearest first.
    pub causes: Vec<String>,
    /// What else may help.
    pub hint: Option<String>,
    /// The command that VirtualBox was given and all it wrote, if the user wants to see such things.
    pub virtualbox: Option<String>,
    /// The exit code that it leads to.
    pub exit_code: u8,
}

impl Failure {
    pub fn new(error: &Error, verbose: bool) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self {
            message: error.to_string(),
            causes,
            hint: error.hint(),
            virtualbox: error
                .engine()
                .filter(|_| verbose)
                .and_then(virtualbox_output),
            exit_code: error.exit().code(),
        }
    }
}

/// Everything VirtualBox wrote about a command that failed.
fn virtualbox_output(error: &vrs_engine::Error) -> Option<String> {
    let vrs_engine::Error::VirtualBox(error) = error else {
        return None;
    };
    match error.as_ref() {
        vrs_virtualbox::Error::Exit {
            command,
            status,
            stderr,
            ..
        } => Some(format!("{command}\n{status}\n{stderr}")),
        _ => None,
    }
}
