//! Where a repository is, as the user writes it.
//!
//! A [`Location`] is checked when it is parsed: what this version cannot reach is an error there
//! and not a folder with a strange name later.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Schemes that restic and its relatives know, so that `sftp:host:/srv` is not taken for a folder.
const FOREIGN_SCHEMES: [&str; 13] = [
    "azure", "b2", "gs", "http", "https", "opendal", "rclone", "rest", "s3", "sftp", "ssh",
    "swift", "webdav",
];

/// The place of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    folder: PathBuf,
}

impl Location {
    /// Understands `PATH` and `local:PATH`.
    pub fn parse(text: &str) -> Result<Self> {
        let path = match text.split_once(':') {
            Some(("local", path)) => path,
            Some((scheme, _)) if FOREIGN_SCHEMES.contains(&scheme) => {
                // What follows the scheme may hold a password.
                let location = format!("{scheme}:...");
                return Err(Error::UnsupportedLocation {
                    location,
                    scheme: scheme.to_owned(),
                });
            }
            _ => text,
        };
        if path.is_empty() || path.contains('\0') {
            let reason = if path.is_empty() {
                "it is empty"
            } else {
                "it holds a null character"
            };
            return Err(Error::InvalidLocation {
                location: text.to_owned(),
                reason,
            });
        }
        Ok(Self {
            folder: PathBuf::from(path),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.folder.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_odd_names_are_folders() {
        for (text, folder) in [
            ("/srv/repo", "/srv/repo"),
            ("local:/srv/repo", "/srv/repo"),
            ("local:sftp:x", "sftp:x"),
            ("my: folder", "my: folder"),
            ("-dash", "-dash"),
            (r"C:\repo", r"C:\repo"),
        ] {
            assert_eq!(
                Location::parse(text).unwrap().folder(),
                Path::new(folder),
                "{text}"
            );
        }
    }

    #[test]
    fn other_storage_is_refused_without_repeating_a_secret() {
        let error = Location::parse("rest:https://me:hunter2@host/").unwrap_err();
        insta::assert_snapshot!(error, @r#"repositories at "rest:..." are not supported yet: the scheme "rest" is unknown here; use a folder, as PATH or local:PATH"#);
        let error = Location::parse("local:").unwrap_err();
        insta::assert_snapshot!(error, @r#""local:" is not a repository location: it is empty; give a folder, as PATH or local:PATH"#);
    }
}
