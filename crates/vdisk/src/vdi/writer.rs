//! Changing one VDI image, new or old.
//!
//! Each write leaves an image that VirtualBox accepts: a new block's data goes first, then the
//! header, then the block's entry, as VirtualBox does it. Only [`VdiWriter::finish`] makes it
//! durable. Not promised: that readers that have the image open already see the changes.

use std::fs::{File, OpenOptions};
use std::path::Path;

use uuid::Uuid;

use super::block_map::{BlockEntry, BlockMap};
use super::create::{VdiCreate, VdiVariant};
use super::header::VdiHeader;
use super::image::VdiImage;
use super::layout::{ENTRY_BYTES, put};
use super::sector::{HeaderSector, open_for_writing};
use crate::error::{Error, Result, check_bounds};
use crate::{GuestDisk, platform};

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
        let header = create
            .header()
            .map_err(|problem| Error::InvalidParameters {
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
        if let Err(error) = lay_out(&file, &header, &map, &sector) {
            // What is left of it is no image, and would be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
            return Err(Error::io("write", path)(error));
        }
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
        let capacity_bytes = self.image.header().capacity_bytes;
        check_bounds(
            self.image.path(),
            capacity_bytes,
            offset_bytes,
            bytes.len() as u64,
        )?;
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
        platform::sync_name(path).map_err(Error::io("flush the name of", path))
    }

    /// Writes `part`, which does not leave `block`.
    fn write_block(&mut self, block: u32, within_bytes: u64, part: &[u8]) -> Result<()> {
        self.stamp()?;
        if let BlockEntry::Allocated(stored) = self.image.block_map().entry(block) {
            let start_bytes = self.image.grid().file_offset_bytes(stored);
            return self.write_raw(start_bytes.saturating_add(within_bytes), part);
        }
        let contents = self.compose(block, within_bytes, part)?;
        if super::is_zero(&contents) {
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
        put(&mut contents, within, part);
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
        let at_bytes = u64::from(block).saturating_mul(ENTRY_BYTES);
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
