//! One VDI image, opened for reading, without its parents.
//!
//! The block map is in memory; blocks are read on demand. Any number of threads may read at once.
//! Not promised: that nobody else changes the file meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::block_map::{BlockEntry, BlockMap};
use super::grid::BlockGrid;
use super::header::VdiHeader;
use crate::error::{Error, Result};
use crate::platform;

/// What an image says about a run of bytes of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Nothing.
    Free,
    /// They are zero.
    Zero,
    /// They are in the file, in one piece.
    Stored {
        /// Where in the file they begin.
        file_offset_bytes: u64,
    },
}

/// A run of bytes of the disk about which the image says one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What it says.
    pub kind: RunKind,
    /// How many bytes.
    pub length_bytes: u64,
}

/// An open image.
#[derive(Debug)]
pub struct VdiImage {
    path: PathBuf,
    file: File,
    file_len_bytes: u64,
    header: VdiHeader,
    map: BlockMap,
    grid: BlockGrid,
}

impl VdiImage {
    /// Opens the image at `path` for reading.
    ///
    /// # Errors
    /// As [`VdiHeader::read`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::from_file(file, path)
    }

    pub(super) fn from_file(file: File, path: &Path) -> Result<Self> {
        let file_len_bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let header = VdiHeader::read_from(&file, path)?;
        let map = BlockMap::read(
            &header,
            file_len_bytes,
            |offset_bytes, buffer: &mut [u8]| platform::read_exact_at(&file, buffer, offset_bytes),
        );
        let map = map.map_err(Error::io("read", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            file_len_bytes,
            grid: header.grid(),
            header,
            map,
        })
    }

    pub(super) fn from_parts(file: File, path: &Path, header: VdiHeader, map: BlockMap) -> Self {
        let grid = header.grid();
        Self {
            path: path.to_path_buf(),
            file,
            file_len_bytes: u64::MAX,
            header,
            map,
            grid,
        }
    }

    /// Where the image is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &VdiHeader {
        &self.header
    }

    /// The block map.
    #[must_use]
    pub const fn block_map(&self) -> &BlockMap {
        &self.map
    }

    /// Where the first block's data begins in the file: the origin of a chunk grid that keeps
    /// blocks and chunks in step.
    #[must_use]
    pub const fn data_offset_bytes(&self) -> u64 {
        self.header.data_offset_bytes
    }

    /// Fills `buffer` from the beginning of `block`, with zeros unless the block is allocated, and
    /// returns the block's entry.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if there is no such block or `buffer` is longer than a block;
    /// [`Error::BlockOutsideFile`]; [`Error::Io`].
    pub fn read_block(&self, block: u32, buffer: &mut [u8]) -> Result<BlockEntry> {
        let offset_bytes = self.grid.disk_offset_bytes(block);
        let length_bytes = buffer.len() as u64;
        if block >= self.map.len() || length_bytes > self.grid.block_bytes() {
            let capacity_bytes = self.header.capacity_bytes;
            let path = self.path.clone();
            return Err(Error::OutOfBounds {
                path,
                offset_bytes,
                length_bytes,
                capacity_bytes,
            });
        }
        let entry = self.map.entry(block);
        match entry {
            BlockEntry::Allocated(stored) => {
                self.read_stored(self.grid.file_offset_bytes(stored), offset_bytes, buffer)?;
            }
            BlockEntry::Free | BlockEntry::Zero => buffer.fill(0),
        }
        Ok(entry)
    }

    /// What the image says about the byte at `offset_bytes` of the disk and those after it, up to
    /// `limit_bytes` of them. The run has at least one byte unless it begins at the disk's end or
    /// the limit is 0.
    pub(crate) fn run(&self, offset_bytes: u64, limit_bytes: u64) -> Run {
        let left_bytes = self.header.capacity_bytes.saturating_sub(offset_bytes);
        let limit_bytes = limit_bytes.min(left_bytes);
        let (first, within_bytes) = self.grid.locate(offset_bytes);
        let entry = self.map.entry(first);
        let mut length_bytes = self.grid.block_bytes().saturating_sub(within_bytes);
        let mut previous = first;
        while length_bytes < limit_bytes {
            let block = previous.saturating_add(1);
            let distance = block.saturating_sub(first);
            if !self.continues(entry, distance, self.map.entry(block)) {
                break;
            }
            previous = block;
            length_bytes = length_bytes.saturating_add(self.grid.block_bytes());
        }
        let kind = self.run_kind(entry, within_bytes);
        Run {
            kind,
            length_bytes: length_bytes.min(limit_bytes),
        }
    }

    /// Whether `entry`, `distance` blocks behind `first`, carries on what `first` began.
    fn continues(&self, first: BlockEntry, distance: u32, entry: BlockEntry) -> bool {
        match (first, entry) {
            (BlockEntry::Allocated(first), BlockEntry::Allocated(stored)) => {
                self.grid.is_gapless() && first.checked_add(distance) == Some(stored)
            }
            (first, entry) => first == entry,
        }
    }

    fn run_kind(&self, entry: BlockEntry, within_bytes: u64) -> RunKind {
        match entry {
            BlockEntry::Free => RunKind::Free,
            BlockEntry::Zero => RunKind::Zero,
            BlockEntry::Allocated(stored) => RunKind::Stored {
                file_offset_bytes: self
                    .grid
                    .file_offset_bytes(stored)
                    .saturating_add(within_bytes),
            },
        }
    }

    /// Fills `buffer` from `file_offset_bytes`, where the disk's byte `offset_bytes` is stored.
    pub(crate) fn read_stored(
        &self,
        file_offset_bytes: u64,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let end_bytes = file_offset_bytes.saturating_add(buffer.len() as u64);
        if end_bytes > self.file_len_bytes {
            return Err(Error::BlockOutsideFile {
                path: self.path.clone(),
                block: self.grid.locate(offset_bytes).0,
                end_bytes,
                file_len_bytes: self.file_len_bytes,
            });
        }
        platform::read_exact_at(&self.file, buffer, file_offset_bytes)
            .map_err(Error::io("read", &self.path))
    }

    pub(super) const fn grid(&self) -> BlockGrid {
        self.grid
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn block_map_mut(&mut self) -> &mut BlockMap {
        &mut self.map
    }

    pub(super) const fn header_mut(&mut self) -> &mut VdiHeader {
        &mut self.header
    }
}
