//! Creating and changing one VDI image, in the layout that VirtualBox gives new images: block map
//! at 1 MiB, data at the next whole MiB behind it.
//!
//! Each write leaves an image that VirtualBox accepts: a new block's data goes first, then the
//! header, then the block's entry, as VirtualBox does it. Only [`VdiWriter::finish`] makes it
//! durable. Not promised: that readers that have the image open already see the changes.

use std::fs::{File, OpenOptions};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::Path;

use uuid::Uuid;

use super::block_map::{BlockEntry, BlockMap};
use super::header::{Geometry, VdiHeader, VdiImageType, VdiUuids, VdiVersion};
use super::image::VdiImage;
use super::sector::{HeaderSector, open_for_writing};
use crate::error::{Error, Result};
use crate::{GuestDisk, platform};

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
const MOST_BLOCKS: u64 = 1 << 26;
const SECTOR_BYTES: u32 = 512;

/// An image open for writing.
#[derive(Debug)]
pub struct VdiWriter {
    image: VdiImage,
    sector: HeaderSector,
    parent: Option<GuestDisk>,
    /// Whether the modification UUID is a new one already.
    stamped: bool,
}

impl VdiWriter {
    /// Creates the image `create` at `path`.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`]; [`Error::Exists`] if `path` is there already; [`Error::Io`].
    pub fn create(path: &Path, create: VdiCreate) -> Result<Self> {
        let header = new_header(&create).map_err(|problem| Error::InvalidParameters {
            path: path.to_path_buf(),
            problem,
        })?;
        let is_fixed = create.variant == VdiVariant::Fixed;
        let map = BlockMap::new(&header, |block| match is_fixed {
            true => BlockEntry::Allocated(block),
            false => BlockEntry::Free,
        });
        let file = create_file(path)?;
        let sector = HeaderSector::new(&header);
        lay_out(&file, &header, &map, &sector).map_err(Error::io("write", path))?;
        let image = VdiImage::from_parts(file, path, header, map);
        Ok(Self {
            image,
            sector,
            parent: None,
            stamped: true,
        })
    }

    /// Opens the image at `path` to change it.
    ///
    /// # Errors
    /// As [`VdiImage::open`]; [`Error::DamagedBlockMap`] if writing could destroy data.
    pub fn open(path: &Path) -> Result<Self> {
        let image = VdiImage::from_file(open_for_writing(path)?, path)?;
        if let Some(finding) = image.block_map().check().findings.first() {
            let path = path.to_path_buf();
            return Err(Error::DamagedBlockMap {
                path,
                finding: *finding,
            });
        }
        let sector = HeaderSector::read(image.file(), path, image.header())?;
        Ok(Self {
            image,
            sector,
            parent: None,
            stamped: false,
        })
    }

    /// Gives a differencing image the disk that it holds changes to, which writes of less than a
    /// block need.
    #[must_use]
    pub fn with_parent(mut self, parent: GuestDisk) -> Self {
        self.parent = Some(parent);
        self
    }

    /// The header as it is now.
    #[must_use]
    pub const fn header(&self) -> &VdiHeader {
        self.image.header()
    }

    /// Writes `bytes` at `offset_bytes` of the disk. Blocks that would hold zeros only are not
    /// allocated but marked as zero.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::ParentNeeded`]; what reading the parent gives;
    /// [`Error::Io`].
    pub fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        check_bounds(&self.image, offset_bytes, bytes.len() as u64)?;
        let mut offset_bytes = offset_bytes;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, within_bytes) = self.image.grid().locate(offset_bytes);
            let room_bytes = self.image.grid().block_bytes().saturating_sub(within_bytes);
            let room = usize::try_from(room_bytes).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.write_block(block, within_bytes, part)?;
            offset_bytes = offset_bytes.saturating_add(part.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    /// Makes everything written durable, the file's name included.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        let path = self.image.path();
        self.image
            .file()
            .sync_all()
            .map_err(Error::io("flush", path))?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        platform::sync_folder(folder).map_err(Error::io("flush", folder))
    }

    /// Writes `part`, which does not leave `block`.
    fn write_block(&mut self, block: u32, within_bytes: u64, part: &[u8]) -> Result<()> {
        self.stamp()?;
        if let BlockEntry::Allocated(stored) = self.image.block_map().entry(block) {
            let start_bytes = self.image.grid().file_offset_bytes(stored);
            return self.write_raw(start_bytes.saturating_add(within_bytes), part);
        }
        let contents = self.compose(block, within_bytes, part)?;
        if contents.iter().all(|byte| *byte == 0) {
            return self.set_entry(block, BlockEntry::Zero);
        }
        let stored = self.image.header().allocated_blocks;
        self.write_raw(self.image.grid().file_offset_bytes(stored), &contents)?;
        self.image.header_mut().allocated_blocks = stored.saturating_add(1);
        self.sector
            .set_allocated(self.image.header().allocated_blocks);
        self.write_sector()?;
        self.set_entry(block, BlockEntry::Allocated(stored))
    }

    /// The whole of a block that is not in the file yet, with `part` put into it.
    fn compose(&self, block: u32, within_bytes: u64, part: &[u8]) -> Result<Vec<u8>> {
        let length = usize::try_from(self.image.grid().block_bytes()).unwrap_or(usize::MAX);
        let mut contents = vec![0; length];
        let start_bytes = self.image.grid().disk_offset_bytes(block);
        let capacity_bytes = self.image.header().capacity_bytes;
        let on_disk_bytes = capacity_bytes
            .saturating_sub(start_bytes)
            .min(length as u64);
        let is_partial = (part.len() as u64) < on_disk_bytes;
        let is_free = self.image.block_map().entry(block) == BlockEntry::Free;
        if is_partial && is_free && self.image.header().is_differencing() {
            self.read_parent(block, start_bytes, on_disk_bytes, &mut contents)?;
        }
        let within = usize::try_from(within_bytes).unwrap_or(usize::MAX);
        super::layout::put(&mut contents, within, part);
        Ok(contents)
    }

    fn read_parent(
        &self,
        block: u32,
        start_bytes: u64,
        on_disk_bytes: u64,
        contents: &mut [u8],
    ) -> Result<()> {
        let Some(parent) = &self.parent else {
            return Err(Error::ParentNeeded {
                path: self.image.path().to_path_buf(),
                block,
            });
        };
        let there_bytes = parent
            .capacity_bytes()
            .saturating_sub(start_bytes)
            .min(on_disk_bytes);
        let there = usize::try_from(there_bytes).unwrap_or(usize::MAX);
        contents
            .get_mut(..there)
            .map_or(Ok(()), |part| parent.read_at(start_bytes, part))
    }

    /// VirtualBox renews the modification UUID with the first write after opening.
    fn stamp(&mut self) -> Result<()> {
        if self.stamped {
            return Ok(());
        }
        self.image.header_mut().uuids.modification = Uuid::new_v4();
        self.sector.set_uuids(&self.image.header().uuids);
        self.stamped = true;
        self.write_sector()
    }

    fn set_entry(&mut self, block: u32, entry: BlockEntry) -> Result<()> {
        self.image.block_map_mut().set(block, entry);
        let at_bytes = u64::from(block).saturating_mul(4);
        let start_bytes = self.image.header().block_map_offset_bytes;
        self.write_raw(start_bytes.saturating_add(at_bytes), &entry.to_bytes())
    }

    fn write_raw(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        platform::write_all_at(self.image.file(), bytes, offset_bytes)
            .map_err(Error::io("write", self.image.path()))
    }

    fn write_sector(&self) -> Result<()> {
        self.sector
            .write(self.image.file())
            .map_err(Error::io("write", self.image.path()))
    }
}

