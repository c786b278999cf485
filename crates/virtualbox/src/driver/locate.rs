//! Finding `VBoxManage`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::process::{Invocation, Watch};
use super::{VBoxManage, successful, without_warning};
use crate::error::{Error, Result};
use crate::platform::{PROGRAM, USUAL_FOLDERS};
use crate::version::{MINIMUM_REASON, MINIMUM_VERSION, Version};

/// Where to look for `VBoxManage`, and how patient to be with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocateOptions {
    /// The program itself; nothing else is looked at then.
    pub program: Option<PathBuf>,
    /// Folders to look in first: the environment variable `PATH`.
    pub search_path: Option<OsString>,
    /// How long a command may give no sign of life. Starting VirtualBox's daemon while another one
    /// ends takes 10 seconds, opening images on a sleeping disk longer.
    pub patience: Duration,
    /// Variables of the environment that VBoxManage does not get, because the daemon that it starts
    /// outlives vrs: those that hold secrets.
    pub secret_variables: Vec<OsString>,
}

impl Default for LocateOptions {
    fn default() -> Self {
        Self {
            program: None,
            search_path: None,
            patience: Duration::from_secs(120),
            secret_variables: Vec::new(),
        }
    }
}

impl VBoxManage {
    /// Finds the program, in the order: the one named, the search path, the places where installers
    /// put it; and sees whether it works and is not too old.
    pub fn locate(options: &LocateOptions) -> Result<Self> {
        let program = match &options.program {
            Some(program) => named(program)?,
            None => found(options.search_path.as_ref())?,
        };
        let version = version_of(&program, options)?;
        if version.numbers() < MINIMUM_VERSION {
            return Err(Error::TooOld {
                program,
                found: version,
                minimum: Version::minimum(),
                reason: MINIMUM_REASON,
            });
        }
        Ok(Self {
            program,
            version,
            patience: options.patience,
            secret_variables: options.secret_variables.clone(),
            one_at_a_time: Mutex::new(()),
        })
    }
}

fn named(program: &Path) -> Result<PathBuf> {
    let found = std::path::absolute(program)
        .ok()
        .and_then(|path| which::which_in(path, None::<&Path>, "/").ok());
    found.ok_or_else(|| Error::NotAProgram {
        program: program.to_owned(),
    })
}

fn found(search_path: Option<&OsString>) -> Result<PathBuf> {
    let usual = USUAL_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(PROGRAM));
    let in_path = search_path.and_then(|path| which::which_in(PROGRAM, Some(path), "/").ok());
    let mut candidates = in_path
        .into_iter()
        .chain(usual.filter_map(|path| which::which_in(path, None::<&Path>, "/").ok()));
    candidates.next().ok_or_else(|| Error::NoProgram {
        looked_in: std::iter::once("the search path")
            .chain(USUAL_FOLDERS.iter().copied())
            .map(ToOwned::to_owned)
            .collect(),
    })
}

fn version_of(program: &Path, options: &LocateOptions) -> Result<Version> {
    let invocation = Invocation {
        program: program.to_owned(),
        arguments: vec!["--version".into()],
        secret_variables: options.secret_variables.clone(),
    };
    let ended = successful(
        &invocation,
        invocation.run(&Watch::patient(options.patience))?,
    )?;
    let answer = without_warning(&ended.stdout);
    Version::parse(&answer).ok_or_else(|| Error::Output {
        command: invocation.to_string(),
        problem: format!(
            "{:?} is no version",
            answer.chars().take(80).collect::<String>()
        ),
    })
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::ErrorKind;

    fn program(folder: &Path, version: &str) -> PathBuf {
        let path = folder.join(PROGRAM);
        std::fs::write(&path, format!("#!/bin/sh\nprintf '%b' '{version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn locate(program: Option<PathBuf>, search_path: Option<&Path>) -> Result<VBoxManage> {
        let search_path = search_path.map(|path| path.as_os_str().to_owned());
        VBoxManage::locate(&LocateOptions {
            program,
            search_path,
            ..LocateOptions::default()
        })
    }

    #[test]
    fn the_named_one_is_taken_before_that_in_the_search_path() {
        let folder = tempfile::tempdir().unwrap();
        let (named, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::create_dir(&named).unwrap();
        std::fs::create_dir(&other).unwrap();
        let named = program(&named, "7.2.22r1\\n");
        program(
            &other,
            "WARNING: no driver\\n\\t more\\n\\n\\t more\\n7.1.4r2\\n",
        );
        assert_eq!(
            locate(Some(named.clone()), Some(&other)).unwrap().program(),
            named
        );
        assert_eq!(
            locate(None, Some(&other)).unwrap().version().to_string(),
            "7.1.4r2"
        );
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file, folder.path().to_owned(), folder.path().join("none")] {
            assert!(matches!(
                locate(Some(path), None),
                Err(Error::NotAProgram { .. })
            ));
        }
    }

    #[test]
    fn old_and_strange_versions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let old = locate(Some(program(folder.path(), "6.1.50r161033")), None).unwrap_err();
        assert!(matches!(&old, Error::TooOld { .. }), "{old:?}");
        assert_eq!(old.kind(), ErrorKind::NoVirtualBox);
        let strange = locate(Some(program(folder.path(), "hello")), None).unwrap_err();
        assert!(matches!(&strange, Error::Output { .. }), "{strange:?}");
    }
}
