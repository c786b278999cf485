//! Errors of the repository.
//!
//! Every text says what happened, why and what to do next. [`Error::kind`] sorts them for exit
//! codes. No text, field or source ever holds a password or a key.

use std::io;
use std::path::{Path, PathBuf};

use vrs_progress::Progress;

use crate::id::{ChunkId, PackId, SnapshotId};
use crate::store::{InvalidTreePath, TreePath};

/// The result of repository operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Between two steps: an error if the user asked to stop.
pub(crate) fn stop_if_interrupted(progress: &dyn Progress) -> Result<()> {
    if progress.interrupted() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// The cause of an error, as another library reported it.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user asked to stop.
    #[error("interrupted; what was stored so far will be reused by the next run")]
    Interrupted,

    /// A location that names a kind of storage this version cannot reach.
    #[error(
        "repositories at {location:?} are not supported: the scheme {scheme:?} is unknown here; \
         use PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"
    )]
    UnsupportedLocation {
        /// As given, without what may be a secret.
        location: String,
        /// The part before the colon.
        scheme: String,
    },

    /// A location that is no location.
    #[error(
        "{location:?} is not a repository location: {reason}; \
         give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH"
    )]
    InvalidLocation {
        /// As given, without what may be a secret.
        location: String,
        /// Why it cannot be one.
        reason: &'static str,
    },

    /// Nothing there.
    #[error(
        "there is no repository at {location}: nothing exists there; check the location, or create one with 'vrs init'"
    )]
    NoRepository {
        /// Where.
        location: String,
    },

    /// Something else is there.
    #[error(
        "{location} is not a repository: it holds no 'config'; check the location, or create a repository with 'vrs init'"
    )]
    NotARepository {
        /// Where.
        location: String,
    },

    /// A repository where a new one was wanted.
    #[error(
        "there is a repository at {location} already; it was not touched; choose another place, or use it as it is"
    )]
    AlreadyARepository {
        /// Where.
        location: String,
    },

    /// A new repository was wanted where other files are.
    #[error(
        "{location} is not empty; a repository needs a folder of its own; name an empty or a new folder"
    )]
    NotEmpty {
        /// Where.
        location: String,
    },

    /// No key fits.
    #[error(
        "wrong password for the repository at {location}: it opens none of its keys; check the password and try again"
    )]
    WrongPassword {
        /// Where.
        location: String,
    },

    /// The repository was written by a program that knows more.
    #[error(
        "the repository at {location} has format version {version}, this program reads versions 1 and 2 and writes version 2; \
         use a newer program"
    )]
    NewerRepository {
        /// Where.
        location: String,
        /// Its version.
        version: u32,
    },

    /// A repository whose format is too old to be written.
    #[error(
        "the repository at {location} has format version 1, which this program only reads; \
         upgrade it with 'restic migrate upgrade_repo_v2'"
    )]
    OldRepository {
        /// Where.
        location: String,
    },

    /// Another program needs the repository for itself.
    #[error(
        "the repository at {location} is locked by {holder}; wait until that has ended; \
         if it has crashed on another computer, run 'restic unlock'"
    )]
    Locked {
        /// Where.
        location: String,
        /// Process, user, host and time.
        holder: String,
    },

    /// Another borg needs the repository for itself.
    #[error(
        "the repository at {location} is used by another borg; wait until that has ended; \
         if it has crashed on another computer, run 'borg break-lock'"
    )]
    LockedByBorg {
        /// Where.
        location: String,
        /// As borg said it.
        source: Source,
    },

    /// A program that works on the repository did not do what it was to do.
    #[error(
        "{program} could not {operation} the repository at {location}; put right what it says, then run it again"
    )]
    Program {
        /// Where.
        location: String,
        /// "borg", "rsync".
        program: &'static str,
        /// "read", "write to", "check", ...
        operation: &'static str,
        /// As it said it.
        source: Source,
    },

    /// An object of the repository is not what it must be.
    #[error(
        "{object} of the repository at {location} is damaged: {reason}; run 'vrs check' to learn what it affects"
    )]
    DamagedObject {
        /// Where.
        location: String,
        /// For example "index 1234abcd".
        object: String,
        /// What is wrong with it.
        reason: String,
    },

    /// An object of the repository could not be read, written, listed or removed.
    #[error(
        "cannot {operation} {object} of the repository at {location}; check that the storage is reachable and its permissions, then try again"
    )]
    Storage {
        /// Where.
        location: String,
        /// "read", "write", "list", "remove".
        operation: &'static str,
        /// Which object.
        object: String,
        /// Why.
        source: Source,
    },

    /// The storage cannot be reached, or not any more.
    #[error(
        "cannot reach the repository at {location}; check the address, the network and that its server runs, \
         then try again: what was stored so far will be reused"
    )]
    Unreachable {
        /// Where.
        location: String,
        /// What was tried last.
        source: Source,
    },

    /// The storage does not know who we are.
    #[error(
        "the server of the repository at {location} refused the login; check user, key or password of the storage, and the clock"
    )]
    LoginRefused {
        /// Where.
        location: String,
        /// As the server said it.
        source: Source,
    },

    /// The storage knows who we are and does not permit it.
    #[error(
        "the server does not permit to {operation} {object} of the repository at {location}; \
         the login may be for reading or adding only: use one that may do it"
    )]
    NotPermitted {
        /// Where.
        location: String,
        /// "read", "write", "list", "remove".
        operation: &'static str,
        /// Which object.
        object: String,
        /// As the server said it.
        source: Source,
    },

    /// A program that leads to the storage is not there.
    #[error(
        "the repository at {location} needs a program that could not be started; install it, or say where it is"
    )]
    NoProgram {
        /// Where.
        location: String,
        /// Which program, and why.
        source: Source,
    },

    /// No room left.
    #[error(
        "no space left while writing {place}; free some space and run it again: what was stored so far will be reused"
    )]
    NoSpace {
        /// File or repository object.
        place: String,
        /// As the system said it.
        source: Source,
    },

    /// A local file could not be read or written.
    #[error("cannot {operation} {}{}; check the disk and the file's permissions, then try again", path.display(), at(offset))]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// "open", "read", "write", ...
        operation: &'static str,
        /// Where in the file.
        offset: Option<u64>,
        /// As the system said it.
        source: io::Error,
    },

    /// A local path that must be a regular file and is not.
    #[error("{} is not a regular file but a {found}; nothing was done with it", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// "folder", "symbolic link", "device or pipe".
        found: &'static str,
    },

    /// A file that did not hold still.
    #[error("{} changed while it was being read, so it was not stored; make sure that nothing uses it and try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// A snapshot that does not exist.
    #[error("the repository at {location} has no snapshot {snapshot}; see 'vrs list'")]
    NoSnapshot {
        /// Where.
        location: String,
        /// Which.
        snapshot: SnapshotId,
    },

    /// A file that a snapshot does not hold.
    #[error("snapshot {} holds no file {path}; see 'vrs show'", snapshot.short())]
    NoSuchFile {
        /// Which snapshot.
        snapshot: SnapshotId,
        /// Which file.
        path: TreePath,
    },

    /// A chunk that no index knows.
    #[error(
        "chunk {} at offset {offset} of {path} is in no index of the repository at {location}, so the file cannot be read completely; \
         run 'vrs check', and restore another snapshot or from a copy of the repository", chunk.short()
    )]
    MissingChunk {
        /// Where.
        location: String,
        /// The stored file.
        path: TreePath,
        /// Where in it.
        offset: u64,
        /// Which chunk.
        chunk: ChunkId,
    },

    /// A chunk that cannot be read from its pack.
    #[error("chunk {} in pack {} of the repository at {location} is damaged: {reason}; run 'vrs check' to learn what it affects", chunk.short(), pack.short())]
    DamagedChunk {
        /// Where.
        location: String,
        /// Which chunk.
        chunk: ChunkId,
        /// In which pack.
        pack: PackId,
        /// What is wrong with it.
        reason: String,
    },

    /// A restore that had to leave holes. Everything else is in place.
    #[error(
        "{} is not complete: {length_bytes} bytes at offset {offset} could not be fetched{}; \
         everything else is in place; repair the repository or fetch its copy, then run it again to complete the file", path.display(), others(more)
    )]
    Incomplete {
        /// The local file.
        path: PathBuf,
        /// Start of the first range that is missing.
        offset: u64,
        /// Its length.
        length_bytes: u64,
        /// How many more ranges, in this file or others.
        more: u64,
        /// Why the first one is missing.
        source: Box<Error>,
    },

    /// A read outside a stored file.
    #[error(
        "cannot read {length_bytes} bytes at offset {offset} of {path}: it has only {size_bytes} bytes"
    )]
    OutOfBounds {
        /// The stored file.
        path: TreePath,
        /// Wanted start.
        offset: u64,
        /// Wanted length.
        length_bytes: u64,
        /// Length of the file.
        size_bytes: u64,
    },

    /// A name in a snapshot that no restore could use safely.
    #[error("snapshot {} holds a file that cannot be named here; restore it with another program", snapshot.short())]
    UnusableName {
        /// Which snapshot.
        snapshot: SnapshotId,
        /// The name.
        source: InvalidTreePath,
    },

    /// A request that contradicts itself.
    #[error("{subject} cannot be used: {reason}")]
    InvalidRequest {
        /// What.
        subject: String,
        /// Why.
        reason: &'static str,
    },

    /// A snapshot that cannot be completed because an earlier write failed.
    #[error(
        "the snapshot cannot be completed because an earlier write to the repository at {location} failed; run it again"
    )]
    Broken {
        /// Where.
        location: String,
    },

    /// What a snapshot in the making had found in the repository is gone or about to go.
    #[error(
        "data that the snapshot shares with earlier ones was pruned from the repository at {location} while it was taken; \
         no snapshot was made; take it again, what was sent is reused"
    )]
    PrunedMeanwhile {
        /// Where.
        location: String,
    },

    /// A repository that must not be pruned as it is.
    #[error(
        "the repository at {location} is not pruned, because {reason}; 'vrs check' tells what is damaged; nothing was removed"
    )]
    NotPrunable {
        /// Where.
        location: String,
        /// Why not.
        reason: String,
    },

    /// The system has no random numbers.
    #[error("the system gave no random numbers, so nothing can be encrypted; try again later")]
    NoRandom,

    /// The system lets no more threads be started.
    #[error(
        "no thread could be started to derive the key from the password: {source}; end other programs and try again"
    )]
    NoThread {
        /// As the system said it.
        source: Source,
    },
}

