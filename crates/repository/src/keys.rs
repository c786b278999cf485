//! From a password to the master key.
//!
//! Every key file is tried, a damaged one does not hide the others, and a key counts only when it
//! opens the configuration. Scrypt runs once per process and key; its cost is bounded, because the
//! parameters come from a file that anybody with access to the storage can change.

use rustic_core::repofile::{ConfigFile, KeyFile};
use rustic_core::{FileType, Id};
use secrecy::zeroize::Zeroizing;

use crate::backend::{Backend, name};
use crate::crypto::{MasterKey, hash};
use crate::error::{Error, Result};
use crate::object::Vault;
use crate::password::Password;

/// Four times what restic writes (N = 2^15, r = 8).
const LARGEST_SCRYPT_BYTES: u64 = 128 << 20;
const LARGEST_SCRYPT_P: u32 = 16;

/// What the password opened.
pub(crate) struct Opened {
    pub(crate) key: MasterKey,
    pub(crate) config: ConfigFile,
}

/// Finds the key that the password opens and that opens the configuration.
pub(crate) fn open(backend: &Backend, password: &Password) -> Result<Opened> {
    let keys = backend.list::<Id>(FileType::Key)?;
    let mut obstacle = keys
        .is_empty()
        .then(|| backend.damaged("the key folder", "it holds no key"));
    for id in keys.keys() {
        match try_key(backend, id, password) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => obstacle = Some(error),
        }
    }
    Err(obstacle.unwrap_or_else(|| Error::WrongPassword {
        location: backend.location().to_owned(),
    }))
}

fn try_key(backend: &Backend, id: &Id, password: &Password) -> Result<Option<Opened>> {
    let file = read_key_file(backend, id)?;
    let Some(key) = master_key(&file, password) else {
        return Ok(None);
    };
    let config = Vault { backend, key: &key }.load(FileType::Config, Id::default())?;
    Ok(Some(Opened { key, config }))
}

/// Reads a key file and makes sure that using it is possible and not too costly.
pub(crate) fn read_key_file(backend: &Backend, id: &Id) -> Result<KeyFile> {
    let damaged = |reason: String| backend.damaged(name(FileType::Key, id), reason);
    let content = backend.read(FileType::Key, *id)?;
    if Id::new(hash(&content)) != *id {
        return Err(damaged("its content does not match its name".to_owned()));
    }
    let file: KeyFile =
        serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
    let bytes = u64::from(file.n)
        .saturating_mul(u64::from(file.r))
        .saturating_mul(128);
    let sound = file.kdf == "scrypt"
        && file.n.is_power_of_two()
        && file.n > 1
        && file.r > 0
        && (1..=LARGEST_SCRYPT_P).contains(&file.p)
        && bytes <= LARGEST_SCRYPT_BYTES;
    if sound {
        Ok(file)
    } else {
        Err(damaged("its scrypt parameters are out of range".to_owned()))
    }
}

fn master_key(file: &KeyFile, password: &Password) -> Option<MasterKey> {
    let (encrypt, k, r) = file.key_from_password(&password.expose()).ok()?.to_keys();
    let (encrypt, k, r) = (
        Zeroizing::new(encrypt),
        Zeroizing::new(k),
        Zeroizing::new(r),
    );
    MasterKey::from_parts(&encrypt, &k, &r)
}
