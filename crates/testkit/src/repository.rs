//! A repository that opens at once.
//!
//! Deriving a key from a password is slow on purpose, and tests open repositories by the thousand.
//! The fixture is an empty repository as `vrs init` makes it, its key encrypted anew with scrypt's
//! smallest cost. Stock restic opens it, too.

use std::fs;
use std::path::Path;

/// The password of [`make_repository`]'s repositories.
pub const REPOSITORY_PASSWORD: &str = "correct horse";

const CONFIG: &[u8] = include_bytes!("../fixtures/repository/config");
const KEY_NAME: &str = "a004cc2fceb7a2bc0a613625daac3727c59cece612b627228503e4d78b1676c3";
const KEY: &[u8] = include_bytes!(
    "../fixtures/repository/keys/a004cc2fceb7a2bc0a613625daac3727c59cece612b627228503e4d78b1676c3"
);

/// Puts an empty repository into `folder`, which need not exist. All of them have the same id.
///
/// # Panics
/// When the folder cannot be written.
pub fn make_repository(folder: &Path) {
    for inner in ["data", "index", "keys", "locks", "snapshots"] {
        fs::create_dir_all(folder.join(inner)).expect("a folder of the repository");
    }
    fs::write(folder.join("config"), CONFIG).expect("the repository's configuration");
    fs::write(folder.join("keys").join(KEY_NAME), KEY).expect("the repository's key");
}
