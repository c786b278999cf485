//! Where the password of a repository comes from.
//!
//! The first of these that is there decides, and the others are not looked at: `--password-file` or
//! `--password-command`, `VRS_PASSWORD_FILE` or `VRS_PASSWORD_COMMAND`, `VRS_PASSWORD`, the config
//! file, the system's keyring, a prompt on the terminal. A password is never an argument, and
//! restic's own variables are not read: they belong to another repository as often as not.
//!
//! Blanks and line ends around the password in a file or in a command's output are dropped, as
//! restic does, so that both open the same repository with the same file.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secrecy::{ExposeSecret, SecretString};

use crate::keyring;
use crate::signals::Interrupt;

/// What the user said about passwords, in the order in which it counts.
#[derive(Debug, Default)]
pub struct PasswordOptions {
    pub flags: Given,
    pub environment: Given,
    pub variable: Option<SecretString>,
    pub config: Given,
}

/// A file or a command, as given in one place.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub file: Option<PathBuf>,
    pub command: Option<String>,
}

/// Where a password comes from.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    Command(String),
    Variable(SecretString),
    Keyring,
    Prompt,
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PasswordError {
    message: String,
    source: Option<io::Error>,
}

impl PasswordError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    fn io(message: String, source: io::Error) -> Self {
        Self {
            message,
            source: Some(source),
        }
    }

    /// Whether the user stopped at the prompt.
    pub fn is_interrupt(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.kind() == io::ErrorKind::Interrupted)
    }
}

/// The variables that tell the password or where it is; no child process needs them.
pub const VARIABLES: [&str; 3] = [PASSWORD, PASSWORD_FILE, PASSWORD_COMMAND];
const PASSWORD: &str = "VRS_PASSWORD";
const PASSWORD_FILE: &str = "VRS_PASSWORD_FILE";
const PASSWORD_COMMAND: &str = "VRS_PASSWORD_COMMAND";

impl Given {
    /// Reads `NAME_FILE` and `NAME_COMMAND` style variables.
    pub fn from_environment() -> Self {
        Self {
            file: variable(PASSWORD_FILE).map(PathBuf::from),
            command: variable(PASSWORD_COMMAND).and_then(|command| command.into_string().ok()),
        }
    }

    /// The source that it names, if any.
    pub fn source(&self) -> Option<Source> {
        let file = self.file.clone().map(Source::File);
        file.or_else(|| self.command.clone().map(Source::Command))
    }
}

/// `VRS_PASSWORD`.
pub fn from_variable() -> Option<SecretString> {
    variable(PASSWORD)?
        .into_string()
        .ok()
        .map(SecretString::from)
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl PasswordOptions {
    /// The source that counts. The keyring is tried before the prompt by [`Source::read`].
    pub fn source(self) -> Source {
        self.flags
            .source()
            .or_else(|| self.environment.source())
            .or_else(|| self.variable.map(Source::Variable))
            .or_else(|| self.config.source())
            .unwrap_or(Source::Keyring)
    }
}

impl Source {
    /// What to call it in a hint.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("the file '{}'", path.display()),
            // Some commands name the secret itself.
            Self::Command(_) => "the password command".to_owned(),
            Self::Variable(_) => "the variable VRS_PASSWORD".to_owned(),
            Self::Keyring => "the keyring".to_owned(),
            Self::Prompt => "the terminal".to_owned(),
        }
    }

    /// Gets the password of the repository at `location`. The second value is the source that had it.
    pub fn read(
        self,
        location: &str,
        interrupt: &Interrupt,
    ) -> Result<(SecretString, Self), PasswordError> {
        let password = match &self {
            Self::File(path) => from_file(path)?,
            Self::Command(command) => from_command(command)?,
            Self::Variable(password) => password.clone(),
            Self::Keyring => match keyring::load(location) {
                Some(password) => password,
                None => return Self::Prompt.read(location, interrupt),
            },
            Self::Prompt => interrupt
                .while_asking(|| prompt(&format!("password of the repository at {location}: ")))?,
        };
        not_empty(password, &self).map(|password| (password, self))
    }

    /// Gets the password of a new repository: typed twice, if it is typed.
    pub fn read_new(
        self,
        location: &str,
        interrupt: &Interrupt,
    ) -> Result<SecretString, PasswordError> {
        match self {
            // What the keyring may hold belonged to an earlier repository at the same place.
            Self::Keyring | Self::Prompt => {
                let password = interrupt.while_asking(|| prompt_twice(location))?;
                not_empty(password, &Self::Prompt)
            }
            other => other
                .read(location, interrupt)
                .map(|(password, _)| password),
        }
    }
}

