//! A repository in restic's format.
//!
//! [`ResticRepository`] opens once, keeps the master key for the life of the process, and reads the
//! index again only when the list of index files has changed. Several processes may read and add
//! snapshots at the same time.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use rustic_core::repofile::{ConfigFile, SnapshotFile};
use rustic_core::{
    ConfigOptions, Credentials, FileType, Id, KeyOptions, Repository, RepositoryBackends,
    RepositoryOptions,
};

use crate::access::Access;
use crate::backend::{Backend, Ground};
use crate::crypto::MasterKey;
use crate::error::{Error, Result};
use crate::id::{IndexId, RepositoryId};
use crate::keys;
use crate::loaded_index::LoadedIndex;
use crate::location::Location;
use crate::object::Vault;
use crate::object_cache::ObjectCache;
use crate::parallel::{self, lock};
use crate::password::Password;
use crate::tree_copies::TreeCopies;
use crate::tree_memory::TreeMemory;

/// So often the index is read again when files of it vanish meanwhile.
const MOST_READINGS: usize = 5;

/// How a new repository is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct InitOptions {
    /// Recorded with the first key, for people.
    pub hostname: Option<String>,
    /// Recorded with the first key, for people.
    pub username: Option<String>,
    /// How storage elsewhere is reached.
    pub access: Access,
}

/// How a repository is used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Level of zstd. The first snapshot of a machine is bound by it.
    pub compression_level: i32,
    /// Size from which a pack is sent.
    pub pack_bytes: u32,
    /// Bytes of packs after which an index file is written, so that an interrupted ingest can be
    /// continued cheaply.
    pub index_every_bytes: u64,
    /// Threads that read, hash and compress; 0 means one for each processor.
    pub threads: usize,
    /// How long a pack that a prune has marked stays. All programs that use a repository must agree
    /// about it; only tests change it.
    pub grace: SignedDuration,
    /// How young a pack is left alone by a prune while others use the repository: a first snapshot over a
    /// slow line takes days.
    pub upload_time: SignedDuration,
    /// Where this host remembers what only saves time, for all repositories.
    pub cache_folder: Option<PathBuf>,
    /// How storage elsewhere is reached.
    pub access: Access,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            compression_level: 1,
            pack_bytes: 16 << 20,
            index_every_bytes: 1 << 30,
            threads: 0,
            grace: SignedDuration::from_hours(24),
            upload_time: SignedDuration::from_hours(14 * 24),
            cache_folder: None,
            access: Access::default(),
        }
    }
}

/// An open repository in restic's format, version 2.
pub struct ResticRepository {
    pub(crate) backend: Backend,
    pub(crate) key: MasterKey,
    /// Of the key file that opened it.
    pub(crate) key_id: Id,
    pub(crate) options: OpenOptions,
    config: ConfigFile,
    index: Mutex<Option<Arc<LoadedIndex>>>,
    pub(crate) memory: Mutex<TreeMemory>,
    copies: Option<ObjectCache>,
    tree_copies: Option<TreeCopies>,
    storage_alone: AtomicBool,
}

impl std::fmt::Debug for ResticRepository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ResticRepository")
            .field("location", &self.backend.location())
            .finish_non_exhaustive()
    }
}

impl ResticRepository {
    /// Makes a new repository in a new or empty folder. What an interrupted attempt left is no
    /// obstacle. Open it with [`Self::open`].
    pub fn init(location: &Location, password: &Password, options: &InitOptions) -> Result<()> {
        let backend = Backend::at(location, &options.access)?;
        if has_config(&backend)? {
            return Err(Error::AlreadyARepository {
                location: location.to_string(),
            });
        }
        clear_interrupted_init(&backend)?;
        let (text, master) = keys::new_master(&backend)?;
        backend.create()?;
        keys::write(&backend, &text, password, options)?;
        let backends = RepositoryBackends::new(backend.shared(), None);
        Repository::new(&RepositoryOptions::default().no_cache(true), &backends)
            .and_then(|fresh| {
                fresh.init(
                    &Credentials::Masterkey(master),
                    &KeyOptions::default(),
                    &ConfigOptions::default(),
                )
            })
            .map_err(|error| backend.error("write", "the configuration", error))?;
        Ok(())
    }

    /// Opens a repository.
    pub fn open(location: &Location, password: &Password, options: &OpenOptions) -> Result<Self> {
        let backend = Backend::at(location, &options.access)?;
        let (config, keys) = parallel::both(
            || backend.read(FileType::Config, Id::default()),
            || backend.list::<Id>(FileType::Key),
        );
        let config = match config {
            Err(error) => return Err(no_repository(&backend)?.unwrap_or(error)),
            Ok(config) => config,
        };
        let opened = keys::open(&backend, &keys?, &config, password)?;
        if opened.config.version > 2 {
            let (location, version) = (location.to_string(), opened.config.version);
            return Err(Error::NewerRepository { location, version });
        }
        let id = RepositoryId::from(*opened.config.id);
        let caches = options.cache_folder.as_ref();
        let cache = caches.map(|folder| folder.join(id.to_string()));
        Ok(Self {
            backend,
            copies: cache.as_deref().map(ObjectCache::new),
            tree_copies: cache.map(|folder| TreeCopies::new(folder.join("trees"))),
            storage_alone: AtomicBool::new(false),
            key: opened.key,
            key_id: opened.id,
            options: options.clone(),
            config: opened.config,
            index: Mutex::new(None),
            memory: Mutex::default(),
        })
    }

    pub(crate) fn repository_id(&self) -> RepositoryId {
        RepositoryId::from(*self.config.id)
    }

