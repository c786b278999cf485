//! The head of an image: its header and block map, which a crash of the host may leave as garbage
//! while all data behind it is whole.
//!
//! [`VdiHead::mend`] puts a head together from an earlier copy and what is left of the map. It
//! answers only with a head in which each block has a place of its own inside the file. Guaranteed:
//! a block's entry comes from the image itself if its whole map is sound, else from the earlier
//! copy, else from the image where no other block claims the place. Not guaranteed, because nothing
//! in the file tells: that blocks were not moved since the copy was made, by compacting the image;
//! compare the contents before a mended head is written.

use std::fs::File;
use std::path::Path;

use super::block_map::{BlockEntry, BlockMap};
use super::header::VdiHeader;
use super::layout::{HEADER_SECTOR_BYTES, Layout, SIGNATURE_AT, put};
use super::map_report::Finding;
use super::sector::open_for_writing;
use crate::error::{Error, HeadFault, HeaderFault, Result};
use crate::platform;

/// A header and its block map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdiHead {
    sector: Vec<u8>,
    header: VdiHeader,
    map: BlockMap,
}

/// A head that was put together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendedHead {
    /// The head, to be written to the image.
    pub head: VdiHead,
    /// Whether the image's own map was sound and is kept as it is.
    pub map_is_kept: bool,
    /// Blocks in the file that belong to no block of the disk any more. New blocks will go over
    /// them: places that are kept free would be missing when the disk is full.
    pub unplaced_blocks: u64,
}

