//! Lock files as stock restic writes and honours them.
//!
//! While a snapshot is being made a shared lock lies in `locks`, because `restic prune` removes packs
//! that no index names yet, and only a lock holds it back. An exclusive lock of another program is
//! respected. A prune holds an exclusive lock that vrs itself does not wait for, because its snapshots
//! and its prune agree otherwise (see `prune`); stock restic waits for it. A lock is renewed while
//! packs are sent; one that was not renewed for half an hour, or whose process on this host has ended,
//! counts for nothing (restic's design document, "Locks").

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use rustic_core::Id;
use serde::{Deserialize, Serialize};

use crate::backend::Kind;
use crate::error::{Error, Result};
use crate::object::Vault;
use crate::parallel::{self, lock};
use crate::platform;

const STALE_AFTER: SignedDuration = SignedDuration::from_mins(30);
const FARTHEST_AHEAD: SignedDuration = SignedDuration::from_hours(24);
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
    /// [`OURS`] in vrs's own locks; restic ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
}

const OURS: &str = "vrs";

/// What a lock is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Adding snapshots: waits for other programs that need the repository for themselves.
    Adding,
    /// Pruning: waits for all of restic's locks and for another prune.
    Pruning,
}

impl Purpose {
    fn is_hindered_by(self, file: &LockFile) -> bool {
        match self {
            Self::Adding => file.exclusive && !file.is_ours(),
            Self::Pruning => file.exclusive || !file.is_ours(),
        }
    }
}

/// A lock, held until it is dropped; shared unless it is that of a prune.
pub(crate) struct SharedLock<'a> {
    vault: Vault<'a>,
    purpose: Purpose,
    held: Mutex<Held>,
    /// Stale locks of vrs that were there before: of processes that were killed.
    left: Mutex<Vec<Id>>,
}

struct Held {
    id: Id,
    since: Timestamp,
}

impl<'a> SharedLock<'a> {
    /// Locks, unless another program holds an exclusive lock.
    pub(crate) fn acquire(vault: Vault<'a>) -> Result<Self> {
        Self::acquire_for(vault, Purpose::Adding, || Ok(())).map(|(lock, ())| lock)
    }

    /// The same; with the lock in place, `look` is done while others' locks are looked for once more.
    pub(crate) fn acquire_and<T: Send>(
        vault: Vault<'a>,
        look: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Self, T)> {
        Self::acquire_for(vault, Purpose::Adding, look)
    }

    /// Locks for a prune: exclusively in the eyes of stock restic.
    pub(crate) fn acquire_to_prune(vault: Vault<'a>) -> Result<Self> {
        Self::acquire_for(vault, Purpose::Pruning, || Ok(())).map(|(lock, ())| lock)
    }

    fn acquire_for<T: Send>(
        vault: Vault<'a>,
        purpose: Purpose,
        look: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Self, T)> {
        let left = refuse(vault, purpose, None)?;
        let since = Timestamp::now();
        let id = write(vault, purpose, since)?;
        let held = Self {
            vault,
            purpose,
            held: Mutex::new(Held { id, since }),
            left: Mutex::new(left),
        };
        // Another program may have locked at the same moment; dropping ours is the way back.
        let (alone, seen) = parallel::both(|| refuse(vault, purpose, Some(id)), look);
        alone?;
        Ok((held, seen?))
    }

    /// Whether somebody else is using the repository and said so.
    pub(crate) fn has_company(&self) -> Result<bool> {
        let own = lock(&self.held).id;
        Ok(!Present::look(self.vault, Some(own))?.living.is_empty())
    }

    /// Whether a vrs was killed while it held a lock, and nobody has looked after that since.
    pub(crate) fn follows_a_kill(&self) -> bool {
        !lock(&self.left).is_empty()
    }

    /// Removes what killed ones left, after what they may have left undone was looked after.
    pub(crate) fn clear(&self) -> Result<()> {
        let left = std::mem::take(&mut *lock(&self.left));
        left.into_iter().try_for_each(|id| remove(self.vault, id))
    }

    /// Keeps the lock from becoming stale.
    pub(crate) fn renew(&self) -> Result<()> {
        let now = Timestamp::now();
        let mut held = lock(&self.held);
        if now.duration_since(held.since) < RENEW_AFTER {
            return Ok(());
        }
        let id = write(self.vault, self.purpose, now)?;
        let former = std::mem::replace(&mut *held, Held { id, since: now });
        remove(self.vault, former.id)
    }
}

