//! Where the fields of a VDI header lie. All numbers are little-endian; UUIDs are stored the way
//! Windows stores GUIDs (`Uuid::from_bytes_le`). Source: VirtualBox, `src/VBox/Storage/VDICore.h`.

use uuid::Uuid;

/// The bytes of a file that are read to parse its header: one sector holds every known version.
pub const HEADER_SECTOR_BYTES: usize = 512;

/// The signature, and where it and the version stand in every version.
pub const SIGNATURE: u32 = 0xbeda_107f;
pub const SIGNATURE_AT: usize = 64;
pub const VERSION_AT: usize = 68;

/// The unit of disk sizes.
pub const SECTOR_BYTES: u64 = 512;

/// 64 Mi blocks are a disk of 64 TiB, and a block map of 256 MiB in memory.
pub const MOST_BLOCKS: u32 = 1 << 26;

/// Length of the header's own part that precedes the versioned fields.
pub const PREHEADER_BYTES: usize = 72;
pub const COMMENT_BYTES: usize = 256;

/// Sizes of the header that the `cbHeader` field of major version 1 tells apart, without and with
/// the logical geometry at the end.
pub const HEADER_1_BYTES: u32 = 384;
pub const HEADER_1_PLUS_BYTES: u32 = 400;

/// Size of an entry of the block map.
pub const ENTRY_BYTES: u64 = 4;

/// Entries of the block map that are no block numbers.
pub const BLOCK_FREE: u32 = 0xffff_ffff;
pub const BLOCK_ZERO: u32 = 0xffff_fffe;

/// Offsets of the fields from the beginning of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub image_type: usize,
    pub flags: usize,
    pub comment: usize,
    pub geometry: usize,
    pub capacity: usize,
    pub block_size: usize,
    pub blocks: usize,
    pub allocated: usize,
    pub creation: usize,
    pub modification: usize,
    pub parent: usize,
    /// Where the header ends, without the logical geometry of major version 1.
    pub end: usize,
    pub since_1: Option<Since1>,
}

/// Offsets of the fields that major version 1 added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since1 {
    pub header_size: usize,
    pub block_map_offset: usize,
    pub data_offset: usize,
    pub block_extra: usize,
    pub parent_modification: usize,
    pub logical_geometry: usize,
}

impl Layout {
    /// Major version 0, written by the first VirtualBox releases.
    pub const V0: Self = Self {
        image_type: 72,
        flags: 76,
        comment: 80,
        geometry: 336,
        capacity: 352,
        block_size: 360,
        blocks: 364,
        allocated: 368,
        creation: 372,
        modification: 388,
        parent: 404,
        end: 420,
        since_1: None,
    };

    /// Major version 1.
    pub const V1: Self = Self {
        image_type: 76,
        flags: 80,
        comment: 84,
        geometry: 348,
        capacity: 368,
        block_size: 376,
        blocks: 384,
        allocated: 388,
        creation: 392,
        modification: 408,
        parent: 424,
        end: 456,
        since_1: Some(Since1 {
            header_size: 72,
            block_map_offset: 340,
            data_offset: 344,
            block_extra: 380,
            parent_modification: 440,
            logical_geometry: 456,
        }),
    };
}

/// The four bytes at `at` as a number, if there are four.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// The eight bytes at `at` as a number, if there are eight.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

/// The sixteen bytes at `at` as a UUID, if there are sixteen.
pub fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(Uuid::from_bytes_le)
}

/// Puts `value` at `at`. Bytes past the end of `bytes` are dropped.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (target, source) in bytes.iter_mut().skip(at).zip(value) {
        *target = *source;
    }
}
