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
use super::layout::{
    self, COMMENT_BYTES, HEADER_1_BYTES, HEADER_1_PLUS_BYTES, HEADER_SECTOR_BYTES, Layout, u32_at,
    u64_at, uuid_at,
};
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
    const fn from_code(code: u32) -> Option<Self> {
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

impl Geometry {
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            cylinders: u32_at(bytes, at)?,
            heads: u32_at(bytes, at.saturating_add(4))?,
            sectors: u32_at(bytes, at.saturating_add(8))?,
            sector_bytes: u32_at(bytes, at.saturating_add(12))?,
        })
    }
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

/// 64 Mi blocks are a disk of 64 TiB, and a block map of 256 MiB in memory.
const MOST_BLOCKS: u32 = 1 << 26;
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=128 << 20;
const SECTOR_BYTES: u64 = 512;

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
        match Self::parse(&sector, metadata.len()) {
            Ok(header) => Ok(header),
            Err(fault) => Err(explain(path, fault)),
        }
    }

    /// Checks the header at the beginning of `bytes` (512 bytes suffice) of an image whose file is
    /// `file_len_bytes` long. Allocates nothing that depends on the header's numbers.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn parse(bytes: &[u8], file_len_bytes: u64) -> std::result::Result<Self, HeaderFault> {
        let version = parse_version(bytes)?;
        let layout = Layout::of(version)?;
        let header =
            Self::parse_fields(bytes, version, &layout).ok_or(HeaderFault::Truncated {
                found_bytes: bytes.len() as u64,
                needed_bytes: layout.end as u64,
            })??;
        header.check_sizes(&layout)?;
        header.check_placement(&layout, file_len_bytes)?;
        Ok(header)
    }

    /// `None` if `bytes` ends too early.
    fn parse_fields(
        bytes: &[u8],
        version: VdiVersion,
        layout: &Layout,
    ) -> Option<std::result::Result<Self, HeaderFault>> {
        let type_code = u32_at(bytes, layout.image_type)?;
        let Some(image_type) = VdiImageType::from_code(type_code) else {
            let rule = "the known types are 1 to 4";
            return Some(Err(field(
                "the image type",
                layout.image_type,
                type_code,
                rule,
            )));
        };
        let blocks = u32_at(bytes, layout.blocks)?;
        let placement = Placement::parse(bytes, layout, blocks)?;
        Some(Ok(Self {
            version,
            image_type,
            flags: u32_at(bytes, layout.flags)?,
            comment: comment(bytes, layout),
            block_map_offset_bytes: placement.block_map_offset_bytes,
            data_offset_bytes: placement.data_offset_bytes,
            geometry: Geometry::parse(bytes, layout.geometry)?,
            logical_geometry: logical_geometry(bytes, layout),
            capacity_bytes: u64_at(bytes, layout.capacity)? & !(SECTOR_BYTES - 1),
            block_size_bytes: u32_at(bytes, layout.block_size)?,
            block_extra_bytes: placement.block_extra_bytes,
            blocks,
            allocated_blocks: u32_at(bytes, layout.allocated)?,
            uuids: parse_uuids(bytes, layout)?,
        }))
    }

    fn check_sizes(&self, layout: &Layout) -> std::result::Result<(), HeaderFault> {
        let size = self.block_size_bytes;
        if !size.is_power_of_two() || !BLOCK_SIZES.contains(&size) {
            let rule = "it must be a power of two from 512 to 134217728";
            return Err(field("the block size", layout.block_size, size, rule));
        }
        if self.capacity_bytes == 0 {
            let rule = "a disk has at least one sector";
            return Err(field(
                "the disk size",
                layout.capacity,
                self.capacity_bytes,
                rule,
            ));
        }
        if u64::from(self.blocks).saturating_mul(u64::from(size)) < self.capacity_bytes {
            let rule = "the disk needs more blocks than that";
            return Err(field(
                "the number of blocks",
                layout.blocks,
                self.blocks,
                rule,
            ));
        }
        if self.allocated_blocks > self.blocks {
            let rule = "no more can be allocated than there are";
            return Err(field(
                "the number of allocated blocks",
                layout.allocated,
                self.allocated_blocks,
                rule,
            ));
        }
        Ok(())
    }

    /// The header, the block map and the data must follow each other, and the map must be there.
    fn check_placement(
        &self,
        layout: &Layout,
        file_len_bytes: u64,
    ) -> std::result::Result<(), HeaderFault> {
        let map_end_bytes = self.block_map_end_bytes();
        if let Some(since_1) = layout.since_1 {
            if self.block_map_offset_bytes < layout.end as u64 {
                let found = self.block_map_offset_bytes;
                let rule = "it must lie behind the header";
                return Err(field(
                    "the block map's offset",
                    since_1.block_map_offset,
                    found,
                    rule,
                ));
            }
            if self.data_offset_bytes < map_end_bytes {
                let found = self.data_offset_bytes;
                let rule = "the data must lie behind the block map";
                return Err(field("the data offset", since_1.data_offset, found, rule));
            }
        }
        if map_end_bytes > file_len_bytes {
            return Err(HeaderFault::MapOutsideFile {
                blocks: self.blocks,
                end_bytes: map_end_bytes,
                file_len_bytes,
            });
        }
        if self.blocks > MOST_BLOCKS {
            return Err(HeaderFault::TooManyBlocks {
                blocks: self.blocks,
                most: MOST_BLOCKS,
            });
        }
        Ok(())
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
        self.block_map_offset_bytes
            .saturating_add(map_bytes(self.blocks))
    }

    pub(super) fn grid(&self) -> BlockGrid {
        BlockGrid::new(
            self.block_size_bytes,
            self.block_extra_bytes,
            self.data_offset_bytes,
        )
    }
}

