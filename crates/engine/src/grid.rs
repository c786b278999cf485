//! How each kind of file is cut into chunks.
//!
//! docs/format.md lists the sizes. A disk's grid starts where its data starts, so that images made by
//! different tools, grown or compacted ones share chunks.

use std::path::Path;

use vrs_repository::store::Chunking;
use vrs_vdisk::{ImageFormat, VdiHeader};

use crate::error::Result;
use crate::manifest::FileRole;

/// Small enough that a changed guest block does not drag much along.
const GRID_BYTES: u32 = 512 << 10;

/// For images so large that the chunk list itself would weigh more than what it saves.
const LARGE_GRID_BYTES: u32 = 1 << 20;

const LARGE_IMAGE_BYTES: u64 = 300 << 30;

/// Successive saved states share pages at shifting places; docs/design/saved-state-chunking.md has the
/// measurements behind the size.
const SAVED_STATE_AVERAGE_BYTES: u32 = 16 << 10;

/// The chunking of a file of the machine. `earlier_grid_bytes` is what its last snapshot used: an
/// image keeps its grid, because changing it would store everything anew.
pub(crate) fn chunking_of(
    role: FileRole,
    local: &Path,
    size_bytes: u64,
    earlier_grid_bytes: Option<u32>,
) -> Result<Chunking> {
    Ok(match role {
        FileRole::Disk => {
            let chunk_bytes = earlier_grid_bytes.unwrap_or(if size_bytes > LARGE_IMAGE_BYTES {
                LARGE_GRID_BYTES
            } else {
                GRID_BYTES
            });
            Chunking::Grid {
                chunk_bytes,
                phase_bytes: data_offset_bytes(local)?,
            }
        }
        FileRole::SavedState => Chunking::ContentDefined {
            average_bytes: SAVED_STATE_AVERAGE_BYTES,
        },
        FileRole::Settings | FileRole::PreviousSettings | FileRole::Nvram => Chunking::Whole,
    })
}

/// The grid of a chunking, where it has one.
pub(crate) fn size_of(chunking: &Chunking) -> Option<u32> {
    match chunking {
        Chunking::Grid { chunk_bytes, .. } => Some(*chunk_bytes),
        Chunking::ContentDefined { .. } | Chunking::Whole => None,
    }
}

/// Where the data of an image starts; images that are no sound VDI are stored all the same, on a
/// grid that starts with the file.
fn data_offset_bytes(local: &Path) -> Result<u64> {
    if ImageFormat::probe(local)? != ImageFormat::Vdi {
        return Ok(0);
    }
    Ok(VdiHeader::read(local).map_or(0, |header| header.data_offset_bytes))
}

/// How a local file that may hold wanted chunks was probably cut when it was stored.
pub(crate) fn chunking_of_local(local: &Path) -> Chunking {
    let role = match local.extension().and_then(|extension| extension.to_str()) {
        Some("sav") => FileRole::SavedState,
        Some("nvram" | "vbox" | "vbox-prev") => FileRole::Nvram,
        _ => FileRole::Disk,
    };
    let size_bytes = std::fs::metadata(local).map_or(0, |file| file.len());
    // A seed is a hint: one that cannot be read is cut somehow and found useless.
    chunking_of(role, local, size_bytes, None).unwrap_or(Chunking::Whole)
}
