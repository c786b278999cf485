//! What a new VDI image is like, in the layout that VirtualBox gives new images: block map at 1 MiB,
//! data at the next whole MiB behind it.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::header::{Geometry, VdiHeader, VdiImageType, VdiUuids, VdiVersion};
use super::layout::{ENTRY_BYTES, MOST_BLOCKS, SECTOR_BYTES};

/// The kind of image to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VdiVariant {
    /// Grows as it is written.
    Dynamic,
    /// All blocks allocated (as holes, where the file system has them).
    Fixed,
    /// Changes to a parent.
    Differencing {
        /// The parent's UUID.
        parent: Uuid,
        /// The parent's modification UUID.
        parent_modification: Uuid,
    },
}

/// What image to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VdiCreate {
    /// The kind of image.
    pub variant: VdiVariant,
    /// The size of the disk: a multiple of 512.
    pub capacity_bytes: u64,
    /// The size of a block: a power of two from 128 KiB to 128 MiB. `qemu-img` knows 1 MiB only.
    pub block_size_bytes: u32,
    /// The new image's UUID.
    pub uuid: Uuid,
}

impl VdiCreate {
    /// The block size that VirtualBox uses.
    pub const DEFAULT_BLOCK_SIZE_BYTES: u32 = 1 << 20;

    /// An image with the usual block size and a new random UUID.
    #[must_use]
    pub fn new(variant: VdiVariant, capacity_bytes: u64) -> Self {
        let block_size_bytes = Self::DEFAULT_BLOCK_SIZE_BYTES;
        Self {
            variant,
            capacity_bytes,
            block_size_bytes,
            uuid: Uuid::new_v4(),
        }
    }
}

const ALIGNMENT_BYTES: u64 = 1 << 20;
/// What VirtualBox opens.
const BLOCK_SIZES: RangeInclusive<u32> = 128 << 10..=128 << 20;

impl VdiCreate {
    /// The header of the new image.
    ///
    /// # Errors
    /// Why it cannot be created.
    pub(super) fn header(&self) -> Result<VdiHeader, &'static str> {
        let blocks = self.blocks()?;
        let map_bytes = u64::from(blocks).saturating_mul(ENTRY_BYTES);
        let map_end_bytes = ALIGNMENT_BYTES.saturating_add(map_bytes);
        let geometry = Geometry {
            sector_bytes: 512,
            ..Geometry::default()
        };
        Ok(VdiHeader {
            version: VdiVersion { major: 1, minor: 1 },
            image_type: self.image_type(),
            flags: 0,
            comment: String::new(),
            block_map_offset_bytes: ALIGNMENT_BYTES,
            data_offset_bytes: map_end_bytes.next_multiple_of(ALIGNMENT_BYTES),
            geometry,
            logical_geometry: Some(geometry),
            capacity_bytes: self.capacity_bytes,
            block_size_bytes: self.block_size_bytes,
            block_extra_bytes: 0,
            blocks,
            allocated_blocks: if self.variant == VdiVariant::Fixed {
                blocks
            } else {
                0
            },
            uuids: self.uuids(),
        })
    }

    const fn image_type(&self) -> VdiImageType {
        match self.variant {
            VdiVariant::Dynamic => VdiImageType::Dynamic,
            VdiVariant::Fixed => VdiImageType::Fixed,
            VdiVariant::Differencing { .. } => VdiImageType::Differencing,
        }
    }

    fn uuids(&self) -> VdiUuids {
        let (parent, parent_modification) = match self.variant {
            VdiVariant::Dynamic | VdiVariant::Fixed => (Uuid::nil(), Uuid::nil()),
            VdiVariant::Differencing {
                parent,
                parent_modification,
            } => (parent, parent_modification),
        };
        let modification = Uuid::new_v4();
        VdiUuids {
            creation: self.uuid,
            modification,
            parent,
            parent_modification,
        }
    }

    /// The number of blocks that the image needs, if it may exist.
    fn blocks(&self) -> Result<u32, &'static str> {
        let size = self.block_size_bytes;
        if !size.is_power_of_two() || !BLOCK_SIZES.contains(&size) {
            return Err("the block size must be a power of two from 131072 to 134217728 bytes");
        }
        if self.capacity_bytes == 0 || !self.capacity_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err("the disk size must be a multiple of 512 bytes and not 0");
        }
        match u32::try_from(self.capacity_bytes.div_ceil(size.into())) {
            Ok(blocks) if blocks <= MOST_BLOCKS => Ok(blocks),
            _ => Err("the disk would have more than 67108864 blocks; choose a larger block size"),
        }
    }
}
