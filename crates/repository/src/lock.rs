//! Lock files as stock restic writes and honours them.
//!
//! While a snapshot is being made a shared lock lies in `locks`, because `restic prune` removes packs
//! that no index names yet, and only a lock holds it back. An exclusive lock of another program is
//! respected. A lock is renewed while packs are sent; one that was not renewed for half an hour, or
//! whose process on this host has ended, counts for nothing (restic's design document, "Locks").

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use rustic_core::Id;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::object::Vault;
use crate::parallel::lock;
use crate::platform;

const STALE_AFTER: SignedDuration = SignedDuration::from_mins(30);
const RENEW_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A lock file as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
}

/// A shared lock, held until it is dropped.
pub(crate) struct SharedLock<'a> {
    vault: Vault<'a>,
    folder: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    path: PathBuf,
    since: Timestamp,
}

impl<'a> SharedLock<'a> {
    /// Locks, unless another program holds an exclusive lock.
    pub(crate) fn acquire(vault: Vault<'a>) -> Result<Self> {
        let folder = vault.backend.lock_folder();
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::local(&folder, "create", None, error))?;
        refuse_exclusive(vault, &folder)?;
        let since = Timestamp::now();
        let path = write(vault, &folder, since)?;
        let lock = Self {
            vault,
            folder,
            held: Mutex::new(Held { path, since }),
        };
        // Another program may have locked at the same moment; dropping ours is the way back.
        refuse_exclusive(vault, &lock.folder)?;
        Ok(lock)
    }

    /// Keeps the lock from becoming stale.
    pub(crate) fn renew(&self) -> Result<()> {
        let now = Timestamp::now();
        let mut held = lock(&self.held);
        if now.duration_since(held.since) < RENEW_AFTER {
            return Ok(());
        }
        let path = write(self.vault, &self.folder, now)?;
        let former = std::mem::replace(&mut *held, Held { path, since: now });
        remove(&former.path).map_err(|error| Error::local(&former.path, "remove", None, error))
    }
}

impl Drop for SharedLock<'_> {
    fn drop(&mut self) {
        // What stays behind is stale as soon as this process ends.
        let _ = remove(&lock(&self.held).path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn write(vault: Vault<'_>, folder: &Path, time: Timestamp) -> Result<PathBuf> {
    let file = LockFile {
        time,
        exclusive: false,
        hostname: platform::hostname(),
        username: String::new(),
        pid: std::process::id(),
    };
    let (id, sealed) = vault.prepare(&file, 0)?;
    let path = folder.join(id.to_hex().as_str());
    let failed = |error| Error::local(&path, "write", None, error);
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    io::Write::write_all(&mut temporary, &sealed).map_err(failed)?;
    temporary
        .persist(&path)
        .map_err(|error| failed(error.error))?;
    Ok(path)
}

fn refuse_exclusive(vault: Vault<'_>, folder: &Path) -> Result<()> {
    let failed = |error| Error::local(folder, "list", None, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A lock that is gone, or no lock at all, holds nobody back.
        let Some(file) = read(vault, &path) else {
            continue;
        };
        if file.is_stale() {
            if file.is_of_ended_process() {
                remove(&path).map_err(|error| Error::local(&path, "remove", None, error))?;
            }
        } else if file.exclusive {
            let (location, holder) = (vault.backend.location().to_owned(), file.holder());
            return Err(Error::Locked { location, holder });
        }
    }
    Ok(())
}

fn read(vault: Vault<'_>, path: &Path) -> Option<LockFile> {
    let id: Id = path.file_name()?.to_str()?.parse().ok()?;
    let sealed = std::fs::read(path).ok()?;
    vault.open("lock", id, &sealed).ok()
}

impl LockFile {
    fn is_stale(&self) -> bool {
        Timestamp::now().duration_since(self.time) > STALE_AFTER || self.is_of_ended_process()
    }

    fn is_of_ended_process(&self) -> bool {
        self.hostname == platform::hostname()
            && !self.hostname.is_empty()
            && !platform::is_running(self.pid)
    }

    fn holder(&self) -> String {
        let Self {
            username,
            hostname,
            pid,
            time,
            ..
        } = self;
        format!("process {pid} of {username} on {hostname} since {time:.0}")
    }
}
