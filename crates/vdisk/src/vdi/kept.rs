//! Which bytes of an image's file survived merges into it.
//!
//! A differencing image allocates a block, or marks it as zero, when the guest writes to it. So its map
//! lists what a merge writes to the image below it, and the rest stays as and where it was.
//!
//! Guaranteed, if nothing but these merges changed the image: the bytes in the ranges are the same before
//! and after. A range is named only if both maps give it to the same block and no merged image has that
//! block; between the two, blocks may have gone elsewhere and come back. The header and the block map are
//! never in a range, nor are places that no block uses. Not guaranteed, because nothing in the files
//! tells: that nobody else wrote to the image, and that a map lists all that was written. VirtualBox up to
//! 7.2.16 forgets blocks that the guest wrote over with zeros.

use std::ops::Range;

use super::block_map::{BlockEntry, BlockMap};
use super::head::VdiHead;
use super::header::VdiHeader;

/// Why nothing can be said about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeFault {
    /// It has another UUID.
    #[error("it is another image than before")]
    AnotherImage,
    /// It was resized or converted.
    #[error("its size, or the layout of its file, is another than before")]
    LaidOutOtherwise,
    /// A block of it is stored where another one is, or nowhere.
    #[error("its block map is damaged")]
    DamagedMap,
    /// What was merged is no differencing image on it, or has other blocks.
    #[error("what was merged into it does not belong to it")]
    NotOnIt,
}

/// The ranges of the file that the merges left as they were, in order and as long as can be. `before` and
/// `after` are heads of the same image; `merged` are those of all differencing images that were merged into
/// it in between, as they were when they were last written to.
///
/// Takes up to 24 bytes of memory for each stored block while it runs.
///
/// # Errors
/// Why nothing can be said.
pub fn kept_ranges(
    before: &VdiHead,
    merged: &[VdiHead],
    after: &VdiHead,
) -> Result<Vec<Range<u64>>, MergeFault> {
    verify_same_image(before.header(), after.header())?;
    verify_merged(before.header(), merged)?;
    if !before.block_map().is_injective() || !after.block_map().is_injective() {
        return Err(MergeFault::DamagedMap);
    }
    let places = kept_places(before.block_map(), merged, after.block_map());
    Ok(ranges_of(&places, after.header()))
}

fn verify_same_image(before: &VdiHeader, after: &VdiHeader) -> Result<(), MergeFault> {
    if before.uuids.creation != after.uuids.creation {
        return Err(MergeFault::AnotherImage);
    }
    let layout = |header: &VdiHeader| {
        (
            (header.version, header.image_type),
            (header.block_map_offset_bytes, header.data_offset_bytes),
            (header.capacity_bytes, header.blocks),
            (header.block_size_bytes, header.block_extra_bytes),
        )
    };
    match layout(before) == layout(after) {
        true => Ok(()),
        false => Err(MergeFault::LaidOutOtherwise),
    }
}

/// An image that lay on another one of the merged ones lies on the image itself after that one's merge.
fn verify_merged(image: &VdiHeader, merged: &[VdiHead]) -> Result<(), MergeFault> {
    let is_known = |parent| {
        let mut others = merged.iter().map(|other| other.header().uuids.creation);
        parent == image.uuids.creation || others.any(|other| parent == other)
    };
    let blocks = |header: &VdiHeader| {
        (
            header.capacity_bytes,
            header.blocks,
            header.block_size_bytes,
        )
    };
    let belongs =
        |child: &VdiHeader| child.parent().is_some_and(is_known) && blocks(child) == blocks(image);
    match merged.iter().all(|child| belongs(child.header())) {
        true => Ok(()),
        false => Err(MergeFault::NotOnIt),
    }
}

/// Places in the file, in order.
fn kept_places(before: &BlockMap, merged: &[VdiHead], after: &BlockMap) -> Vec<u32> {
    let is_merged = |block| {
        let mut maps = merged.iter().map(VdiHead::block_map);
        maps.any(|map| map.entry(block) != BlockEntry::Free)
    };
    let entries = (0..).zip(before.entries().zip(after.entries()));
    let mut places: Vec<u32> = entries
        .filter_map(|(block, entries)| match entries {
            (BlockEntry::Allocated(old), BlockEntry::Allocated(new)) if old == new => {
                (!is_merged(block)).then_some(new)
            }
            _ => None,
        })
        .collect();
    places.sort_unstable();
    places
}

fn ranges_of(places: &[u32], header: &VdiHeader) -> Vec<Range<u64>> {
    let grid = header.grid();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for place in places {
        let start = grid.file_offset_bytes(*place);
        let end = start.saturating_add(grid.block_bytes());
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}