fn not_empty(password: SecretString, source: &Source) -> Result<SecretString, PasswordError> {
    if password.expose_secret().is_empty() {
        return Err(PasswordError::new(format!(
            "the password from {} is empty",
            source.describe()
        )));
    }
    Ok(password)
}

fn from_file(path: &Path) -> Result<SecretString, PasswordError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        PasswordError::io(
            format!("could not read the password file '{}'", path.display()),
            error,
        )
    })?;
    Ok(trimmed(&SecretString::from(text)))
}

fn from_command(command: &str) -> Result<SecretString, PasswordError> {
    let words = shell_words::split(command).unwrap_or_default();
    let Some((program, arguments)) = words.split_first() else {
        return Err(PasswordError::new(
            "the password command is empty or has an open quote",
        ));
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            PasswordError::io(
                format!("could not run the password command '{program}'"),
                error,
            )
        })?;
    if !output.status.success() {
        return Err(PasswordError::new(format!(
            "the password command '{program}' failed ({})",
            output.status
        )));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| {
        PasswordError::new(format!(
            "the password command '{program}' printed no UTF-8 text"
        ))
    })?;
    Ok(trimmed(&SecretString::from(text)))
}

fn trimmed(text: &SecretString) -> SecretString {
    text.expose_secret()
        .trim_start_matches('\u{feff}')
        .trim()
        .to_owned()
        .into()
}

fn prompt(text: &str) -> Result<SecretString, PasswordError> {
    if !io::stdin().is_terminal() {
        return Err(PasswordError::new(
            "a password is needed and there is no terminal to ask on; use --password-file, --password-command or VRS_PASSWORD",
        ));
    }
    rpassword::prompt_password(text)
        .map(SecretString::from)
        .map_err(|error| {
            PasswordError::io(
                "could not read a password from the terminal".to_owned(),
                error,
            )
        })
}

fn prompt_twice(location: &str) -> Result<SecretString, PasswordError> {
    let first = prompt(&format!("new password for the repository at {location}: "))?;
    let second = prompt("the same password again: ")?;
    if first.expose_secret() == second.expose_secret() {
        Ok(first)
    } else {
        Err(PasswordError::new("the two passwords are not the same"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(file: &str, command: &str) -> Given {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Given {
            file: some(file).map(PathBuf::from),
            command: some(command),
        }
    }

    fn chosen(options: PasswordOptions) -> String {
        options.source().describe()
    }

    #[test]
    fn the_nearest_source_counts() {
        let all = || PasswordOptions {
            flags: given("", "flag"),
            environment: given("/env", "env"),
            variable: Some("secret".to_owned().into()),
            config: given("/config", ""),
        };
        assert_eq!(chosen(all()), "the password command");
        assert_eq!(
            chosen(PasswordOptions {
                flags: Given::default(),
                ..all()
            }),
            "the file '/env'"
        );
        let neither = PasswordOptions {
            flags: Given::default(),
            environment: Given::default(),
            ..all()
        };
        assert_eq!(chosen(neither), "the variable VRS_PASSWORD");
        assert_eq!(
            chosen(PasswordOptions {
                config: given("/config", ""),
                ..Default::default()
            }),
            "the file '/config'"
        );
        assert_eq!(chosen(PasswordOptions::default()), "the keyring");
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let options = PasswordOptions {
            variable: Some("hunter2".to_owned().into()),
            ..Default::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(!format!("{:?}", options.source()).contains("hunter2"));
    }

    #[test]
    fn blanks_around_it_are_dropped_as_restic_does() {
        assert_eq!(
            trimmed(&"\u{feff} a b\r\n".to_owned().into()).expose_secret(),
            "a b"
        );
    }

    #[cfg(unix)]
    #[test]
    fn commands_are_split_like_a_shell_does_and_must_succeed() {
        assert_eq!(
            from_command("printf '%s\\n' 'a  b'")
                .unwrap()
                .expose_secret(),
            "a  b"
        );
        insta::assert_snapshot!(from_command("false").unwrap_err(), @"the password command 'false' failed (exit status: 1)");
        insta::assert_snapshot!(from_command("/nowhere/x --secret").unwrap_err(), @"could not run the password command '/nowhere/x'");
        insta::assert_snapshot!(from_command("'open").unwrap_err(), @"the password command is empty or has an open quote");
        insta::assert_snapshot!(from_file(Path::new("/nowhere")).unwrap_err(), @"could not read the password file '/nowhere'");
    }

    #[test]
    fn an_empty_password_is_none() {
        let empty = not_empty(String::new().into(), &Source::File("/p".into())).unwrap_err();
        insta::assert_snapshot!(empty, @"the password from the file '/p' is empty");
    }
}