impl Layout {
    /// VirtualBox accepts 0.2 and every minor version of 1.
    pub(super) const fn of(version: VdiVersion) -> std::result::Result<Self, HeaderFault> {
        match (version.major, version.minor) {
            (0, _) => Ok(Self::V0),
            (1, _) => Ok(Self::V1),
            (major, minor) => Err(HeaderFault::Version { major, minor }),
        }
    }
}

/// Where the parts of an image lie, which the oldest headers do not say but imply.
struct Placement {
    block_map_offset_bytes: u64,
    data_offset_bytes: u64,
    block_extra_bytes: u32,
}

impl Placement {
    fn parse(bytes: &[u8], layout: &Layout, blocks: u32) -> Option<Self> {
        let Some(since_1) = layout.since_1 else {
            let end_bytes = layout.end as u64;
            return Some(Self {
                block_map_offset_bytes: end_bytes,
                data_offset_bytes: end_bytes.saturating_add(map_bytes(blocks)),
                block_extra_bytes: 0,
            });
        };
        Some(Self {
            block_map_offset_bytes: u32_at(bytes, since_1.block_map_offset)?.into(),
            data_offset_bytes: u32_at(bytes, since_1.data_offset)?.into(),
            block_extra_bytes: u32_at(bytes, since_1.block_extra)?,
        })
    }
}

fn parse_version(bytes: &[u8]) -> std::result::Result<VdiVersion, HeaderFault> {
    let truncated = HeaderFault::Truncated {
        found_bytes: bytes.len() as u64,
        needed_bytes: layout::PREHEADER_BYTES as u64,
    };
    let signature = u32_at(bytes, layout::SIGNATURE_AT).ok_or_else(|| truncated.clone())?;
    if signature != layout::SIGNATURE {
        return Err(HeaderFault::NotVdi {
            found: signature,
            expected: layout::SIGNATURE,
        });
    }
    let [a, b, c, d] = u32_at(bytes, layout::VERSION_AT)
        .ok_or(truncated)?
        .to_le_bytes();
    let minor = u16::from_le_bytes([a, b]);
    let major = u16::from_le_bytes([c, d]);
    let header_size = u32_at(bytes, layout::PREHEADER_BYTES);
    if major == 1 && header_size.is_some_and(|size| size < HEADER_1_BYTES) {
        let rule = "this version has at least 384";
        let found = header_size.unwrap_or_default();
        return Err(field(
            "the header size",
            layout::PREHEADER_BYTES,
            found,
            rule,
        ));
    }
    Ok(VdiVersion { major, minor })
}

fn parse_uuids(bytes: &[u8], layout: &Layout) -> Option<VdiUuids> {
    let parent_modification = match layout.since_1 {
        Some(since_1) => uuid_at(bytes, since_1.parent_modification)?,
        None => Uuid::nil(),
    };
    Some(VdiUuids {
        creation: uuid_at(bytes, layout.creation)?,
        modification: uuid_at(bytes, layout.modification)?,
        parent: uuid_at(bytes, layout.parent)?,
        parent_modification,
    })
}

fn logical_geometry(bytes: &[u8], layout: &Layout) -> Option<Geometry> {
    let since_1 = layout.since_1?;
    let has_it = u32_at(bytes, since_1.header_size)? >= HEADER_1_PLUS_BYTES;
    has_it
        .then(|| Geometry::parse(bytes, since_1.logical_geometry))
        .flatten()
}

fn comment(bytes: &[u8], layout: &Layout) -> String {
    let text = bytes.iter().skip(layout.comment).take(COMMENT_BYTES);
    let text: Vec<u8> = text.copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

fn map_bytes(blocks: u32) -> u64 {
    u64::from(blocks).saturating_mul(4)
}

fn field(
    field: &'static str,
    offset_bytes: usize,
    found: impl Into<u64>,
    rule: &'static str,
) -> HeaderFault {
    HeaderFault::Field {
        field,
        offset_bytes,
        found: found.into(),
        rule,
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
pub(super) fn read_header_sector(file: &File, file_len_bytes: u64) -> std::io::Result<Vec<u8>> {
    let sector_bytes = usize::try_from(file_len_bytes).unwrap_or(usize::MAX);
    let mut sector = vec![0; sector_bytes.min(HEADER_SECTOR_BYTES)];
    platform::read_exact_at(file, &mut sector, 0)?;
    Ok(sector)
}
