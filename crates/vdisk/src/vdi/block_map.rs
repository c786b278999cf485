//! The block map: for each block of the disk, whether and where the image stores it.
//!
//! Takes four bytes of memory per block, allocated only after the file was found to be long enough
//! for the map. Entries are kept as found; [`BlockMap::check`] tells which of them cannot be.

use super::header::VdiHeader;
use super::layout::{BLOCK_FREE, BLOCK_ZERO};
use super::map_report::{Finding, MapReport};

/// What the image knows about one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockEntry {
    /// Nothing: a differencing image leaves the block to its parent; in a base image the contents
    /// are unspecified, and VirtualBox reads zeros.
    Free,
    /// The block is zero, whatever the parent says.
    Zero,
    /// The block is the file's n-th.
    Allocated(u32),
}

impl BlockEntry {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            BLOCK_FREE => Self::Free,
            BLOCK_ZERO => Self::Zero,
            stored => Self::Allocated(stored),
        }
    }

    const fn to_raw(self) -> u32 {
        match self {
            Self::Free => BLOCK_FREE,
            Self::Zero => BLOCK_ZERO,
            Self::Allocated(stored) => stored,
        }
    }

    /// The entry as it is stored.
    pub(super) const fn to_bytes(self) -> [u8; 4] {
        self.to_raw().to_le_bytes()
    }
}

/// The block map of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    raw: Vec<u32>,
    /// How many whole blocks the file holds.
    stored_blocks: u64,
    /// How many the header says it holds.
    allocated_blocks: u32,
}

/// Read at once while loading a map, so that the loading needs no second copy of it.
const PIECE_BYTES: usize = 64 << 10;

impl BlockMap {
    /// Loads the map of an image of `file_len_bytes` through `read`, which fills a buffer from an
    /// offset of the file.
    pub(super) fn read<E>(
        header: &VdiHeader,
        file_len_bytes: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut map = Self::empty(header, file_len_bytes);
        map.raw.reserve_exact(header.blocks as usize);
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset_bytes = header.block_map_offset_bytes;
        while offset_bytes < header.block_map_end_bytes() {
            let left_bytes = header.block_map_end_bytes().saturating_sub(offset_bytes);
            piece.truncate(usize::try_from(left_bytes).unwrap_or(PIECE_BYTES));
            read(offset_bytes, &mut piece)?;
            map.extend(&piece);
            offset_bytes = offset_bytes.saturating_add(piece.len() as u64);
        }
        Ok(map)
    }

    /// The map of the image with this (checked) header from the map's bytes. Entries that `bytes`
    /// lacks are free.
    #[must_use]
    pub fn parse(header: &VdiHeader, bytes: &[u8], file_len_bytes: u64) -> Self {
        let mut map = Self::empty(header, file_len_bytes);
        map.extend(bytes);
        map.raw.resize(header.blocks as usize, BLOCK_FREE);
        map
    }

    /// The map of a new image.
    pub(super) fn new(header: &VdiHeader, entry: impl Fn(u32) -> BlockEntry) -> Self {
        let mut map = Self::empty(header, u64::MAX);
        map.raw = (0..header.blocks)
            .map(|block| entry(block).to_raw())
            .collect();
        map
    }

    fn empty(header: &VdiHeader, file_len_bytes: u64) -> Self {
        Self {
            raw: Vec::new(),
            stored_blocks: header.grid().stored_blocks(file_len_bytes),
            allocated_blocks: header.allocated_blocks,
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let (entries, _rest) = bytes.as_chunks();
        self.raw
            .extend(entries.iter().map(|entry| u32::from_le_bytes(*entry)));
    }

    /// The number of blocks.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.raw.len()).unwrap_or(u32::MAX)
    }

    /// Whether there are no blocks; not the case for any image with a valid header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The entry of `block`; free for a block that does not exist.
    #[must_use]
    pub fn entry(&self, block: u32) -> BlockEntry {
        self.raw
            .get(block as usize)
            .map_or(BlockEntry::Free, |raw| BlockEntry::from_raw(*raw))
    }

    /// All entries in the order of the disk.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = BlockEntry> + '_ {
        self.raw.iter().map(|raw| BlockEntry::from_raw(*raw))
    }

    pub(super) fn set(&mut self, block: u32, entry: BlockEntry) {
        if let Some(raw) = self.raw.get_mut(block as usize) {
            *raw = entry.to_raw();
        }
    }

    /// The map as it is stored.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.raw.iter().flat_map(|raw| raw.to_le_bytes()).collect()
    }

    /// Counts the entries and looks for those that cannot be right. Takes 8 more bytes of memory
    /// per allocated block while it runs.
    #[must_use]
    pub fn check(&self) -> MapReport {
        let mut report = MapReport::default();
        let mut places = Vec::new();
        for (block, entry) in (0..).zip(self.entries()) {
            report.count(entry);
            if let BlockEntry::Allocated(stored) = entry {
                places.push((stored, block));
                self.check_place(block, stored, &mut report);
            }
        }
        report.check_count(self.allocated_blocks);
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(stored, first_block), (same, second_block)] = *pair
                && stored == same
            {
                report.add(Finding::Duplicate {
                    first_block,
                    second_block,
                    stored,
                });
            }
        }
        report
    }

    fn check_place(&self, block: u32, stored: u32, report: &mut MapReport) {
        if u64::from(stored) >= self.stored_blocks {
            report.add(Finding::OutsideFile { block, stored });
        } else if stored >= self.allocated_blocks {
            let allocated_blocks = self.allocated_blocks;
            report.add(Finding::BeyondAllocated {
                block,
                stored,
                allocated_blocks,
            });
        }
    }
}