impl Drop for SharedLock<'_> {
    fn drop(&mut self) {
        // What stays behind is stale as soon as this process ends.
        let _ = remove(self.vault, lock(&self.held).id);
    }
}

/// Removes a lock, unless somebody else has done so. Where nothing may be removed it stays until it is
/// stale, which harms nobody.
fn remove(vault: Vault<'_>, id: Id) -> Result<()> {
    match vault.backend.remove(Kind::Lock, id) {
        Err(Error::NotPermitted { .. }) => Ok(()),
        Err(_) if is_gone(vault, id) => Ok(()),
        outcome => outcome,
    }
}

fn is_gone(vault: Vault<'_>, id: Id) -> bool {
    let present = vault.backend.list::<Id>(Kind::Lock);
    present.is_ok_and(|present| !present.contains_key(&id))
}

fn write(vault: Vault<'_>, purpose: Purpose, time: Timestamp) -> Result<Id> {
    let file = LockFile {
        time,
        exclusive: purpose == Purpose::Pruning,
        program: Some(OURS.to_owned()),
        hostname: platform::hostname(),
        username: String::new(),
        pid: std::process::id(),
    };
    let (id, sealed) = vault.prepare(&file, 0)?;
    vault.backend.write(Kind::Lock, id, sealed.into())?;
    Ok(id)
}

/// Refuses to go on beside a lock that hinders it. Returns what killed processes of vrs left.
fn refuse(vault: Vault<'_>, purpose: Purpose, own: Option<Id>) -> Result<Vec<Id>> {
    let Present { living, left } = Present::look(vault, own)?;
    let hindrance = living.iter().find(|file| purpose.is_hindered_by(file));
    hindrance.map_or(Ok(left), |file| {
        let (location, holder) = (vault.backend.location().to_owned(), file.holder());
        Err(Error::Locked { location, holder })
    })
}

/// The locks that are there, one's own aside.
#[derive(Default)]
struct Present {
    /// Those that count.
    living: Vec<LockFile>,
    /// Stale ones of vrs.
    left: Vec<Id>,
}

impl Present {
    /// Those that other programs on this host left when they ended are removed.
    fn look(vault: Vault<'_>, own: Option<Id>) -> Result<Self> {
        let mut present = Self::default();
        let ids = vault.backend.list::<Id>(Kind::Lock)?.into_keys();
        let ids = ids.filter(|id| Some(*id) != own);
        parallel::each(
            vault.backend.connections(),
            ids.map(Ok),
            || Ok(()),
            |(), id| Ok((id, read(vault, id)?)),
            // A lock that is gone, or no lock at all, holds nobody back.
            |(id, file)| match file {
                Some(file) if !file.is_stale() => present.living.push(file),
                Some(file) if file.is_ours() => present.left.push(id),
                Some(file) if file.is_of_ended_process() => {
                    // One that stays is stale all the same.
                    let _ = remove(vault, id);
                }
                _ => {}
            },
        )?;
        Ok(present)
    }
}

fn read(vault: Vault<'_>, id: Id) -> Result<Option<LockFile>> {
    match vault.backend.read(Kind::Lock, id) {
        Err(error) if error.is_of_whole_storage() => Err(error),
        read => Ok(read
            .ok()
            .and_then(|sealed| vault.open("lock", id, &sealed).ok())),
    }
}

impl LockFile {
    fn is_ours(&self) -> bool {
        self.program.as_deref() == Some(OURS)
    }

    fn is_stale(&self) -> bool {
        !self.is_credible(Timestamp::now()) || self.is_of_ended_process()
    }

    /// Whether it is recent, and not from a future so far that nobody would ever outwait it.
    fn is_credible(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.time);
        age <= STALE_AFTER && age >= -FARTHEST_AHEAD
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_a_wrong_clock_keeps_nobody_out_for_years() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let is_credible = |time: &str| {
            let file = LockFile {
                time: time.parse().unwrap(),
                exclusive: true,
                hostname: "elsewhere".to_owned(),
                username: String::new(),
                pid: 1,
                program: None,
            };
            file.is_credible(now)
        };
        assert!(is_credible("2026-11-26T11:31:00Z"));
        assert!(!is_credible("2026-11-26T11:29:00Z"));
        // Clocks may differ by some hours.
        assert!(is_credible("2026-11-26T18:00:00Z"));
        assert!(!is_credible("2029-01-01T00:00:00Z"));
    }
}
