//! From a password to the master key, and the keys of a repository.
//!
//! Every key file is tried, a damaged one does not hide the others, and a key counts only when it
//! opens the configuration. A key is derived once per process and key file.

mod derivation;

use std::collections::BTreeMap;

use jiff::{Timestamp, Zoned};
use rustic_core::repofile::{ConfigFile, KeyFile};
use rustic_core::{FileType, Id};
use secrecy::zeroize::Zeroizing;

use self::derivation::Cost;
use crate::backend::{Backend, name};
use crate::crypto::{MasterKey, hash};
use crate::error::{Error, Result};
use crate::object::Vault;
use crate::password::Password;
use crate::repository::{InitOptions, ResticRepository, whole_text};

/// What the password opened.
pub(crate) struct Opened {
    /// Of the key file.
    pub(crate) id: Id,
    pub(crate) key: MasterKey,
    pub(crate) config: ConfigFile,
}

/// Finds the key that the password opens and that opens the configuration.
pub(crate) fn open(
    backend: &Backend,
    keys: &BTreeMap<Id, u32>,
    config: &[u8],
    password: &Password,
) -> Result<Opened> {
    let mut obstacle = keys
        .is_empty()
        .then(|| backend.damaged("the key folder", "it holds no key"));
    for id in keys.keys() {
        match try_key(backend, id, config, password) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => obstacle = Some(error),
        }
    }
    Err(obstacle.unwrap_or_else(|| Error::WrongPassword {
        location: backend.location().to_owned(),
    }))
}

fn try_key(
    backend: &Backend,
    id: &Id,
    config: &[u8],
    password: &Password,
) -> Result<Option<Opened>> {
    let master = unlock(backend, id, password)?;
    let Some(key) = master.as_ref().and_then(master_key) else {
        return Ok(None);
    };
    let vault = Vault {
        backend,
        key: &key,
        cache: None,
    };
    // The configuration has no name that says what it must be.
    let config_id = Id::new(hash(config));
    let config = vault.open(&name(FileType::Config, &config_id), config_id, config)?;
    Ok(Some(Opened {
        id: *id,
        key,
        config,
    }))
}

/// Reads a key file and makes sure that using it is possible and not too costly.
pub(crate) fn read_key_file(backend: &Backend, id: &Id) -> Result<KeyFile> {
    read_with_cost(backend, id).map(|(file, _)| file)
}

fn read_with_cost(backend: &Backend, id: &Id) -> Result<(KeyFile, Cost)> {
    let damaged = |reason: String| backend.damaged(name(FileType::Key, id), reason);
    let content = backend.read(FileType::Key, *id)?;
    if Id::new(hash(&content)) != *id {
        return Err(damaged("its content does not match its name".to_owned()));
    }
    let file: KeyFile =
        serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
    match Cost::of(&file) {
        Some(cost) => Ok((file, cost)),
        None => Err(damaged("its scrypt parameters are out of range".to_owned())),
    }
}

/// A key of a repository, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Whether the repository was opened with it.
    pub is_current: bool,
    /// Where it was made.
    pub hostname: Option<String>,
    /// By whom.
    pub username: Option<String>,
    /// When.
    pub created: Option<Timestamp>,
}

impl ResticRepository {
    /// All keys that can be read, and texts about the others.
    pub fn keys(&self) -> Result<(Vec<KeyRecord>, Vec<String>)> {
        let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
        for id in self.backend.list::<Id>(FileType::Key)?.into_keys() {
            match read_key_file(&self.backend, &id) {
                Ok(file) => keys.push(KeyRecord {
                    id: id.to_hex().to_string(),
                    is_current: id == self.key_id,
                    hostname: file.hostname,
                    username: file.username,
                    created: file.created.map(|time| time.timestamp()),
                }),
                Err(error) if error.is_of_whole_storage() => return Err(error),
                Err(error) => unreadable.push(whole_text(&error)),
            }
        }
        Ok((keys, unreadable))
    }

    /// Adds a key for another password. `current` must be the password that opened the repository.
    /// Returns the new key's id, which is certain to open the repository.
    pub fn add_key(
        &self,
        current: &Password,
        new: &Password,
        options: &InitOptions,
    ) -> Result<String> {
        let id = self.write_key(current, new, options)?;
        Ok(id.to_hex().to_string())
    }