fn check_bounds(image: &VdiImage, offset_bytes: u64, length_bytes: u64) -> Result<()> {
    let capacity_bytes = image.header().capacity_bytes;
    match offset_bytes.checked_add(length_bytes) {
        Some(end_bytes) if end_bytes <= capacity_bytes => Ok(()),
        _ => {
            let path = image.path().to_path_buf();
            Err(Error::OutOfBounds {
                path,
                offset_bytes,
                length_bytes,
                capacity_bytes,
            })
        }
    }
}

fn create_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).create_new(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists {
            path: path.to_path_buf(),
        }),
        result => result.map_err(Error::io("create", path)),
    }
}

/// Gives a new file its length, header and block map.
fn lay_out(
    file: &File,
    header: &VdiHeader,
    map: &BlockMap,
    sector: &HeaderSector,
) -> std::io::Result<()> {
    let grid = header.grid();
    file.set_len(grid.file_offset_bytes(header.allocated_blocks))?;
    platform::write_all_at(file, &map.to_bytes(), header.block_map_offset_bytes)?;
    sector.write(file)
}

fn new_header(create: &VdiCreate) -> std::result::Result<VdiHeader, &'static str> {
    let blocks = checked_blocks(create)?;
    let map_end_bytes = u64::from(blocks)
        .saturating_mul(4)
        .saturating_add(ALIGNMENT_BYTES);
    let (image_type, parent, parent_modification) = match create.variant {
        VdiVariant::Dynamic => (VdiImageType::Dynamic, Uuid::nil(), Uuid::nil()),
        VdiVariant::Fixed => (VdiImageType::Fixed, Uuid::nil(), Uuid::nil()),
        VdiVariant::Differencing {
            parent,
            parent_modification,
        } => (VdiImageType::Differencing, parent, parent_modification),
    };
    let is_fixed = create.variant == VdiVariant::Fixed;
    let geometry = Geometry {
        sector_bytes: SECTOR_BYTES,
        ..Geometry::default()
    };
    Ok(VdiHeader {
        version: VdiVersion { major: 1, minor: 1 },
        image_type,
        flags: 0,
        comment: String::new(),
        block_map_offset_bytes: ALIGNMENT_BYTES,
        data_offset_bytes: map_end_bytes.next_multiple_of(ALIGNMENT_BYTES),
        geometry,
        logical_geometry: Some(geometry),
        capacity_bytes: create.capacity_bytes,
        block_size_bytes: create.block_size_bytes,
        block_extra_bytes: 0,
        blocks,
        allocated_blocks: if is_fixed { blocks } else { 0 },
        uuids: VdiUuids {
            creation: create.uuid,
            modification: Uuid::new_v4(),
            parent,
            parent_modification,
        },
    })
}

/// The number of blocks that an image needs, if it may exist.
fn checked_blocks(create: &VdiCreate) -> std::result::Result<u32, &'static str> {
    let block_size_bytes = create.block_size_bytes;
    if !block_size_bytes.is_power_of_two() || !BLOCK_SIZES.contains(&block_size_bytes) {
        return Err("the block size must be a power of two from 131072 to 134217728 bytes");
    }
    let is_whole = create.capacity_bytes.is_multiple_of(SECTOR_BYTES.into());
    if create.capacity_bytes == 0 || !is_whole {
        return Err("the disk size must be a multiple of 512 bytes and not 0");
    }
    let divisor = NonZeroU64::new(block_size_bytes.into()).unwrap_or(NonZeroU64::MIN);
    let blocks = create.capacity_bytes.div_ceil(divisor.get());
    if blocks > MOST_BLOCKS {
        return Err("the disk would have more than 67108864 blocks; choose a larger block size");
    }
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}
