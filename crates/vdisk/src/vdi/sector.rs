//! The first sector of an image, changed in place: a header lies in one sector, so that changing it
//! is one write, which disks do wholly or not at all.

use std::fs::{File, OpenOptions};
use std::path::Path;

use uuid::Uuid;

use super::header::{Geometry, VdiHeader, VdiUuids};
use super::layout::{self, HEADER_1_PLUS_BYTES, HEADER_SECTOR_BYTES, Layout, Since1, put};
use crate::error::{Error, Result};
use crate::platform;

/// The text that VirtualBox puts in front of the signature, for people.
const FILE_INFO: &[u8] = b"<<< Oracle VM VirtualBox Disk Image >>>\n";

/// Gives the image at `path` other UUIDs and changes nothing else in it. Durable on return.
///
/// The oldest headers (version 0) have no place for the parent's modification UUID, which is
/// dropped there. The image must not be open in VirtualBox.
///
/// # Errors
/// As [`VdiHeader::read`]; [`Error::Io`] if the image cannot be written.
pub fn set_uuids(path: &Path, uuids: &VdiUuids) -> Result<()> {
    change_uuids(path, |_| *uuids)
}

/// Makes the image at `path` the one with the UUID `own`, based on the image `parent` if there is
/// one. The modification UUIDs stay. Otherwise like [`set_uuids`].
///
/// # Errors
/// As [`set_uuids`].
pub fn set_image_identity(path: &Path, own: Uuid, parent: Option<Uuid>) -> Result<()> {
    let parent = parent.unwrap_or_default();
    change_uuids(path, |uuids| VdiUuids {
        creation: own,
        parent,
        ..uuids
    })
}

fn change_uuids(path: &Path, change: impl FnOnce(VdiUuids) -> VdiUuids) -> Result<()> {
    let file = open_for_writing(path)?;
    let header = VdiHeader::read_from(&file, path)?;
    let mut sector = HeaderSector::read(&file, path, &header)?;
    sector.set_uuids(&change(header.uuids));
    sector.write(&file).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("flush", path))
}

pub(super) fn open_for_writing(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("open for writing", path))
}

/// What is written of the sector, and where its fields are.
#[derive(Debug)]
pub(super) struct HeaderSector {
    bytes: Vec<u8>,
    layout: Layout,
}

impl HeaderSector {
    /// That of an existing image whose header is `header`. Only the header itself: the block map may
    /// begin in the same sector.
    pub(super) fn read(file: &File, path: &Path, header: &VdiHeader) -> Result<Self> {
        let layout = Layout::of(header.version).map_err(Error::header(path))?;
        let mut bytes = vec![0; layout.end];
        platform::read_exact_at(file, &mut bytes, 0).map_err(Error::io("read", path))?;
        Ok(Self { bytes, layout })
    }

    /// That of a new image of version 1.1.
    pub(super) fn new(header: &VdiHeader) -> Self {
        let mut sector = Self {
            bytes: vec![0; HEADER_SECTOR_BYTES],
            layout: Layout::V1,
        };
        let layout = sector.layout;
        put(&mut sector.bytes, 0, FILE_INFO);
        sector.set_u32(layout::SIGNATURE_AT, layout::SIGNATURE);
        sector.set_u32(layout::VERSION_AT, 0x0001_0001);
        sector.set_u32(layout.image_type, header.image_type.code());
        sector.set_u32(layout.flags, header.flags);
        sector.set_geometry(layout.geometry, &header.geometry);
        put(
            &mut sector.bytes,
            layout.capacity,
            &header.capacity_bytes.to_le_bytes(),
        );
        sector.set_u32(layout.block_size, header.block_size_bytes);
        sector.set_u32(layout.blocks, header.blocks);
        if let Some(since_1) = layout.since_1 {
            sector.set_since_1(&since_1, header);
        }
        sector.set_allocated(header.allocated_blocks);
        sector.set_uuids(&header.uuids);
        sector
    }

    fn set_since_1(&mut self, since_1: &Since1, header: &VdiHeader) {
        let offset = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.set_u32(since_1.header_size, HEADER_1_PLUS_BYTES);
        self.set_u32(
            since_1.block_map_offset,
            offset(header.block_map_offset_bytes),
        );
        self.set_u32(since_1.data_offset, offset(header.data_offset_bytes));
        self.set_u32(since_1.block_extra, header.block_extra_bytes);
        let geometry = header.logical_geometry.unwrap_or_default();
        self.set_geometry(since_1.logical_geometry, &geometry);
    }

    pub(super) fn set_allocated(&mut self, blocks: u32) {
        self.set_u32(self.layout.allocated, blocks);
    }

    pub(super) fn set_uuids(&mut self, uuids: &VdiUuids) {
        put(
            &mut self.bytes,
            self.layout.creation,
            &uuids.creation.to_bytes_le(),
        );
        put(
            &mut self.bytes,
            self.layout.modification,
            &uuids.modification.to_bytes_le(),
        );
        put(
            &mut self.bytes,
            self.layout.parent,
            &uuids.parent.to_bytes_le(),
        );
        if let Some(since_1) = self.layout.since_1 {
            let value = uuids.parent_modification.to_bytes_le();
            put(&mut self.bytes, since_1.parent_modification, &value);
        }
    }

    fn set_geometry(&mut self, at: usize, geometry: &Geometry) {
        let Geometry {
            cylinders,
            heads,
            sectors,
            sector_bytes,
        } = *geometry;
        for (index, value) in [cylinders, heads, sectors, sector_bytes]
            .into_iter()
            .enumerate()
        {
            self.set_u32(at.saturating_add(index.saturating_mul(4)), value);
        }
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        put(&mut self.bytes, at, &value.to_le_bytes());
    }

    pub(super) fn write(&self, file: &File) -> std::io::Result<()> {
        platform::write_all_at(file, &self.bytes, 0)
    }
}
