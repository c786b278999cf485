//! The storage under a repository: objects by kind and id.
//!
//! [`Backend`] is the one place through which this crate touches storage. Below it is one module for
//! each kind of storage, all behind [`Storage`]; here are retries and this crate's errors.
//! A written object appears under its name complete, or not at all.

mod http;
mod leftovers;
mod limit;
mod local;
mod rclone;
mod rest;
mod retry;
mod rustic;
mod s3;
mod sftp;
mod storage;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use rustic_core::{BytesList, FileType, Id, RusticError, WriteBackend};

use crate::access::Access;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::location::{Location, Place};
use limit::Limits;
use local::Local;
use rest::Rest;
use retry::Retry;
use s3::S3;
use sftp::Sftp;
use storage::{Failure, FailureKind, Object, Outcome, Part, Storage};
pub(crate) use storage::{Ground, Kind};

/// Objects of one storage.
#[derive(Clone)]
pub(crate) struct Backend {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Box<dyn Storage>,
    retry: Retry,
    location: String,
    connections: usize,
}

impl Backend {
    /// The storage at a location, whether or not there is a repository.
    pub(crate) fn at(location: &Location, access: &Access) -> Result<Self> {
        let limits = Arc::new(Limits::of(access));
        let (storage, connections) = match &location.place {
            Place::Folder(folder) => (Ok(boxed(Local::new(folder.clone(), limits))), 1),
            Place::Sftp(place) => (
                Sftp::new(place, access, limits).map(boxed),
                access.connections,
            ),
            Place::S3(place) => (
                S3::new(place, access, limits).map(boxed),
                access.connections,
            ),
            Place::Rest(place) => (
                Rest::new(place, access, limits).map(boxed),
                access.connections,
            ),
            Place::Rclone(remote) => (
                Rest::of_rclone(remote, access, limits).map(boxed),
                access.connections,
            ),
        };
        let text = location.to_string();
        let storage =
            storage.map_err(|failure| error(&text, "open", "the storage".to_owned(), failure))?;
        Ok(Self {
            inner: Arc::new(Inner {
                storage,
                retry: Retry::new(access.interrupted.clone()),
                location: text,
                connections: connections.max(1),
            }),
        })
    }

    /// For messages.
    pub(crate) fn location(&self) -> &str {
        &self.inner.location
    }

    /// How many requests should be under way at the same time, to keep a long line busy.
    pub(crate) fn connections(&self) -> usize {
        self.inner.connections
    }

    /// What is there.
    pub(crate) fn ground(&self) -> Result<Ground> {
        self.attempt(
            "open",
            || "the storage".to_owned(),
            |storage, _| storage.ground(),
        )
    }

    /// Removes what killed writers left, as far as lists have shown it.
    pub(crate) fn remove_leftovers(&self) {
        self.inner.storage.remove_leftovers();
    }

    /// For the functions of `rustic_core`.
    pub(crate) fn shared(&self) -> Arc<dyn WriteBackend> {
        Arc::new(rustic::ForRustic(self.clone()))
    }

    pub(crate) fn create(&self) -> Result<()> {
        self.attempt(
            "create",
            || "the folders".to_owned(),
            |storage, _| storage.create(),
        )
    }

    /// All objects of a kind with their sizes, sorted by id.
    pub(crate) fn list<I: ObjectId>(&self, kind: impl Into<Kind>) -> Result<BTreeMap<I, u32>> {
        let kind = kind.into();
        let listed = self.attempt("list", || plural(kind), |storage, _| storage.list(kind))?;
        Ok(listed
            .into_iter()
            .map(|(id, size_bytes)| (I::of(id), size_bytes))
            .collect())
    }

    /// A whole object.
    pub(crate) fn read(&self, kind: impl Into<Kind>, id: impl Into<Id>) -> Result<Bytes> {
        self.read_part(Object::new(kind, id.into()), None)
    }

    /// A part of a pack; shorter than wanted is an error.
    pub(crate) fn read_pack(
        &self,
        id: impl Into<Id>,
        offset: u32,
        length_bytes: u32,
    ) -> Result<Bytes> {
        let part = Part {
            offset,
            length_bytes,
        };
        self.read_part(Object::new(FileType::Pack, id.into()), Some(part))
    }

    fn read_part(&self, object: Object, part: Option<Part>) -> Result<Bytes> {
        if part.is_some_and(|part| part.length_bytes == 0) {
            return Ok(Bytes::new());
        }
        self.attempt(
            "read",
            || object.to_string(),
            |storage, _| storage.read(object, part),
        )
    }

    /// Stores an object, complete and durable or not at all.
    pub(crate) fn write(
        &self,
        kind: impl Into<Kind>,
        id: impl Into<Id>,
        content: BytesList,
    ) -> Result<()> {
        let object = Object::new(kind, id.into());
        let content = content.into_vec();
        self.attempt(
            "write",
            || object.to_string(),
            |storage, _| storage.write(object, &content),
        )
    }

    /// Removes an object.
    pub(crate) fn remove(&self, kind: impl Into<Kind>, id: impl Into<Id>) -> Result<()> {
        let object = Object::new(kind, id.into());
        self.attempt(
            "remove",
            || object.to_string(),
            |storage, tried| {
                match storage.remove(object) {
                    // An earlier attempt may have succeeded without our learning of it.
                    Err(failure) if failure.kind == FailureKind::Missing && tried > 0 => Ok(()),
                    outcome => outcome,
                }
            },
        )
    }

    fn attempt<T>(
        &self,
        operation: &'static str,
        object: impl FnOnce() -> String,
        attempt: impl Fn(&dyn Storage, u32) -> Outcome<T>,
    ) -> Result<T> {
        let outcome = self
            .inner
            .retry
            .run(|tried| attempt(self.inner.storage.as_ref(), tried));
        outcome.map_err(|failure| error(self.location(), operation, object(), failure))
    }

    /// An object that is not what it must be.
    pub(crate) fn damaged(&self, object: impl Into<String>, reason: impl Display) -> Error {
        Error::DamagedObject {
            location: self.location().to_owned(),
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
        rustic::own_error(&error).unwrap_or_else(|| Error::Storage {
            location: self.location().to_owned(),
            operation,
            object: object.into(),
            source: error.display_log().into(),
        })
    }
}

fn boxed(storage: impl Storage + 'static) -> Box<dyn Storage> {
    Box::new(storage)
}

/// This crate's error for what storage did not do.
fn error(location: &str, operation: &'static str, object: String, failure: Failure) -> Error {
    let location = location.to_owned();
    let Failure { kind, source } = failure;
    let damaged = |reason: &str| Error::DamagedObject {
        location: location.clone(),
        object: object.clone(),
        reason: reason.to_owned(),
    };
    match kind {
        FailureKind::Missing if operation == "read" => damaged("it is missing"),
        FailureKind::TooShort => damaged("it is too short"),
        FailureKind::Full => Error::NoSpace {
            place: format!("{object} of the repository at {location}"),
            source,
        },
        FailureKind::Unreachable => Error::Unreachable { location, source },
        FailureKind::LoginRefused => Error::LoginRefused { location, source },
        FailureKind::NotPermitted => Error::NotPermitted {
            location,
            operation,
            object,
            source,
        },
        FailureKind::NoProgram => Error::NoProgram { location, source },
        _ => Error::Storage {
            location,
            operation,
            object,
            source,
        },
    }
}

/// "index 1234abcd", for people.
pub(crate) fn name(kind: FileType, id: &Id) -> String {
    Object::new(kind, *id).to_string()
}

fn plural(kind: Kind) -> String {
    format!("the {}", kind.folder())
}
