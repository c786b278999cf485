//! The config file and the folders that vrs uses.
//!
//! The file is TOML; a key that is not known is an error that names its line, because a misspelt
//! option that is silently ignored is worse. Its paths are absolute: a relative one would mean
//! another place in every folder from which vrs is started.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::Deserialize;

/// The content of the config file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the repository that is used when none is given.
    pub default_repository: Option<String>,
    /// Where VBoxManage is.
    pub vboxmanage: Option<AbsolutePath>,
    /// Seconds without a sign of life after which a call of VBoxManage is ended.
    pub vboxmanage_patience_seconds: Option<NonZeroU32>,
    /// How `ssh` is called for repositories over SFTP.
    pub ssh_command: Option<String>,
    /// How `rclone` is called.
    pub rclone_command: Option<String>,
    /// Repositories by name.
    #[serde(default)]
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// Machines by name or id.
    #[serde(default)]
    pub machines: BTreeMap<String, MachineConfig>,
}

/// What is wanted of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Whether takes keep what tells the next one which parts of its images did not change.
    #[serde(default)]
    pub track: bool,
}

/// A repository that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// Where it is.
    pub location: LocationText,
    /// File with its password.
    pub password_file: Option<AbsolutePath>,
    /// Command that prints its password.
    pub password_command: Option<String>,
    /// The profile of the AWS files whose key and region are used.
    pub aws_profile: Option<String>,
}

/// A path that means the same from everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(pub PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(not_absolute(&path))
        }
    }
}

/// The location of a repository that means the same from everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LocationText(pub String);

impl TryFrom<String> for LocationText {
    type Error = String;

    fn try_from(location: String) -> Result<Self, String> {
        let folder = location.strip_prefix("local:").unwrap_or(&location);
        let has_scheme = folder.contains(':');
        if Path::new(folder).is_absolute() || has_scheme {
            Ok(Self(location))
        } else {
            Err(not_absolute(Path::new(folder)))
        }
    }
}

fn not_absolute(path: &Path) -> String {
    format!("'{}' is not an absolute path", path.display())
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("could not read the config file '{}'", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the config file '{}' is wrong in line {line}: {message}", path.display())]
    Parse {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error(
        "the config file '{}' names '{name}' as default_repository, but has no section [repositories.{name}]",
        path.display()
    )]
    UnknownDefault { path: PathBuf, name: String },
    #[error(
        "no home folder is known; set HOME, or say with VRS_STATE_DIR where vrs may keep its journals"
    )]
    NoHome,
}

impl Config {
    /// Reads `chosen`, which must exist, or the usual file, which need not.
    pub fn load(chosen: Option<&Path>, usual: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = chosen.or(usual) else {
            return Ok(Self::default());
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && chosen.is_none() => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Whether a machine is tracked. Its id counts before its name.
    pub fn tracks(&self, id: &str, name: &str) -> bool {
        let machine = self.machines.get(id).or_else(|| self.machines.get(name));
        machine.is_some_and(|machine| machine.track)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        match &config.default_repository {
            Some(name) if !config.repositories.contains_key(name) => {
                Err(ConfigError::UnknownDefault {
                    path: path.to_owned(),
                    name: name.clone(),
                })
            }
            _ => Ok(config),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before
        .filter(|byte| *byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The folders that vrs uses, by the conventions of the operating system.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// Where the config file is looked for.
    pub config: Option<PathBuf>,
    /// Journals and locks.
    pub state: Option<PathBuf>,
    /// What only saves time, and may be removed by anybody.
    pub cache: Option<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
}

impl Folders {
    /// `VRS_STATE_DIR` and `VRS_CACHE_DIR` come before the conventions.
    pub fn find() -> Self {
        let base = etcetera::choose_base_strategy().ok();
        let usual = |folder: Option<PathBuf>| folder.map(|folder| folder.join("vrs"));
        // Windows has no folder for state: what is local to the computer is kept beside the cache.
        let state = |base: &_| {
            BaseStrategy::state_dir(base).unwrap_or_else(|| BaseStrategy::cache_dir(base))
        };
        Self {
            home: base.as_ref().map(|base| base.home_dir().to_owned()),
            config: usual(base.as_ref().map(BaseStrategy::config_dir)),
            state: environment_path("VRS_STATE_DIR").or_else(|| usual(base.as_ref().map(state))),
            cache: environment_path("VRS_CACHE_DIR").or_else(|| {
                let folder = usual(base.as_ref().map(BaseStrategy::cache_dir));
                folder.map(|folder| folder.join("repositories"))
            }),
        }
    }

    pub fn config_file(&self) -> Option<PathBuf> {
        Some(self.config.as_ref()?.join("config.toml"))
    }

    pub fn state(&self) -> Result<PathBuf, ConfigError> {
        self.state.clone().ok_or(ConfigError::NoHome)
    }
}

fn environment_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/c/config.toml"))
    }

    #[test]
    fn named_repositories_are_understood() {
        let config = parse(
            r#"
            default_repository = "nas"
            [repositories.nas]
            location = "/mnt/nas/vrs"
            password_file = "/home/me/.vrs"
            [repositories.usb]
            location = "local:/media/usb/vrs"
            password_command = "pass show vrs"
            "#,
        )
        .unwrap();
        assert_eq!(config.default_repository.as_deref(), Some("nas"));
        assert_eq!(config.repositories["nas"].location.0, "/mnt/nas/vrs");
        assert_eq!(
            config.repositories["usb"].password_command.as_deref(),
            Some("pass show vrs")
        );
    }

    #[test]
    fn a_machine_is_tracked_by_its_id_or_its_name() {
        let config = parse(
            r#"
            [machines."my web server"]
            track = true
            [machines.81b4b0b8-0d0d-4ad1-a6a2-0f3c3a5d7c11]
            track = false
            "#,
        )
        .unwrap();
        assert!(config.tracks("other id", "my web server"));
        assert!(!config.tracks("81b4b0b8-0d0d-4ad1-a6a2-0f3c3a5d7c11", "my web server"));
        assert!(!config.tracks("other id", "db"));
        insta::assert_snapshot!(parse("[machines.web]\ntracked = true\n").unwrap_err(), @"the config file '/c/config.toml' is wrong in line 2: unknown field `tracked`, expected `track`");
    }

    #[test]
    fn mistakes_name_the_file_and_the_line() {
        insta::assert_snapshot!(parse("\n\nrepo = 1\n").unwrap_err(), @"the config file '/c/config.toml' is wrong in line 3: unknown field `repo`, expected one of `default_repository`, `vboxmanage`, `vboxmanage_patience_seconds`, `ssh_command`, `rclone_command`, `repositories`, `machines`");
        insta::assert_snapshot!(parse("[repositories.a]\nlocation = \"x/y\"\n").unwrap_err(), @"the config file '/c/config.toml' is wrong in line 2: 'x/y' is not an absolute path");
        insta::assert_snapshot!(parse("[repositories.a]\nlocation = \"/x\"\npassword_file = \"p\"\n").unwrap_err(), @"the config file '/c/config.toml' is wrong in line 3: 'p' is not an absolute path");
        insta::assert_snapshot!(parse("default_repository = \"b\"\n").unwrap_err(), @"the config file '/c/config.toml' names 'b' as default_repository, but has no section [repositories.b]");
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_exist() {
        let absent = Path::new("/nowhere/config.toml");
        assert_eq!(Config::load(None, Some(absent)).unwrap(), Config::default());
        insta::assert_snapshot!(Config::load(Some(absent), None).unwrap_err(), @"could not read the config file '/nowhere/config.toml'");
    }
}
