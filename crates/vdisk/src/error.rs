//! What can go wrong with a disk image, and what the user can do about it.
//!
//! Every text says what happened and why, and, where there is one, the next step. The text of an
//! [`Error`]'s source is never repeated in its own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::{Finding, ImageFormat};

/// The result of disk image operations.
pub type Result<T> = std::result::Result<T, Error>;

/// A coarse, stable classification of [`Error`], for exit codes and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a read, a write or another file operation.
    Io,
    /// The file is not what its header claims, or is damaged.
    Corrupt,
    /// A healthy file of a kind or version that cannot be read inside.
    Unsupported,
    /// The images of a chain do not fit together: one is missing, doubled or its own ancestor.
    Chain,
    /// The caller asked for something that makes no sense for this image.
    InvalidRequest,
    /// The target exists and is not overwritten.
    Exists,
    /// The user asked to stop.
    Interrupted,
}

/// What can go wrong with a disk image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, an infinitive: "open", "read", "write".
        operation: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A disk in a format that vrs does not read inside.
    #[error(
        "{} is a {format} image; reading inside this format is not supported yet. \
         vrs stores and restores such disks as files; to look inside, make a copy with \
         VBoxManage clonemedium --format VDI",
        path.display()
    )]
    UnsupportedFormat {
        /// The image.
        path: PathBuf,
        /// What it is.
        format: ImageFormat,
    },
    /// The header cannot be used.
    #[error("{} cannot be used as a VDI image: {fault}", path.display())]
    Header {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// A damaged header and block map cannot be put together again.
    #[error(
        "the header and block map of {} cannot be put together again: {fault}. \
         Restore the image from a snapshot",
        path.display()
    )]
    Head {
        /// The image.
        path: PathBuf,
        /// Why not.
        fault: HeadFault,
    },
    /// The text of a VMDK image is not understood.
    #[error(
        "cannot tell which files the VMDK image {} consists of: {problem}. \
         VBoxManage clonemedium makes a VDI image of it, which needs no other files",
        path.display()
    )]
    Descriptor {
        /// The image.
        path: PathBuf,
        /// What is not understood.
        problem: &'static str,
    },
    /// A block's data lies outside the file.
    #[error(
        "{} is damaged: block {block} should be stored up to byte {end_bytes}, but the file ends \
         at byte {file_len_bytes}. It was probably copied or written incompletely; use another \
         copy of it",
        path.display()
    )]
    BlockOutsideFile {
        /// The image.
        path: PathBuf,
        /// The guest block that cannot be read.
        block: u32,
        /// Where its data would end in the file.
        end_bytes: u64,
        /// Where the file ends.
        file_len_bytes: u64,
    },
    /// The block map is inconsistent, so writing would destroy data.
    #[error(
        "{} is not written to, because its block map is damaged: {finding}. \
         Restore the image from a snapshot or copy what can be read with VBoxManage clonemedium",
        path.display()
    )]
    DamagedBlockMap {
        /// The image.
        path: PathBuf,
        /// The first thing found.
        finding: Finding,
    },
    /// The parent of an image was not found.
    #[error(
        "the parent of {} is missing: no VDI image with UUID {parent} among {}. Put the file there \
         or name it; a parent in VMDK or VHD format cannot be read yet",
        child.display(), PathList(looked_at)
    )]
    MissingParent {
        /// The image whose parent is missing.
        child: PathBuf,
        /// The UUID that the parent must have.
        parent: Uuid,
        /// The folders or files where it was expected.
        looked_at: Vec<PathBuf>,
    },
    /// Two files claim to be the same image.
    #[error(
        "two images have the UUID {uuid} that {} names as its parent: {} and {}. \
         Move the one that does not belong to this machine elsewhere",
        child.display(), first.display(), second.display()
    )]
    DuplicateImage {
        /// The image whose parent is ambiguous.
        child: PathBuf,
        /// The UUID that both carry.
        uuid: Uuid,
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// An image is its own ancestor.
    #[error(
        "{} names {parent} as its parent, but that image is itself based on it. \
         One of the two headers was changed by hand; restore it from a snapshot",
        path.display()
    )]
    ChainLoop {
        /// The image that closes the loop.
        path: PathBuf,
        /// The UUID of the image that it leads back to.
        parent: Uuid,
    },
    /// A differencing image that does not say what it differs from.
    #[error(
        "{} is a differencing image, but its header names no parent, so the disk cannot be put \
         together. Restore the image from a snapshot",
        path.display()
    )]
    NoParentUuid {
        /// The image.
        path: PathBuf,
    },
    /// An image became another one between resolving the chain and opening it.
    #[error(
        "{} was replaced by another image (UUID {found} instead of {expected}) while it was being \
         opened; try again when nothing else works on this machine",
        path.display()
    )]
    Replaced {
        /// The image.
        path: PathBuf,
        /// The UUID it had.
        expected: Uuid,
        /// The UUID it has now.
        found: Uuid,
    },
    /// Access past the end of the disk.
    #[error(
        "{length_bytes} bytes at offset {offset_bytes} lie outside the disk {}, which has \
         {capacity_bytes} bytes",
        path.display()
    )]
    OutOfBounds {
        /// The image.
        path: PathBuf,
        /// Where the access began.
        offset_bytes: u64,
        /// How long it was.
        length_bytes: u64,
        /// The size of the disk.
        capacity_bytes: u64,
    },
    /// Part of a block was written whose rest only the parent knows.
    #[error(
        "cannot write a part of block {block} of {}: the rest of the block is in the parent image, \
         which was not given",
        path.display()
    )]
    ParentNeeded {
        /// The differencing image.
        path: PathBuf,
        /// The block that is not in it yet.
        block: u32,
    },
    /// An image cannot be created with these parameters.
    #[error("cannot create {}: {problem}", path.display())]
    InvalidParameters {
        /// The image that was to be created.
        path: PathBuf,
        /// What does not fit.
        problem: &'static str,
    },
    /// The target is there already.
    #[error("{} exists already and is not overwritten; remove it or choose another name", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The user asked to stop.
    #[error("interrupted while writing {}; nothing was left behind", path.display())]
    Interrupted {
        /// What was being written.
        path: PathBuf,
    },
}

