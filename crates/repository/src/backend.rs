//! The storage under a repository: objects by kind and id.
//!
//! [`Backend`] is the one place through which this crate touches storage; every kind of storage
//! that `rustic_backend` knows fits behind it. It turns foreign errors into this crate's own.
//! A written object appears under its name complete and durable, or not at all.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustic_backend::LocalBackend;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use walkdir::WalkDir;

use crate::error::{Error, Result, is_full};
use crate::location::Location;
use crate::platform;

/// The folder of lock files, a kind of object that `rustic_core` does not know.
const LOCKS: &str = "locks";

/// How `LocalBackend` ends the names of files that are being written.
const TEMPORARY: &str = "-tmp-";
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects of one storage.
#[derive(Clone)]
pub(crate) struct Backend {
    inner: Arc<dyn WriteBackend>,
    folder: PathBuf,
    location: String,
}

impl Backend {
    /// The storage at a location, whether or not there is a repository.
    pub(crate) fn at(location: &Location) -> Result<Self> {
        let invalid = |reason| Error::InvalidLocation {
            location: location.to_string(),
            reason,
        };
        let folder = location
            .folder()
            .to_str()
            .ok_or_else(|| invalid("it is not valid Unicode"))?;
        let local =
            LocalBackend::new(folder, []).map_err(|_| invalid("it cannot be used as a folder"))?;
        let inner = Arc::new(DurableLocal {
            inner: local,
            folder: PathBuf::from(folder),
        });
        Ok(Self {
            inner,
            folder: location.folder().to_path_buf(),
            location: location.to_string(),
        })
    }

    /// For messages.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Where lock files lie.
    pub(crate) fn lock_folder(&self) -> PathBuf {
        self.folder.join(LOCKS)
    }

    /// Removes what killed writers left. A day is longer than any write takes.
    pub(crate) fn remove_leftovers(&self) {
        for kind in [FileType::Pack, FileType::Index, FileType::Snapshot] {
            let files = WalkDir::new(self.folder.join(kind.dirname()))
                .into_iter()
                .flatten();
            for file in files.filter(is_leftover) {
                // The space is worth no failure.
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// For the functions of `rustic_core`.
    pub(crate) fn shared(&self) -> Arc<dyn WriteBackend> {
        Arc::clone(&self.inner)
    }

    /// All objects of a kind with their sizes, sorted by id.
    pub(crate) fn list<I: From<Id> + Ord>(&self, kind: FileType) -> Result<BTreeMap<I, u32>> {
        let listed = self
            .inner
            .list_with_size(kind)
            .map_err(|error| self.error("list", plural(kind), error))?;
        Ok(listed
            .into_iter()
            .map(|(id, size_bytes)| (id.into(), size_bytes))
            .collect())
    }

    /// A whole object.
    pub(crate) fn read(&self, kind: FileType, id: impl Into<Id>) -> Result<Bytes> {
        let id = id.into();
        self.inner
            .read_full(kind, &id)
            .map_err(|error| self.error("read", name(kind, &id), error))
    }

    /// A part of a pack; shorter than wanted is an error.
    pub(crate) fn read_pack(
        &self,
        id: impl Into<Id>,
        offset: u32,
        length_bytes: u32,
    ) -> Result<Bytes> {
        let id = id.into();
        self.inner
            .read_partial(FileType::Pack, &id, false, offset, length_bytes)
            .map_err(|error| self.error("read", name(FileType::Pack, &id), error))
    }

    /// Stores an object, complete and durable or not at all.
    pub(crate) fn write(
        &self,
        kind: FileType,
        id: impl Into<Id>,
        content: BytesList,
    ) -> Result<()> {
        let id = id.into();
        self.inner
            .write_bytes(kind, &id, false, content)
            .map_err(|error| self.error("write", name(kind, &id), error))
    }

    /// Removes an object.
    pub(crate) fn remove(&self, kind: FileType, id: impl Into<Id>) -> Result<()> {
        let id = id.into();
        self.inner
            .remove(kind, &id, false)
            .map_err(|error| self.error("remove", name(kind, &id), error))
    }

    /// An object that is not what it must be.
    pub(crate) fn damaged(&self, object: impl Into<String>, reason: impl Display) -> Error {
        Error::DamagedObject {
            location: self.location.clone(),
            object: object.into(),
            reason: reason.to_string(),
        }
    }

    /// This crate's error for one of `rustic_core`.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        object: impl Into<String>,
        error: Box<RusticError>,
    ) -> Error {
        let (location, object) = (self.location.clone(), object.into());
        let Some(cause) = io_cause(&error) else {
            return Error::Storage {
                location,
                operation,
                object,
                source: error.display_log().into(),
            };
        };
        if is_full(cause) {
            let place = format!("{object} of the repository at {location}");
            return Error::NoSpace {
                place,
                source: copy(cause).into(),
            };
        }
        match cause.kind() {
            io::ErrorKind::NotFound if operation == "read" => self.damaged(object, "it is missing"),
            io::ErrorKind::UnexpectedEof => self.damaged(object, "it is too short"),
            _ => Error::Storage {
                location,
                operation,
                object,
                source: copy(cause).into(),
            },
        }
    }
}

fn is_leftover(file: &walkdir::DirEntry) -> bool {
    let age = file
        .metadata()
        .ok()
        .and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
    file.file_type().is_file()
        && file.file_name().to_string_lossy().ends_with(TEMPORARY)
        && age.is_some_and(|age| age > LEFTOVER_AGE)
}

/// "index 1234abcd", for people.
pub(crate) fn name(kind: FileType, id: &Id) -> String {
    match kind {
        FileType::Config => kind.to_string(),
        _ => format!("{} {id}", singular(kind)),
    }
}

const fn singular(kind: FileType) -> &'static str {
    match kind {
        FileType::Config => "the configuration",
        FileType::Index => "index",
        FileType::Key => "key",
        FileType::Snapshot => "snapshot",
        FileType::Pack => "pack",
    }
}

fn plural(kind: FileType) -> String {
    format!("the {}", kind.dirname())
}

fn io_cause(error: &RusticError) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(present) = cause {
        if let Some(found) = present.downcast_ref() {
            return Some(found);
        }
        cause = present.source();
    }
    None
}

