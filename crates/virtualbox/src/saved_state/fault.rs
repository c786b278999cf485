//! What can be wrong with a saved state.

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::Error;

/// A part of a saved state, as an error text names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SavedStatePart {
    /// The first 64 bytes.
    Header,
    /// A unit, by name.
    Unit(String),
    /// The list of units.
    Directory,
    /// The last 32 bytes.
    Footer,
}

impl fmt::Display for SavedStatePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => formatter.write_str("its header"),
            Self::Unit(name) => write!(formatter, "its unit \"{}\"", name.escape_debug()),
            Self::Directory => formatter.write_str("its directory"),
            Self::Footer => formatter.write_str("its footer"),
        }
    }
}

/// What is wrong with a saved state. It names no file; [`Error::SavedState`] adds that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedStateFault {
    /// It is some other file.
    #[error("it does not begin like one")]
    NotASavedState,
    /// A format version that vrs does not know; the file may be sound.
    #[error("its format {format} is not known to this vrs; a newer vrs may read it")]
    UnknownFormat {
        /// The format version, for example `V2.1`.
        format: String,
    },
    /// The file ends too early.
    #[error(
        "it ends at byte {offset_bytes}, within {part}; saving it was interrupted, the disk was full, or it was copied incompletely"
    )]
    Truncated {
        /// What is incomplete.
        part: SavedStatePart,
        /// Where the file ends.
        offset_bytes: u64,
    },
    /// The file does not end with a footer.
    #[error(
        "there is no footer at byte {offset_bytes}; saving it was interrupted, the disk was full, or it was copied incompletely"
    )]
    NoFooter {
        /// Where the footer should be.
        offset_bytes: u64,
    },
    /// Bytes are not what they were when they were written.
    #[error(
        "{part} is damaged: the checksum at byte {offset_bytes} is {recorded:08x}, the data has {computed:08x}"
    )]
    Checksum {
        /// What is damaged.
        part: SavedStatePart,
        /// Where the checksum is.
        offset_bytes: u64,
        /// The checksum in the file.
        recorded: u32,
        /// The checksum of the data in the file.
        computed: u32,
    },
    /// Something that VirtualBox does not write.
    #[error("{part} is damaged: at byte {offset_bytes} {problem}")]
    Malformed {
        /// What is damaged.
        part: SavedStatePart,
        /// Where.
        offset_bytes: u64,
        /// What is there.
        problem: &'static str,
    },
}

/// The result of reading some part of a saved state whose path the reader does not know.
pub(super) type Outcome<T> = Result<T, Failure>;

#[derive(Debug)]
pub(super) enum Failure {
    Fault(SavedStateFault),
    Io(io::Error),
    Interrupted,
}

impl Failure {
    /// For `map_err`: the error about the file at `path`.
    pub(super) fn of(path: &Path) -> impl FnOnce(Self) -> Error {
        let path = path.to_owned();
        move |failure| match failure {
            Self::Fault(fault) => Error::SavedState { path, fault },
            Self::Interrupted => Error::Interrupted { path },
            Self::Io(source) => Error::Io {
                operation: "read",
                path,
                source,
            },
        }
    }
}

impl From<SavedStateFault> for Failure {
    fn from(fault: SavedStateFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The parts of an error that a check fills in.
pub(super) fn check_crc(
    part: &SavedStatePart,
    offset_bytes: u64,
    recorded: u32,
    computed: u32,
) -> Outcome<()> {
    if recorded == computed {
        return Ok(());
    }
    let part = part.clone();
    Err(SavedStateFault::Checksum {
        part,
        offset_bytes,
        recorded,
        computed,
    }
    .into())
}

/// Fails with [`SavedStateFault::Malformed`] unless `holds`.
pub(super) fn check(
    holds: bool,
    part: &SavedStatePart,
    offset_bytes: u64,
    problem: &'static str,
) -> Outcome<()> {
    if holds {
        return Ok(());
    }
    let part = part.clone();
    Err(SavedStateFault::Malformed {
        part,
        offset_bytes,
        problem,
    }
    .into())
}
