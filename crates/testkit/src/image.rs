//! VDI images as sample machines need them: made, written, merged, grown and compacted block by block.
//!
//! Written apart from `vrs-vdisk` on purpose, as a second opinion on the format: what one writes the other must read. Images
//! are VirtualBox's own layout only (version 1.1, blocks of 1 MiB, block map at 1 MiB); what is wrong with a file panics.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use uuid::Uuid;

/// The size of a block.
pub const BLOCK_BYTES: u64 = 1 << 20;
const MAP_OFFSET: u64 = 1 << 20;
const FREE: u32 = u32::MAX;
const ZERO: u32 = u32::MAX - 1;
const SIGNATURE: u32 = 0xbeda_107f;
const VERSION_1_1: u32 = 0x0001_0001;
const HEADER_BYTES: u32 = 400;
const HEADER_LENGTH: usize = 512;

/// Where the fields of the header are, in bytes from the start of the file.
mod field {
    pub const TEXT: usize = 0x00;
    pub const SIGNATURE: usize = 0x40;
    pub const VERSION: usize = 0x44;
    pub const HEADER_SIZE: usize = 0x48;
    pub const IMAGE_TYPE: usize = 0x4c;
    pub const MAP_OFFSET: usize = 0x154;
    pub const DATA_OFFSET: usize = 0x158;
    pub const LEGACY_SECTOR_BYTES: usize = 0x168;
    pub const CAPACITY: usize = 0x170;
    pub const BLOCK_SIZE: usize = 0x178;
    pub const BLOCKS: usize = 0x180;
    pub const ALLOCATED: usize = 0x184;
    pub const CREATION_UUID: usize = 0x188;
    pub const MODIFICATION_UUID: usize = 0x198;
    pub const PARENT_UUID: usize = 0x1a8;
    pub const PARENT_MODIFICATION_UUID: usize = 0x1b8;
    pub const SECTOR_BYTES: usize = 0x1d4;
}

/// The kind of an image, with the number that stands for it in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Blocks are added when they are first written.
    Dynamic = 1,
    /// All blocks are there from the start.
    Fixed = 2,
    /// Blocks that are not there are the parent's.
    Differencing = 4,
}

/// What a block map entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    Free,
    Zero,
    Data(Vec<u8>),
}

/// One image file, open for reading and writing.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    header: Vec<u8>,
    map: Vec<u32>,
}

impl Image {
    /// Makes a base image.
    pub(crate) fn create(path: &Path, kind: ImageKind, capacity_bytes: u64, id: Uuid) -> Self {
        let mut image = Self::write_new(path, kind, capacity_bytes, id);
        if kind == ImageKind::Fixed {
            image.map = (0..image.blocks()).collect();
            image.set_u32(field::ALLOCATED, image.blocks());
            image
                .file
                .set_len(image.data_offset() + u64::from(image.blocks()) * BLOCK_BYTES)
                .expect("room for the image");
        }
        image.save();
        image
    }

    /// Makes an empty differencing image on top of `parent`.
    pub(crate) fn create_child(path: &Path, parent: &Self, id: Uuid) -> Self {
        let mut image = Self::write_new(path, ImageKind::Differencing, parent.capacity_bytes(), id);
        image.set_uuid(field::PARENT_UUID, parent.uuid(field::CREATION_UUID));
        image.set_uuid(
            field::PARENT_MODIFICATION_UUID,
            parent.uuid(field::MODIFICATION_UUID),
        );
        image.save();
        image
    }

