//! From bytes to a [`VdiHeader`] whose numbers agree with each other and with the file.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::header::{Geometry, VdiHeader, VdiImageType, VdiUuids, VdiVersion};
use super::layout::{
    self, COMMENT_BYTES, ENTRY_BYTES, HEADER_1_BYTES, HEADER_1_PLUS_BYTES, Layout, MOST_BLOCKS,
    SECTOR_BYTES,
};
use crate::error::HeaderFault;

type Result<T> = std::result::Result<T, HeaderFault>;

/// Wider than what VirtualBox opens, as nothing depends on it.
const BLOCK_SIZES: RangeInclusive<u32> = 512..=128 << 20;

pub fn parse(bytes: &[u8], file_len_bytes: u64) -> Result<VdiHeader> {
    let version = Fields::new(bytes, layout::PREHEADER_BYTES).version()?;
    let layout = Layout::of(version)?;
    let header = Fields::new(bytes, layout.end).header(version, &layout)?;
    check_sizes(&header, &layout)?;
    check_order(&header, &layout)?;
    check_map(&header, file_len_bytes)?;
    Ok(header)
}

impl Layout {
    /// VirtualBox accepts 0.2 and every minor version of 1.
    pub(super) const fn of(version: VdiVersion) -> Result<Self> {
        match (version.major, version.minor) {
            (0, _) => Ok(Self::V0),
            (1, _) => Ok(Self::V1),
            (major, minor) => Err(HeaderFault::Version { major, minor }),
        }
    }
}

/// The bytes of a header that should have at least `needed_bytes`.
struct Fields<'a> {
    bytes: &'a [u8],
    needed_bytes: usize,
}

impl<'a> Fields<'a> {
    const fn new(bytes: &'a [u8], needed_bytes: usize) -> Self {
        Self {
            bytes,
            needed_bytes,
        }
    }

    fn version(&self) -> Result<VdiVersion> {
        let signature = self.u32(layout::SIGNATURE_AT)?;
        if signature != layout::SIGNATURE {
            let expected = layout::SIGNATURE;
            return Err(HeaderFault::NotVdi {
                found: signature,
                expected,
            });
        }
        let [minor_low, minor_high, major_low, major_high] =
            self.u32(layout::VERSION_AT)?.to_le_bytes();
        let minor = u16::from_le_bytes([minor_low, minor_high]);
        let major = u16::from_le_bytes([major_low, major_high]);
        Ok(VdiVersion { major, minor })
    }

    fn header(&self, version: VdiVersion, layout: &Layout) -> Result<VdiHeader> {
        let blocks = self.u32(layout.blocks)?;
        let placement = self.placement(layout, blocks)?;
        Ok(VdiHeader {
            version,
            image_type: self.image_type(layout)?,
            flags: self.u32(layout.flags)?,
            comment: self.comment(layout),
            block_map_offset_bytes: placement.block_map_offset_bytes,
            data_offset_bytes: placement.data_offset_bytes,
            geometry: self.geometry(layout.geometry)?,
            logical_geometry: placement.logical_geometry,
            capacity_bytes: whole_sectors(self.u64(layout.capacity)?),
            block_size_bytes: self.u32(layout.block_size)?,
            block_extra_bytes: placement.block_extra_bytes,
            blocks,
            allocated_blocks: self.u32(layout.allocated)?,
            uuids: VdiUuids {
                creation: self.uuid(layout.creation)?,
                modification: self.uuid(layout.modification)?,
                parent: self.uuid(layout.parent)?,
                parent_modification: placement.parent_modification,
            },
        })
    }

    fn image_type(&self, layout: &Layout) -> Result<VdiImageType> {
        let code = self.u32(layout.image_type)?;
        let rule = "the known types are 1 to 4";
        let fault = || wrong("the image type", layout.image_type, code, rule);
        VdiImageType::from_code(code).ok_or_else(fault)
    }

    /// What major version 0 does not say but implies.
    fn placement(&self, layout: &Layout, blocks: u32) -> Result<Placement> {
        let Some(since_1) = layout.since_1 else {
            let map_offset_bytes = layout.end as u64;
            let map_bytes = u64::from(blocks).saturating_mul(ENTRY_BYTES);
            return Ok(Placement {
                block_map_offset_bytes: map_offset_bytes,
                data_offset_bytes: map_offset_bytes.saturating_add(map_bytes),
                block_extra_bytes: 0,
                parent_modification: Uuid::nil(),
                logical_geometry: None,
            });
        };
        let header_size = self.u32(since_1.header_size)?;
        if header_size < HEADER_1_BYTES {
            let rule = "this version has at least 384";
            return Err(wrong(
                "the header size",
                since_1.header_size,
                header_size,
                rule,
            ));
        }
        let has_logical_geometry = header_size >= HEADER_1_PLUS_BYTES;
        let logical_geometry = has_logical_geometry
            .then(|| self.geometry(since_1.logical_geometry))
            .transpose()?;
        Ok(Placement {
            block_map_offset_bytes: self.u32(since_1.block_map_offset)?.into(),
            data_offset_bytes: self.u32(since_1.data_offset)?.into(),
            block_extra_bytes: self.u32(since_1.block_extra)?,
            parent_modification: self.uuid(since_1.parent_modification)?,
            logical_geometry,
        })
    }

