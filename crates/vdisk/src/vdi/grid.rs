//! The arithmetic of blocks: which block a byte of the disk lies in, and where in the file the
//! block with a given number is stored.

use std::num::NonZeroU64;

/// Sizes and positions of an image's blocks.
#[derive(Debug, Clone, Copy)]
pub struct BlockGrid {
    block_bytes: NonZeroU64,
    stride_bytes: NonZeroU64,
    extra_bytes: u64,
    data_offset_bytes: u64,
}

impl BlockGrid {
    pub fn new(block_size_bytes: u32, extra_bytes: u32, data_offset_bytes: u64) -> Self {
        let block_bytes = NonZeroU64::new(block_size_bytes.into()).unwrap_or(NonZeroU64::MIN);
        Self {
            block_bytes,
            stride_bytes: block_bytes.saturating_add(extra_bytes.into()),
            extra_bytes: extra_bytes.into(),
            data_offset_bytes,
        }
    }

    /// The block that holds byte `offset_bytes` of the disk, and the byte's place in it.
    pub fn locate(&self, offset_bytes: u64) -> (u32, u64) {
        let block = offset_bytes / self.block_bytes;
        (
            u32::try_from(block).unwrap_or(u32::MAX),
            offset_bytes % self.block_bytes,
        )
    }

    /// Where the disk's block `block` begins on the disk.
    pub fn disk_offset_bytes(&self, block: u32) -> u64 {
        u64::from(block).saturating_mul(self.block_bytes.get())
    }

    /// Where the data of the file's block `stored` begins in the file.
    pub fn file_offset_bytes(&self, stored: u32) -> u64 {
        let blocks_bytes = u64::from(stored).saturating_mul(self.stride_bytes.get());
        self.data_offset_bytes
            .saturating_add(blocks_bytes)
            .saturating_add(self.extra_bytes)
    }

    /// How many whole blocks a file of `file_len_bytes` holds.
    pub fn stored_blocks(&self, file_len_bytes: u64) -> u64 {
        file_len_bytes.saturating_sub(self.data_offset_bytes) / self.stride_bytes
    }

    pub fn block_bytes(&self) -> u64 {
        self.block_bytes.get()
    }

    /// Whether blocks stored one behind the other can be read in one piece.
    pub fn is_gapless(&self) -> bool {
        self.extra_bytes == 0
    }
}