    fn write_new(path: &Path, kind: ImageKind, capacity_bytes: u64, id: Uuid) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("a new image file");
        let mut image = Self {
            file,
            header: vec![0; HEADER_LENGTH],
            map: Vec::new(),
        };
        let text = b"<<< Oracle VirtualBox Disk Image >>>\n";
        image.header[field::TEXT..text.len()].copy_from_slice(text);
        image.set_u32(field::SIGNATURE, SIGNATURE);
        image.set_u32(field::VERSION, VERSION_1_1);
        image.set_u32(field::HEADER_SIZE, HEADER_BYTES);
        image.set_u32(field::IMAGE_TYPE, kind as u32);
        image.set_u32(field::MAP_OFFSET, MAP_OFFSET as u32);
        image.set_u32(field::LEGACY_SECTOR_BYTES, 512);
        image.set_u32(field::SECTOR_BYTES, 512);
        image.set_u32(field::BLOCK_SIZE, BLOCK_BYTES as u32);
        image.set_uuid(field::CREATION_UUID, id);
        image.set_capacity(capacity_bytes);
        let map_bytes = (u64::from(image.blocks()) * 4).next_multiple_of(BLOCK_BYTES);
        image.set_u32(field::DATA_OFFSET, (MAP_OFFSET + map_bytes) as u32);
        image
            .file
            .set_len(image.data_offset())
            .expect("room for the image");
        image
    }

    pub(crate) fn open(path: &Path) -> Self {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("an image file");
        let mut header = vec![0; HEADER_LENGTH];
        file.read_exact(&mut header).expect("the image's header");
        let mut image = Self {
            file,
            header,
            map: Vec::new(),
        };
        assert_eq!(
            image.u32(field::SIGNATURE),
            SIGNATURE,
            "{} is a VDI",
            path.display()
        );
        let mut map = vec![0; image.blocks() as usize * 4];
        image.read_at(MAP_OFFSET, &mut map);
        image.map = map.chunks_exact(4).map(le_u32).collect();
        image
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        u64::from_le_bytes(
            self.header[field::CAPACITY..][..8]
                .try_into()
                .expect("eight bytes"),
        )
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.u32(field::BLOCKS)
    }

    fn data_offset(&self) -> u64 {
        u64::from(self.u32(field::DATA_OFFSET))
    }

    fn allocated(&self) -> u32 {
        self.u32(field::ALLOCATED)
    }

    fn block_offset(&self, position: u32) -> u64 {
        self.data_offset() + u64::from(position) * BLOCK_BYTES
    }

    pub(crate) fn block(&mut self, index: u32) -> Block {
        match self.map[index as usize] {
            FREE => Block::Free,
            ZERO => Block::Zero,
            position => {
                let mut data = vec![0; BLOCK_BYTES as usize];
                self.read_at(self.block_offset(position), &mut data);
                Block::Data(data)
            }
        }
    }

    /// Replaces a block, at the end of the file if it was not there before.
    pub(crate) fn set_block(&mut self, index: u32, block: &Block) {
        match block {
            Block::Free => {}
            Block::Zero => self.map[index as usize] = ZERO,
            Block::Data(data) => {
                let position = self.position_for(index);
                self.write_file(self.block_offset(position), data);
            }
        }
    }

    fn position_for(&mut self, index: u32) -> u32 {
        let position = self.map[index as usize];
        if position < ZERO {
            return position;
        }
        let position = self.allocated();
        self.set_u32(field::ALLOCATED, position + 1);
        self.map[index as usize] = position;
        position
    }

    /// Enlarges the disk, within the block map that the file has room for.
    pub(crate) fn grow(&mut self, capacity_bytes: u64) {
        self.set_capacity(capacity_bytes);
        assert!(
            MAP_OFFSET + u64::from(self.blocks()) * 4 <= self.data_offset(),
            "room in the block map"
        );
        self.save();
    }

    /// Drops blocks of zeros and closes the gaps with the blocks at the end of the file.
    pub(crate) fn compact(&mut self) {
        for index in 0..self.blocks() {
            if matches!(self.block(index), Block::Data(data) if data.iter().all(|byte| *byte == 0))
            {
                self.map[index as usize] = ZERO;
            }
        }
        let kept = self.map.iter().filter(|position| **position < ZERO).count() as u32;
        let mut gaps = (0..kept)
            .filter(|gap| !self.map.contains(gap))
            .collect::<Vec<_>>();
        for index in 0..self.blocks() {
            if (kept..ZERO).contains(&self.map[index as usize]) {
                self.move_block(
                    index,
                    gaps.pop().expect("as many gaps as blocks behind them"),
                );
            }
        }
        self.set_u32(field::ALLOCATED, kept);
        self.file
            .set_len(self.block_offset(kept))
            .expect("a shorter file");
        self.save();
    }

    fn move_block(&mut self, index: u32, position: u32) {
        let Block::Data(data) = self.block(index) else {
            return;
        };
        self.write_file(self.block_offset(position), &data);
        self.map[index as usize] = position;
    }

    /// Writes header and block map, with a new modification UUID as VirtualBox gives one when it closes a changed image.
    pub(crate) fn save(&mut self) {
        self.set_uuid(field::MODIFICATION_UUID, Uuid::new_v4());
        let map: Vec<u8> = self
            .map
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        self.write_file(MAP_OFFSET, &map);
        let header = std::mem::take(&mut self.header);
        self.write_file(0, &header);
        self.header = header;
    }

    fn set_capacity(&mut self, capacity_bytes: u64) {
        let blocks = u32::try_from(capacity_bytes.div_ceil(BLOCK_BYTES))
            .expect("a capacity that VDI can have");
        self.header[field::CAPACITY..][..8].copy_from_slice(&capacity_bytes.to_le_bytes());
        self.set_u32(field::BLOCKS, blocks);
        self.map.resize(blocks as usize, FREE);
    }

    fn u32(&self, field: usize) -> u32 {
        le_u32(&self.header[field..][..4])
    }

    fn set_u32(&mut self, field: usize, value: u32) {
        self.header[field..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn uuid(&self, field: usize) -> Uuid {
        Uuid::from_bytes_le(
            self.header[field..][..16]
                .try_into()
                .expect("sixteen bytes"),
        )
    }

    fn set_uuid(&mut self, field: usize, id: Uuid) {
        self.header[field..][..16].copy_from_slice(&id.to_bytes_le());
    }

    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) {
        self.file.seek(SeekFrom::Start(offset)).expect("seek");
        self.file
            .read_exact(bytes)
            .expect("the image is as long as its header says");
    }

    fn write_file(&mut self, offset: u64, bytes: &[u8]) {
        self.file.seek(SeekFrom::Start(offset)).expect("seek");
        self.file.write_all(bytes).expect("room for the image");
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}
