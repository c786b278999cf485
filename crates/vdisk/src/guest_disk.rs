//! The disk as the guest sees it: all images of a chain seen through each other, read-only.
//!
//! Bytes come from the first image, counted from the leaf, that says anything about them. The
//! leaf's size is the disk's; where a parent is smaller, nothing is there and zeros are read.
//! Neighbouring blocks that are neighbours in a file, too, are read in one piece.

use std::path::Path;

use crate::chain::{Chain, Link};
use crate::error::{Error, Result, check_bounds};
use crate::extent::{Extent, ExtentKind};
use crate::vdi::{RunKind, VdiImage};

/// An open chain of images.
#[derive(Debug)]
pub struct GuestDisk {
    /// The leaf first.
    layers: Vec<VdiImage>,
    capacity_bytes: u64,
}

/// Where a run of the disk's bytes is.
struct Piece {
    extent: Extent,
    file_offset_bytes: u64,
}

impl GuestDisk {
    /// Opens all images of `chain`.
    ///
    /// # Errors
    /// Those of [`VdiImage::open`]; [`Error::Replaced`] if an image is another one than the chain
    /// was resolved with.
    pub fn open(chain: &Chain) -> Result<Self> {
        let layers: Vec<VdiImage> = chain.links().iter().map(open_link).collect::<Result<_>>()?;
        let capacity_bytes = layers
            .first()
            .map_or(0, |leaf| leaf.header().capacity_bytes);
        Ok(Self {
            layers,
            capacity_bytes,
        })
    }

    /// The size of the disk.
    #[must_use]
    pub const fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// The images, the leaf first.
    #[must_use]
    pub fn layers(&self) -> &[VdiImage] {
        &self.layers
    }

    /// Fills `buffer` with the disk's bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::BlockOutsideFile`]; [`Error::Io`].
    pub fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        let path = self.layers.first().map_or(Path::new(""), VdiImage::path);
        check_bounds(path, self.capacity_bytes, offset_bytes, buffer.len() as u64)?;
        let mut offset_bytes = offset_bytes;
        let mut rest = buffer;
        while !rest.is_empty() {
            let piece = self.piece(offset_bytes, rest.len() as u64);
            let length = usize::try_from(piece.extent.length_bytes).unwrap_or(usize::MAX);
            let (part, behind) = std::mem::take(&mut rest)
                .split_at_mut_checked(length)
                .unwrap_or_default();
            self.read_piece(&piece, part)?;
            offset_bytes = offset_bytes.saturating_add(piece.extent.length_bytes);
            rest = behind;
        }
        Ok(())
    }

    /// The extents of the whole disk in order, without gaps; neighbours of the same sort are one.
    #[must_use]
    pub const fn extents(&self) -> Extents<'_> {
        Extents {
            disk: self,
            offset_bytes: 0,
        }
    }

    fn read_piece(&self, piece: &Piece, buffer: &mut [u8]) -> Result<()> {
        let layer = piece.extent.layer.and_then(|layer| self.layers.get(layer));
        match (piece.extent.kind, layer) {
            (ExtentKind::Data, Some(image)) => {
                image.read_stored(piece.file_offset_bytes, piece.extent.offset_bytes, buffer)
            }
            _ => {
                buffer.fill(0);
                Ok(())
            }
        }
    }

    /// The run that begins at `offset_bytes`, within the disk, of at most `limit_bytes`.
    fn piece(&self, offset_bytes: u64, limit_bytes: u64) -> Piece {
        let left_bytes = self.capacity_bytes.saturating_sub(offset_bytes);
        let mut length_bytes = limit_bytes.min(left_bytes);
        let piece = |kind, layer, length_bytes, file_offset_bytes| Piece {
            extent: Extent {
                offset_bytes,
                length_bytes,
                kind,
                layer,
            },
            file_offset_bytes,
        };
        for (layer, image) in self.layers.iter().enumerate() {
            let run = image.run(offset_bytes, length_bytes);
            if run.length_bytes == 0 {
                break;
            }
            length_bytes = run.length_bytes;
            match run.kind {
                RunKind::Free => {}
                RunKind::Zero => return piece(ExtentKind::Zero, Some(layer), length_bytes, 0),
                RunKind::Stored { file_offset_bytes } => {
                    return piece(
                        ExtentKind::Data,
                        Some(layer),
                        length_bytes,
                        file_offset_bytes,
                    );
                }
            }
        }
        piece(ExtentKind::Unallocated, None, length_bytes, 0)
    }
}

fn open_link(link: &Link) -> Result<VdiImage> {
    let image = VdiImage::open(&link.path)?;
    let expected = link.header.uuids.creation;
    let found = image.header().uuids.creation;
    if expected != found {
        return Err(Error::Replaced {
            path: link.path.clone(),
            expected,
            found,
        });
    }
    Ok(image)
}

/// How far one look ahead goes while listing extents. Without a limit, each of a million short runs
/// in a base image would have an empty leaf scanned to its end.
const SCAN_BYTES: u64 = 16 << 20;

/// The extents of a disk, made by [`GuestDisk::extents`].
#[derive(Debug, Clone)]
pub struct Extents<'a> {
    disk: &'a GuestDisk,
    offset_bytes: u64,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let mut extent = self.peek()?;
        loop {
            self.offset_bytes = extent.offset_bytes.saturating_add(extent.length_bytes);
            match self.peek() {
                Some(next) if extent.absorb(&next) => {}
                _ => return Some(extent),
            }
        }
    }
}

impl Extents<'_> {
    fn peek(&self) -> Option<Extent> {
        let extent = self.disk.piece(self.offset_bytes, SCAN_BYTES).extent;
        (extent.length_bytes > 0).then_some(extent)
    }
}
