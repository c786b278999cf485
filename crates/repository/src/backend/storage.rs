//! What every kind of storage can do, and how it fails.

use std::fmt;
use std::io;

use bytes::Bytes;
use rustic_core::{FileType, Id};

use crate::error::{Source, is_full};
use crate::id::bytes_of;

/// Room for the largest object that any program writes; a longer one is an attack or damage.
pub(super) const LARGEST_OBJECT_BYTES: u64 = 1 << 30;

/// How the names of files that are being written go on after the object's own.
pub(super) const TEMPORARY: &str = "-tmp-";

/// Names in the folder of a repository.
pub(super) const OWN_NAMES: [&str; 6] = ["config", "keys", "snapshots", "index", "data", "locks"];

/// A kind of object. `rustic_core` does not know locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Of(FileType),
    Lock,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        Self::Of(kind)
    }
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Of(FileType::Config),
        Self::Of(FileType::Key),
        Self::Of(FileType::Snapshot),
        Self::Of(FileType::Index),
        Self::Of(FileType::Pack),
        Self::Lock,
    ];

    /// Where its objects lie; of the configuration, its name.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Of(kind) => kind.dirname(),
            Self::Lock => "locks",
        }
    }

    pub(super) const fn singular(self) -> &'static str {
        match self {
            Self::Of(FileType::Config) => "the configuration",
            Self::Of(FileType::Index) => "index",
            Self::Of(FileType::Key) => "key",
            Self::Of(FileType::Snapshot) => "snapshot",
            Self::Of(FileType::Pack) => "pack",
            Self::Lock => "lock",
        }
    }

    pub(super) const fn is_config(self) -> bool {
        matches!(self, Self::Of(FileType::Config))
    }

    pub(super) const fn is_pack(self) -> bool {
        matches!(self, Self::Of(FileType::Pack))
    }
}

/// One object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub(super) kind: Kind,
    pub(super) id: Id,
}

impl Object {
    pub(super) fn new(kind: impl Into<Kind>, id: Id) -> Self {
        Self {
            kind: kind.into(),
            id,
        }
    }

    /// Where it lies in the folder of a repository (restic's design document, "Repository Layout").
    pub(super) fn path(&self) -> String {
        let (folder, id) = (self.kind.folder(), self.id.to_hex());
        if self.kind.is_config() {
            folder.to_owned()
        } else if self.kind.is_pack() {
            format!(
                "{folder}/{}/{}",
                id.as_str().get(..2).unwrap_or_default(),
                id.as_str()
            )
        } else {
            format!("{folder}/{}", id.as_str())
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.singular())?;
        if self.kind.is_config() {
            Ok(())
        } else {
            write!(formatter, " {}", self.id)
        }
    }
}

/// An object in a list, and its size. Those of objects other than packs are used by nobody, and may be 0
/// where they would take time.
pub(super) type Listed = ([u8; 32], u32);

/// Of the configuration, which is alone of its kind.
pub(super) const NO_ID: [u8; 32] = [0; 32];

/// An entry of a list, unless it is something else than an object.
pub(super) fn listed(name: &str, size_bytes: u64) -> Option<Listed> {
    // A longer one than any pack can be is found to be wrong by this size, too.
    let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
    bytes_of(name).map(|id| (id, size_bytes))
}

/// A part of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(super) offset: u32,
    pub(super) length_bytes: u32,
}

impl Part {
    /// Where it ends in the object.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset).saturating_add(self.length_bytes.into())
    }
}

/// What is where a repository is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Not even a folder.
    Nothing,
    /// Something that cannot hold a repository.
    Unusable,
    /// Files that are no part of any repository.
    Foreign,
    /// Nothing but what may be a repository or become one, as far as that can be told.
    Usable,
}

impl Ground {
    /// What names in a folder say.
    pub(super) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let is_own = |name: &str| {
            OWN_NAMES.contains(&name)
                || name == "lost+found"
                || matches!(name, "." | "..")
                || name
                    .strip_prefix("config")
                    .is_some_and(|rest| rest.starts_with(TEMPORARY))
        };
        if names.into_iter().all(is_own) {
            Self::Usable
        } else {
            Self::Foreign
        }
    }
}

/// Objects by kind and id, in a folder or on a server. Retries and texts are the caller's.
pub(super) trait Storage: Send + Sync {
    /// What is there.
    fn ground(&self) -> Outcome<Ground>;

    /// Makes room for a new repository.
    fn create(&self) -> Outcome<()>;

    /// All objects of a kind. None where there is no repository.
    fn list(&self, kind: Kind) -> Outcome<Vec<Listed>>;

    /// An object or a part of it. Fewer bytes than that is [`FailureKind::TooShort`].
    fn read(&self, object: Object, part: Option<Part>) -> Outcome<Bytes>;

    /// Stores an object, complete and durable as far as the storage can promise that, or not at all.
    fn write(&self, object: Object, content: &[Bytes]) -> Outcome<()>;

    /// Removes an object.
    fn remove(&self, object: Object) -> Outcome<()>;

    /// Removes what killed writers left, as far as lists have shown it.
    fn remove_leftovers(&self) {}
}

/// Of an operation on storage.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Why storage did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// Never holds a secret.
    pub(super) source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// There is no such object.
    Missing,
    /// The object ends before the wanted part does.
    TooShort,
    /// No room.
    Full,
    /// No connection, or it was lost.
    Unreachable,
    /// The server is there and cannot just now.
    Unwell,
    /// The server does not accept the credentials.
    LoginRefused,
    /// The server does not permit it to whom it took us for.
    NotPermitted,
    /// A program that is needed is not there.
    NoProgram,
    /// Anything else.
    Other,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, source: impl Into<Source>) -> Self {
        Self {
            kind,
            source: source.into(),
        }
    }

    /// Whether the next attempt may succeed.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self.kind, FailureKind::Unreachable | FailureKind::Unwell)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            _ if is_full(&error) => FailureKind::Full,
            io::ErrorKind::NotFound => FailureKind::Missing,
            io::ErrorKind::UnexpectedEof => FailureKind::TooShort,
            _ => FailureKind::Other,
        };
        Self::new(kind, error)
    }
}
