//! The header of a VDI image.
//!
//! A parsed [`VdiHeader`] is usable: its numbers agree with each other and with the length of the
//! file, so that nothing later needs to doubt them. Not promised: that the entries of the block map
//! are sound (see [`crate::BlockMap::check`]).

use std::fmt;
use std::fs::File;
use std::path::Path;

use uuid::Uuid;

use super::grid::BlockGrid;
use super::header_parser;
use super::layout::{ENTRY_BYTES, HEADER_SECTOR_BYTES};
use crate::error::{Error, HeaderFault, Result};
use crate::{ImageFormat, platform};

/// The version of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VdiVersion {
    /// 0 for the layout of the first releases, 1 since then.
    pub major: u16,
    /// 1 in all images that VirtualBox writes today.
    pub minor: u16,
}

impl fmt::Display for VdiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What kind of image it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VdiImageType {
    /// A base image that grows as it is written.
    Dynamic,
    /// A base image with all its blocks allocated in order.
    Fixed,
    /// Changes to a parent that were to be dropped or kept; written by early releases only.
    Undo,
    /// Changes to a parent.
    Differencing,
}

impl VdiImageType {
    pub(super) const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Dynamic),
            2 => Some(Self::Fixed),
            3 => Some(Self::Undo),
            4 => Some(Self::Differencing),
            _ => None,
        }
    }

    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Dynamic => 1,
            Self::Fixed => 2,
            Self::Undo => 3,
            Self::Differencing => 4,
        }
    }
}

impl fmt::Display for VdiImageType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dynamic => "dynamic",
            Self::Fixed => "fixed",
            Self::Undo => "undo",
            Self::Differencing => "differencing",
        })
    }
}

/// Cylinders, heads and sectors; all but the last zero where VirtualBox has not calculated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Geometry {
    /// Number of cylinders.
    pub cylinders: u32,
    /// Number of heads.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
    /// Size of a sector.
    pub sector_bytes: u32,
}

/// The four UUIDs of an image. One that does not apply is nil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VdiUuids {
    /// The image's own UUID, by which VirtualBox and child images know it.
    pub creation: Uuid,
    /// Changes when VirtualBox writes to the image, though not always: no proof of sameness.
    pub modification: Uuid,
    /// The image that this one differs from.
    pub parent: Uuid,
    /// The parent's modification UUID as this image last saw it. VirtualBox leaves it stale as a
    /// rule.
    pub parent_modification: Uuid,
}

/// Every field of a VDI header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdiHeader {
    /// Version of the header.
    pub version: VdiVersion,
    /// Kind of image.
    pub image_type: VdiImageType,
    /// Bit 0: new blocks are filled with zeros.
    pub flags: u32,
    /// Free text, with whatever was not UTF-8 replaced.
    pub comment: String,
    /// Where the block map begins in the file.
    pub block_map_offset_bytes: u64,
    /// Where the first block's data begins in the file.
    pub data_offset_bytes: u64,
    /// The geometry that old releases stored.
    pub geometry: Geometry,
    /// The geometry as the guest's BIOS sees it; absent in headers without that field.
    pub logical_geometry: Option<Geometry>,
    /// Size of the disk, rounded down to whole sectors as VirtualBox does.
    pub capacity_bytes: u64,
    /// Size of a block: a power of two.
    pub block_size_bytes: u32,
    /// What is stored in front of each block's data; 0 in all images seen so far.
    pub block_extra_bytes: u32,
    /// Number of blocks, which is the number of entries in the block map.
    pub blocks: u32,
    /// How many of them are in the file, as the header claims.
    pub allocated_blocks: u32,
    /// The UUIDs.
    pub uuids: VdiUuids,
}

impl VdiHeader {
    /// Reads and checks the header of the image at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::UnsupportedFormat`] for another format than VDI; [`Error::Header`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::read_from(&file, path)
    }

    pub(crate) fn read_from(file: &File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let sector = read_header_sector(file, metadata.len()).map_err(Error::io("read", path))?;
        Self::parse(&sector, metadata.len()).map_err(|fault| explain(path, fault))
    }

    /// Checks the header at the beginning of `bytes` (512 bytes suffice) of an image whose file is
    /// `file_len_bytes` long. Allocates nothing that depends on the header's numbers.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn parse(bytes: &[u8], file_len_bytes: u64) -> std::result::Result<Self, HeaderFault> {
        header_parser::parse(bytes, file_len_bytes)
    }

    /// Whether the image holds changes to another one.
    #[must_use]
    pub fn is_differencing(&self) -> bool {
        match self.image_type {
            VdiImageType::Dynamic | VdiImageType::Fixed => false,
            VdiImageType::Undo => !self.uuids.parent.is_nil(),
            VdiImageType::Differencing => true,
        }
    }

    /// The UUID of the image that this one holds changes to.
    #[must_use]
    pub fn parent(&self) -> Option<Uuid> {
        (self.is_differencing() && !self.uuids.parent.is_nil()).then_some(self.uuids.parent)
    }

    pub(super) fn block_map_end_bytes(&self) -> u64 {
        let map_bytes = u64::from(self.blocks).saturating_mul(ENTRY_BYTES);
        self.block_map_offset_bytes.saturating_add(map_bytes)
    }

    pub(super) fn grid(&self) -> BlockGrid {
        BlockGrid::new(
            self.block_size_bytes,
            self.block_extra_bytes,
            self.data_offset_bytes,
        )
    }
}

/// A file without the signature may be an image of another format, which deserves its own words.
fn explain(path: &Path, fault: HeaderFault) -> Error {
    let is_vdi = !matches!(
        fault,
        HeaderFault::NotVdi { .. } | HeaderFault::Truncated { .. }
    );
    match ImageFormat::probe(path) {
        Ok(format) if !is_vdi && !matches!(format, ImageFormat::Vdi | ImageFormat::Raw) => {
            Error::UnsupportedFormat {
                path: path.to_path_buf(),
                format,
            }
        }
        _ => Error::header(path)(fault),
    }
}

/// The first sector of a file, or all of it if it is shorter.
fn read_header_sector(file: &File, file_len_bytes: u64) -> std::io::Result<Vec<u8>> {
    let sector_bytes = usize::try_from(file_len_bytes).unwrap_or(usize::MAX);
    let mut sector = vec![0; sector_bytes.min(HEADER_SECTOR_BYTES)];
    platform::read_exact_at(file, &mut sector, 0)?;
    Ok(sector)
}