/// What kind of trouble an [`Error`] is, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Stopped by the user.
    Interrupted,
    /// A repository, snapshot or file that does not exist.
    NotFound,
    /// A place that holds something else.
    NotARepository,
    /// A place that is taken.
    AlreadyExists,
    /// No key fits.
    WrongPassword,
    /// Stored data is damaged or missing.
    Damaged,
    /// In use by another program.
    Busy,
    /// A local file changed while it was read.
    Changed,
    /// No space left on either side.
    NoSpace,
    /// Reading or writing failed.
    Io,
    /// No connection to the storage.
    Unreachable,
    /// The storage refused the login, or what was to be done with it.
    Denied,
    /// Something this version cannot do.
    Unsupported,
    /// Written by a newer program.
    Newer,
    /// A request that contradicts itself.
    InvalidRequest,
}

impl Error {
    /// The kind of trouble.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Interrupted => ErrorKind::Interrupted,
            Self::NoRepository { .. } | Self::NoSnapshot { .. } | Self::NoSuchFile { .. } => {
                ErrorKind::NotFound
            }
            Self::NotARepository { .. } => ErrorKind::NotARepository,
            Self::AlreadyARepository { .. } | Self::NotEmpty { .. } => ErrorKind::AlreadyExists,
            Self::WrongPassword { .. } => ErrorKind::WrongPassword,
            Self::DamagedObject { .. }
            | Self::MissingChunk { .. }
            | Self::DamagedChunk { .. }
            | Self::NotPrunable { .. } => ErrorKind::Damaged,
            Self::Locked { .. } | Self::LockedByBorg { .. } | Self::PrunedMeanwhile { .. } => {
                ErrorKind::Busy
            }
            Self::Incomplete { source, .. } => source.kind(),
            Self::Changed { .. } => ErrorKind::Changed,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::LoginRefused { .. } | Self::NotPermitted { .. } => ErrorKind::Denied,
            Self::Storage { .. }
            | Self::Program { .. }
            | Self::NoProgram { .. }
            | Self::LocalFile { .. }
            | Self::Broken { .. }
            | Self::NoRandom
            | Self::NoThread { .. } => ErrorKind::Io,
            Self::UnsupportedLocation { .. }
            | Self::OldRepository { .. }
            | Self::UnusableName { .. } => ErrorKind::Unsupported,
            Self::NewerRepository { .. } => ErrorKind::Newer,
            Self::InvalidLocation { .. }
            | Self::InvalidRequest { .. }
            | Self::NotAFile { .. }
            | Self::OutOfBounds { .. } => ErrorKind::InvalidRequest,
        }
    }

    /// Whether a certain local file could not be read or written.
    pub(crate) fn is_of_file(&self, path: &Path) -> bool {
        matches!(self, Self::LocalFile { path: of, .. } if of == path)
    }

    /// Whether nothing else can be had from the storage now, either.
    pub(crate) fn is_of_whole_storage(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Denied)
    }

    /// The same error of storage again: errors cannot be cloned.
    pub(crate) fn again(&self) -> Self {
        let cause = || -> Source {
            std::error::Error::source(self)
                .map_or_else(String::new, ToString::to_string)
                .into()
        };
        match self {
            Self::NoSpace { place, .. } => Self::NoSpace {
                place: place.clone(),
                source: cause(),
            },
            Self::Unreachable { location, .. } => Self::Unreachable {
                location: location.clone(),
                source: cause(),
            },
            Self::LoginRefused { location, .. } => Self::LoginRefused {
                location: location.clone(),
                source: cause(),
            },
            Self::NotPermitted {
                location,
                operation,
                object,
                ..
            } => Self::NotPermitted {
                location: location.clone(),
                operation,
                object: object.clone(),
                source: cause(),
            },
            Self::DamagedObject {
                location,
                object,
                reason,
            } => Self::DamagedObject {
                location: location.clone(),
                object: object.clone(),
                reason: reason.clone(),
            },
            Self::Storage {
                location,
                operation,
                object,
                ..
            } => Self::Storage {
                location: location.clone(),
                operation,
                object: object.clone(),
                source: cause(),
            },
            other => Self::Storage {
                location: String::new(),
                operation: "use",
                object: "the storage".to_owned(),
                source: other.to_string().into(),
            },
        }
    }

    /// Trouble with a local file.
    pub fn local(
        path: &Path,
        operation: &'static str,
        offset: Option<u64>,
        source: io::Error,
    ) -> Self {
        if is_full(&source) {
            let place = path.display().to_string();
            return Self::NoSpace {
                place,
                source: source.into(),
            };
        }
        Self::LocalFile {
            path: path.to_path_buf(),
            operation,
            offset,
            source,
        }
    }
}

/// Whether the system says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn at(offset: &Option<u64>) -> String {
    offset
        .map(|offset| format!(" at offset {offset}"))
        .unwrap_or_default()
}

fn others(more: &u64) -> String {
    if *more == 0 {
        String::new()
    } else {
        format!(" (and {more} more ranges)")
    }
}