impl VdiHead {
    /// Reads the head of an image of `file_len_bytes` through `read`, which fills a buffer from an
    /// offset of it. Takes four bytes of memory for each block of the disk.
    ///
    /// # Errors
    /// What `read` gives; the inner result tells what is wrong with the header.
    pub fn read<E>(
        file_len_bytes: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<std::result::Result<Self, HeaderFault>, E> {
        let length = usize::try_from(file_len_bytes).unwrap_or(usize::MAX);
        let mut sector = vec![0; length.min(HEADER_SECTOR_BYTES)];
        read(0, &mut sector)?;
        let header = match VdiHeader::parse(&sector, file_len_bytes) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        let map = BlockMap::read(&header, file_len_bytes, read)?;
        Ok(Ok(Self {
            sector,
            header,
            map,
        }))
    }

    /// Reads the head of the image at `path`.
    ///
    /// # Errors
    /// As [`VdiHeader::read`].
    pub fn of_image(path: &Path) -> Result<Self> {
        let (file, file_len_bytes) = open(path)?;
        let head = Self::read(file_len_bytes, |offset_bytes, buffer: &mut [u8]| {
            platform::read_exact_at(&file, buffer, offset_bytes)
        });
        head.map_err(Error::io("read", path))?
            .map_err(Error::header(path))
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

    /// The same with a count of allocated blocks that covers every place in the map: with a smaller
    /// one VirtualBox would put new blocks over old ones.
    #[must_use]
    pub fn counted(mut self) -> Self {
        let blocks = places_end(&self.map);
        self.header.allocated_blocks = blocks;
        if let Ok(layout) = Layout::of(self.header.version) {
            put(&mut self.sector, layout.allocated, &blocks.to_le_bytes());
        }
        self
    }

    /// Puts together a head for the damaged image at `path` from this earlier one of the same image.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Head`] if the earlier head does not fit the image, or if it cannot be
    /// told where the image's blocks belong.
    pub fn mend(&self, path: &Path) -> Result<MendedHead> {
        let (file, file_len_bytes) = open(path)?;
        let fault = |fault| Error::Head {
            path: path.to_path_buf(),
            fault,
        };
        let mut header = VdiHeader::parse(&self.sector, file_len_bytes)
            .map_err(|header| fault(HeadFault::Header(header)))?;
        // What the map is checked against here is the file, not the count of an earlier time.
        header.allocated_blocks = header.blocks;
        let own = BlockMap::read(
            &header,
            file_len_bytes,
            |offset_bytes, buffer: &mut [u8]| platform::read_exact_at(&file, buffer, offset_bytes),
        );
        let own = own.map_err(Error::io("read", path))?;
        let earlier = BlockMap::parse(&header, &self.map.to_bytes(), file_len_bytes);
        let stored_blocks = header.grid().stored_blocks(file_len_bytes);
        if own.is_injective() {
            let moved = moved_blocks(&earlier, &own);
            if moved > 0 {
                return Err(fault(HeadFault::Moved { blocks: moved }));
            }
            return Ok(self.mended(own, true, stored_blocks));
        }
        if !earlier.is_injective() {
            return Err(fault(HeadFault::Shrunk));
        }
        let merged = merge(&earlier, &own, stored_blocks);
        Ok(self.mended(merged, false, stored_blocks))
    }

    fn mended(&self, map: BlockMap, map_is_kept: bool, stored_blocks: u64) -> MendedHead {
        let unplaced_blocks = stored_blocks.saturating_sub(map.check().allocated_blocks.into());
        let head = Self {
            sector: self.sector.clone(),
            header: self.header.clone(),
            map,
        };
        MendedHead {
            head: head.counted(),
            map_is_kept,
            unplaced_blocks,
        }
    }

    /// Writes the head to the image at `path`, over whatever is there. Durable on return. As long as
    /// it is not complete the image has no signature, so that nothing opens it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = open_for_writing(path)?;
        self.write_to(&file).map_err(Error::io("write", path))
    }

    fn write_to(&self, file: &File) -> std::io::Result<()> {
        platform::write_all_at(file, &[0; 4], SIGNATURE_AT as u64)?;
        file.sync_all()?;
        let map_offset_bytes = self.header.block_map_offset_bytes;
        platform::write_all_at(file, &self.map.to_bytes(), map_offset_bytes)?;
        file.sync_all()?;
        // The block map may begin in the same sector.
        let length = usize::try_from(map_offset_bytes).unwrap_or(usize::MAX);
        let sector = self.sector.get(..length).unwrap_or(&self.sector);
        platform::write_all_at(file, sector, 0)?;
        file.sync_all()
    }

    /// Copies what [`Self::write`] would replace in the image at `path` to the new file `copy`, at
    /// the same offsets. Durable on return.
    ///
    /// # Errors
    /// [`Error::Io`], also if `copy` exists.
    pub fn keep_replaced(&self, path: &Path, copy: &Path) -> Result<()> {
        let (file, file_len_bytes) = open(path)?;
        let kept = File::create_new(copy).map_err(Error::io("create", copy))?;
        let map_bytes = self.map.to_bytes().len() as u64;
        let ranges = [
            (0, self.sector.len() as u64),
            (self.header.block_map_offset_bytes, map_bytes),
        ];
        for (offset_bytes, length_bytes) in ranges {
            let available_bytes = file_len_bytes.saturating_sub(offset_bytes);
            let length = usize::try_from(length_bytes.min(available_bytes)).unwrap_or(0);
            let mut bytes = vec![0; length];
            platform::read_exact_at(&file, &mut bytes, offset_bytes)
                .map_err(Error::io("read", path))?;
            platform::write_all_at(&kept, &bytes, offset_bytes)
                .map_err(Error::io("write", copy))?;
        }
        kept.sync_all().map_err(Error::io("flush", copy))?;
        platform::sync_name(copy).map_err(Error::io("flush the name of", copy))
    }

    /// Saves the head as the beginning of an image without data, for [`Self::of_image`]. Durable on
    /// return; a file that is there is replaced.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        self.write_to(&file).map_err(Error::io("write", path))?;
        platform::sync_name(path).map_err(Error::io("flush the name of", path))
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let file_len_bytes = file.metadata().map_err(Error::io("read", path))?.len();
    Ok((file, file_len_bytes))
}

/// The first place behind all that the map names.
fn places_end(map: &BlockMap) -> u32 {
    let ends = map.entries().filter_map(|entry| match entry {
        BlockEntry::Allocated(stored) => stored.checked_add(1),
        BlockEntry::Free | BlockEntry::Zero => None,
    });
    ends.max().unwrap_or(0)
}

/// How many blocks of the earlier map have another place, or none, in the later one. VirtualBox does
/// that when it compacts an image or discards blocks; so does damage that leaves no other trace.
fn moved_blocks(earlier: &BlockMap, later: &BlockMap) -> u64 {
    let is_moved = |(before, after): &(BlockEntry, BlockEntry)| {
        matches!(before, BlockEntry::Allocated(_)) && before != after
    };
    let moved = earlier.entries().zip(later.entries()).filter(is_moved);
    moved.count() as u64
}

/// The earlier entry of each block that was stored, else the damaged map's own where it names a
/// place that was added to the file since and that no other block claims.
fn merge(earlier: &BlockMap, own: &BlockMap, stored_blocks: u64) -> BlockMap {
    let first_new = places_end(earlier);
    let is_new = |place: u32| place >= first_new && u64::from(place) < stored_blocks;
    let mut claimed: Vec<u32> = own
        .entries()
        .filter_map(|entry| match entry {
            BlockEntry::Allocated(place) if is_new(place) => Some(place),
            _ => None,
        })
        .collect();
    claimed.sort_unstable();
    let is_claimed_once = |place: u32| {
        let from = claimed.partition_point(|other| *other < place);
        let claims = claimed
            .iter()
            .skip(from)
            .take_while(|other| **other == place);
        claims.take(2).count() == 1
    };
    let mut merged = earlier.clone();
    for (block, (before, after)) in (0..).zip(earlier.entries().zip(own.entries())) {
        match (before, after) {
            (BlockEntry::Free | BlockEntry::Zero, BlockEntry::Allocated(place))
                if is_new(place) && is_claimed_once(place) =>
            {
                merged.set(block, after);
            }
            _ => {}
        }
    }
    merged
}

impl BlockMap {
    /// Whether each stored block has a place of its own that lies in the file.
    pub(super) fn is_injective(&self) -> bool {
        let is_clash = |finding: &Finding| {
            matches!(
                finding,
                Finding::Duplicate { .. } | Finding::OutsideFile { .. }
            )
        };
        !self.check().findings.iter().any(is_clash)
    }
}