/// The system's error again, as errors cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A folder as storage.
///
/// `LocalBackend` writes a temporary file, flushes and renames it; what it leaves out is flushing
/// the folder, without which the name can be lost when the power fails.
#[derive(Debug)]
struct DurableLocal {
    inner: LocalBackend,
    folder: PathBuf,
}

impl DurableLocal {
    fn parent(&self, kind: FileType, id: &Id) -> PathBuf {
        let path = PathBuf::from(self.inner.warmup_path(kind, id));
        path.parent()
            .map_or_else(|| self.folder.clone(), Path::to_path_buf)
    }

    fn sync(folder: &Path) -> RusticResult<()> {
        platform::sync_folder(folder).map_err(|error| {
            RusticError::with_source(ErrorKind::InputOutput, "cannot flush a folder", error)
        })
    }
}

impl ReadBackend for DurableLocal {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        // The inner listing takes a folder that cannot be read for an empty one.
        let folder = if kind == FileType::Config {
            self.folder.clone()
        } else {
            self.folder.join(kind.dirname())
        };
        if let Err(error) = std::fs::read_dir(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(RusticError::with_source(
                ErrorKind::InputOutput,
                "cannot list a folder",
                error,
            ));
        }
        self.inner.list_with_size(kind)
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        self.inner.read_full(kind, id)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        self.inner.read_partial(kind, id, cacheable, offset, length)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.inner.warmup_path(kind, id)
    }
}

impl WriteBackend for DurableLocal {
    fn create(&self) -> RusticResult<()> {
        self.inner.create()?;
        std::fs::create_dir_all(self.folder.join(LOCKS)).map_err(|error| {
            RusticError::with_source(ErrorKind::InputOutput, "cannot create a folder", error)
        })?;
        Self::sync(&self.folder)?;
        Self::sync(&self.folder.join(FileType::Pack.dirname()))
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        self.inner.write_bytes(kind, id, cacheable, content)?;
        Self::sync(&self.parent(kind, id))
    }

    fn remove(&self, kind: FileType, id: &Id, cacheable: bool) -> RusticResult<()> {
        self.inner.remove(kind, id, cacheable)?;
        Self::sync(&self.parent(kind, id))
    }
}