impl Error {
    /// The class of the error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::UnsupportedFormat { .. } | Self::Descriptor { .. } => ErrorKind::Unsupported,
            Self::Header { fault, .. } => fault.kind(),
            Self::Head { .. } => ErrorKind::Corrupt,
            Self::BlockOutsideFile { .. } | Self::DamagedBlockMap { .. } => ErrorKind::Corrupt,
            Self::MissingParent { .. }
            | Self::DuplicateImage { .. }
            | Self::ChainLoop { .. }
            | Self::NoParentUuid { .. }
            | Self::Replaced { .. } => ErrorKind::Chain,
            Self::OutOfBounds { .. }
            | Self::ParentNeeded { .. }
            | Self::InvalidParameters { .. } => ErrorKind::InvalidRequest,
            Self::Exists { .. } => ErrorKind::Exists,
            Self::Interrupted { .. } => ErrorKind::Interrupted,
        }
    }

    /// For `map_err`: the failure of `operation` on `path`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// For `map_err`: the header of `path` is unusable.
    pub(crate) fn header(path: &Path) -> impl FnOnce(HeaderFault) -> Self {
        let path = path.to_path_buf();
        move |fault| Self::Header { path, fault }
    }
}

/// Refuses an access to the disk at `path` that does not lie within its `capacity_bytes`.
pub(crate) fn check_bounds(
    path: &Path,
    capacity_bytes: u64,
    offset_bytes: u64,
    length_bytes: u64,
) -> Result<()> {
    match offset_bytes.checked_add(length_bytes) {
        Some(end_bytes) if end_bytes <= capacity_bytes => Ok(()),
        _ => {
            let path = path.to_path_buf();
            Err(Error::OutOfBounds {
                path,
                offset_bytes,
                length_bytes,
                capacity_bytes,
            })
        }
    }
}

/// Why an earlier header and block map do not help a damaged image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadFault {
    /// The earlier header does not fit the file.
    #[error("the earlier header does not fit it any more, because {0}")]
    Header(HeaderFault),
    /// The file lost blocks that the earlier map names.
    #[error("the file is shorter than it was, or the earlier block map is damaged itself")]
    Shrunk,
    /// Blocks have other places than they had.
    #[error(
        "blocks are not where they were ({blocks} of them): the image was compacted, or its block \
         map is damaged in a way that does not show"
    )]
    Moved {
        /// How many.
        blocks: u64,
    },
}

/// What is wrong with a VDI header. It names no file, because headers also come from elsewhere;
/// [`Error::Header`] adds the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// Too short to hold a header.
    #[error("it ends after {found_bytes} bytes, inside the header of {needed_bytes} bytes")]
    Truncated {
        /// How much there is.
        found_bytes: u64,
        /// How much the header needs.
        needed_bytes: u64,
    },
    /// The signature of VDI images is missing.
    #[error(
        "it does not begin with a VDI header (found {found:#010x} where {expected:#010x} belongs)"
    )]
    NotVdi {
        /// What is there instead of the signature.
        found: u32,
        /// The signature.
        expected: u32,
    },
    /// A version that is not known.
    #[error("its version {major}.{minor} is not known; a newer vrs may read it")]
    Version {
        /// Upper half of the version field.
        major: u16,
        /// Lower half of the version field.
        minor: u16,
    },
    /// A field holds a value that cannot be.
    #[error(
        "{field} (at byte {offset_bytes} of the header) is {found}, but {rule}; the header is damaged"
    )]
    Field {
        /// The field, as people would name it.
        field: &'static str,
        /// Where it lies in the file.
        offset_bytes: usize,
        /// What it holds.
        found: u64,
        /// What it should obey.
        rule: &'static str,
    },
    /// The block map would not fit into the file.
    #[error(
        "its block map of {blocks} blocks would end at byte {end_bytes}, but the file ends at byte \
         {file_len_bytes}; it is damaged or was copied incompletely"
    )]
    MapOutsideFile {
        /// How many blocks the header claims.
        blocks: u32,
        /// Where the map would end.
        end_bytes: u64,
        /// Where the file ends.
        file_len_bytes: u64,
    },
    /// More blocks than any image in practice has.
    #[error("it claims {blocks} blocks, more than the {most} that vrs handles")]
    TooManyBlocks {
        /// How many blocks the header claims.
        blocks: u32,
        /// The limit.
        most: u32,
    },
}

impl HeaderFault {
    const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } | Self::TooManyBlocks { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// Paths for an error text, at most a few of them.
struct PathList<'a>(&'a [PathBuf]);

impl fmt::Display for PathList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        for (index, path) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{}", path.display())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}