    /// Puts a key for another password in place of the one that opened the repository.
    pub fn change_password(
        &mut self,
        current: &Password,
        new: &Password,
        options: &InitOptions,
    ) -> Result<String> {
        let id = self.write_key(current, new, options)?;
        self.backend.remove(FileType::Key, self.key_id)?;
        self.key_id = id;
        Ok(id.to_hex().to_string())
    }

    /// Removes a key, named by the first digits of its id. The one that opened the repository stays, so
    /// there is always one left.
    pub fn remove_key(&self, wanted: &str) -> Result<String> {
        let keys = self.backend.list::<Id>(FileType::Key)?;
        let mut found = keys
            .keys()
            .filter(|id| !wanted.is_empty() && id.to_hex().starts_with(wanted));
        let (Some(id), None) = (found.next(), found.next()) else {
            return Err(self.key_refused(wanted, "it names no key, or several"));
        };
        if *id == self.key_id {
            let reason =
                "it is the key in use; open the repository with another password to remove it";
            return Err(self.key_refused(wanted, reason));
        }
        self.backend.remove(FileType::Key, *id)?;
        Ok(id.to_hex().to_string())
    }

    fn key_refused(&self, wanted: &str, reason: &'static str) -> Error {
        Error::InvalidRequest {
            subject: format!(
                "key '{wanted}' of the repository at {}",
                self.backend.location()
            ),
            reason,
        }
    }

    fn write_key(&self, current: &Password, new: &Password, options: &InitOptions) -> Result<Id> {
        let master = unlock(&self.backend, &self.key_id, current)?;
        let master = master.ok_or_else(|| Error::WrongPassword {
            location: self.backend.location().to_owned(),
        })?;
        let id = write(&self.backend, &master, new, options)?;
        // Before anybody relies on it.
        let config = self.backend.read(FileType::Config, Id::default())?;
        match try_key(&self.backend, &id, &config, new)? {
            Some(_) => Ok(id),
            None => Err(self
                .backend
                .damaged("the new key", "it does not open the repository")),
        }
    }
}

/// The JSON of a master key.
type MasterText = Zeroizing<Vec<u8>>;

/// Writes a key file with which a password opens what is sealed with a master key. Returns its id.
pub(crate) fn write(
    backend: &Backend,
    master: &MasterText,
    password: &Password,
    options: &InitOptions,
) -> Result<Id> {
    let mut salt = vec![0; 64];
    getrandom::fill(&mut salt).map_err(|_| Error::NoRandom)?;
    let derived = Cost::NEW.derive(password, &salt)?;
    let derived = derived.ok_or_else(|| backend.damaged("a new key", "scrypt refused it"))?;
    let (n, r, p) = Cost::NEW.parameters();
    let file = KeyFile {
        hostname: options.hostname.clone(),
        username: options.username.clone(),
        created: Some(Zoned::now()),
        kdf: "scrypt".to_owned(),
        n,
        r,
        p,
        data: derived.seal(master)?,
        salt,
    };
    let invalid = |error: serde_json::Error| backend.damaged("a new key", error);
    let content = serde_json::to_vec(&file).map_err(invalid)?;
    let id = Id::new(hash(&content));
    backend.write(FileType::Key, id, content.into())?;
    Ok(id)
}

/// A new master key as text, and as the library takes it that writes the configuration.
pub(crate) fn new_master(
    backend: &Backend,
) -> Result<(MasterText, rustic_core::repofile::MasterKey)> {
    let master = rustic_core::repofile::MasterKey::new();
    let text = serde_json::to_vec(&master).map_err(|error| backend.damaged("a new key", error))?;
    Ok((text.into(), master))
}

/// The master key in a key file, if this is the password.
fn unlock(backend: &Backend, id: &Id, password: &Password) -> Result<Option<MasterText>> {
    let (file, cost) = read_with_cost(backend, id)?;
    let derived = cost.derive(password, &file.salt)?;
    Ok(derived
        .and_then(|derived| derived.open(&file.data))
        .map(Zeroizing::new))
}

fn master_key(text: &MasterText) -> Option<MasterKey> {
    let parts: rustic_core::repofile::MasterKey = serde_json::from_slice(text).ok()?;
    let (encrypt, mac) = (Zeroizing::new(parts.encrypt), parts.mac);
    let (k, r) = (Zeroizing::new(mac.k), Zeroizing::new(mac.r));
    MasterKey::from_parts(&encrypt, &k, &r)
}