    fn geometry(&self, at: usize) -> Result<Geometry> {
        Ok(Geometry {
            cylinders: self.u32(at)?,
            heads: self.u32(at.saturating_add(4))?,
            sectors: self.u32(at.saturating_add(8))?,
            sector_bytes: self.u32(at.saturating_add(12))?,
        })
    }

    fn comment(&self, layout: &Layout) -> String {
        let text = self.bytes.iter().skip(layout.comment).take(COMMENT_BYTES);
        let text: Vec<u8> = text.copied().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn u32(&self, at: usize) -> Result<u32> {
        layout::u32_at(self.bytes, at).ok_or_else(|| self.truncated())
    }

    fn u64(&self, at: usize) -> Result<u64> {
        layout::u64_at(self.bytes, at).ok_or_else(|| self.truncated())
    }

    fn uuid(&self, at: usize) -> Result<Uuid> {
        layout::uuid_at(self.bytes, at).ok_or_else(|| self.truncated())
    }

    const fn truncated(&self) -> HeaderFault {
        HeaderFault::Truncated {
            found_bytes: self.bytes.len() as u64,
            needed_bytes: self.needed_bytes as u64,
        }
    }
}

/// What only the headers since major version 1 say.
struct Placement {
    block_map_offset_bytes: u64,
    data_offset_bytes: u64,
    block_extra_bytes: u32,
    parent_modification: Uuid,
    logical_geometry: Option<Geometry>,
}

fn check_sizes(header: &VdiHeader, layout: &Layout) -> Result<()> {
    let block_size = header.block_size_bytes;
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        let rule = "it must be a power of two from 512 to 134217728";
        return Err(wrong("the block size", layout.block_size, block_size, rule));
    }
    if header.capacity_bytes == 0 {
        let rule = "a disk has at least one sector";
        return Err(wrong("the disk size", layout.capacity, 0_u32, rule));
    }
    let (blocks, allocated) = (header.blocks, header.allocated_blocks);
    if u64::from(blocks).saturating_mul(block_size.into()) < header.capacity_bytes {
        let rule = "the disk needs more blocks than that";
        return Err(wrong("the number of blocks", layout.blocks, blocks, rule));
    }
    if allocated > blocks {
        let rule = "no more can be allocated than there are";
        return Err(wrong(
            "the number of allocated blocks",
            layout.allocated,
            allocated,
            rule,
        ));
    }
    Ok(())
}

/// Header, block map and data must follow each other.
fn check_order(header: &VdiHeader, layout: &Layout) -> Result<()> {
    let Some(since_1) = layout.since_1 else {
        return Ok(());
    };
    let map_offset = header.block_map_offset_bytes;
    if map_offset < layout.end as u64 {
        let rule = "it must lie behind the header";
        return Err(wrong(
            "the block map's offset",
            since_1.block_map_offset,
            map_offset,
            rule,
        ));
    }
    let data_offset = header.data_offset_bytes;
    if data_offset < header.block_map_end_bytes() {
        let rule = "the data must lie behind the block map";
        return Err(wrong(
            "the data offset",
            since_1.data_offset,
            data_offset,
            rule,
        ));
    }
    Ok(())
}

/// The block map must be in the file and of a size that may be loaded.
fn check_map(header: &VdiHeader, file_len_bytes: u64) -> Result<()> {
    let blocks = header.blocks;
    let end_bytes = header.block_map_end_bytes();
    if end_bytes > file_len_bytes {
        return Err(HeaderFault::MapOutsideFile {
            blocks,
            end_bytes,
            file_len_bytes,
        });
    }
    if blocks > MOST_BLOCKS {
        return Err(HeaderFault::TooManyBlocks {
            blocks,
            most: MOST_BLOCKS,
        });
    }
    Ok(())
}

fn whole_sectors(bytes: u64) -> u64 {
    bytes.saturating_sub(bytes % SECTOR_BYTES)
}

fn wrong(
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