    /// Where this host remembers what it knows of this repository's chunks.
    pub(crate) fn scan_folder(&self) -> Option<PathBuf> {
        let caches = self.options.cache_folder.as_ref()?;
        Some(caches.join(self.repository_id().to_string()).join("scan"))
    }

    /// An error for a repository that can be read but not be added to.
    pub(crate) fn require_writable(&self) -> Result<()> {
        let location = || self.backend.location().to_owned();
        if self.config.version < 2 {
            Err(Error::OldRepository {
                location: location(),
            })
        } else {
            Ok(())
        }
    }

    pub(crate) fn vault(&self) -> Vault<'_> {
        Vault {
            backend: &self.backend,
            key: &self.key,
            cache: self.copies.as_ref().filter(|_| self.uses_copies()),
        }
    }

    /// This host's copies of trees.
    pub(crate) fn tree_copies(&self) -> Option<&TreeCopies> {
        self.tree_copies.as_ref().filter(|_| self.uses_copies())
    }

    fn uses_copies(&self) -> bool {
        !self.storage_alone.load(Ordering::Acquire)
    }

    /// The index as the repository's index files are now.
    pub(crate) fn index(&self) -> Result<Arc<LoadedIndex>> {
        let mut cached = lock(&self.index);
        for _ in 0..MOST_READINGS {
            let files = self.index_files()?;
            if let Some(loaded) = cached.as_ref().filter(|loaded| loaded.files == files) {
                return Ok(Arc::clone(loaded));
            }
            // Two of them would not fit into the memory that is promised.
            *cached = None;
            let loaded = Arc::new(LoadedIndex::read(
                self.vault(),
                files,
                self.waiting_threads(),
            )?);
            self.forget_copies(FileType::Index, |id| {
                loaded.files.binary_search(&IndexId::from(*id)).is_ok()
            });
            *cached = Some(Arc::clone(&loaded));
            // Otherwise a prune may have replaced files while they were read; the list tells.
            if loaded.unreadable.is_empty() {
                return Ok(loaded);
            }
        }
        let location = self.backend.location().to_owned();
        cached.clone().ok_or(Error::Broken { location })
    }

    /// The index as it was read last. What it does not know may be there by now: see
    /// [`Self::with_index`].
    pub(crate) fn known_index(&self) -> Result<Arc<LoadedIndex>> {
        let known = lock(&self.index).clone();
        known.map_or_else(|| self.index(), Ok)
    }

    /// Reads by the index as it was read last, and once more by the one of now if that is another one and
    /// the first failed.
    pub(crate) fn with_index<T>(&self, read: impl Fn(&Arc<LoadedIndex>) -> Result<T>) -> Result<T> {
        let known = self.known_index()?;
        read(&known).or_else(|error| {
            let present = self.index()?;
            if Arc::ptr_eq(&known, &present) {
                return Err(error);
            }
            read(&present)
        })
    }

    /// From now on nothing is taken from this host's copies, or from what was read before.
    pub(crate) fn read_storage_alone(&self) {
        self.storage_alone.store(true, Ordering::Release);
        *lock(&self.index) = None;
        *lock(&self.memory) = TreeMemory::default();
    }

    /// Removes this host's copies of objects that are no longer there.
    pub(crate) fn forget_copies(&self, kind: FileType, is_there: impl Fn(&Id) -> bool) {
        if let Some(copies) = &self.copies {
            copies.retain(kind, is_there);
        }
    }

    pub(crate) fn index_files(&self) -> Result<Vec<IndexId>> {
        Ok(self.backend.list(FileType::Index)?.into_keys().collect())
    }

    /// A snapshot object.
    pub(crate) fn snapshot_file(&self, id: &crate::id::SnapshotId) -> Result<SnapshotFile> {
        self.vault().load(FileType::Snapshot, *id)
    }

    pub(crate) fn threads(&self) -> usize {
        match self.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// Threads that wait for the storage most of the time.
    pub(crate) fn waiting_threads(&self) -> usize {
        self.threads().max(self.backend.connections())
    }
}

fn has_config(backend: &Backend) -> Result<bool> {
    Ok(!backend.list::<Id>(FileType::Config)?.is_empty())
}

/// What is wrong, if that is that there is no repository.
fn no_repository(backend: &Backend) -> Result<Option<Error>> {
    if has_config(backend)? {
        return Ok(None);
    }
    let location = backend.location().to_owned();
    Ok(Some(match backend.ground()? {
        Ground::Nothing => Error::NoRepository { location },
        Ground::Unusable | Ground::Foreign | Ground::Usable => Error::NotARepository { location },
    }))
}

/// Refuses a place with anything but the remains of an interrupted `init` in it, and removes their
/// key: a key of another master key would keep stock restic from opening the repository.
fn clear_interrupted_init(backend: &Backend) -> Result<()> {
    let mut holds_other = match backend.ground()? {
        Ground::Nothing => return Ok(()),
        Ground::Unusable | Ground::Foreign => true,
        Ground::Usable => false,
    };
    for kind in [FileType::Snapshot, FileType::Index, FileType::Pack] {
        holds_other = holds_other || !backend.list::<Id>(kind)?.is_empty();
    }
    if holds_other {
        return Err(Error::NotEmpty {
            location: backend.location().to_owned(),
        });
    }
    backend
        .list::<Id>(FileType::Key)?
        .into_keys()
        .try_for_each(|key| backend.remove(FileType::Key, key))
}

/// An error with all its causes on one line.
pub(crate) fn whole_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(present) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {present}");
        cause = present.source();
    }
    text
}
