//! VirtualBox's own disk image format: header, block map, reading and writing one image.

mod block_map;
mod grid;
mod header;
mod image;
mod layout;
mod sector;
mod writer;

pub use block_map::{BlockEntry, BlockMap, Finding, MapReport};
pub use header::{Geometry, VdiHeader, VdiImageType, VdiUuids, VdiVersion};
pub use image::{Run, RunKind, VdiImage};
pub use sector::{set_image_identity, set_uuids};
pub use writer::{VdiCreate, VdiVariant, VdiWriter};

/// Whether a file that begins with `head` is a VDI image.
pub fn has_signature(head: &[u8]) -> bool {
    layout::u32_at(head, layout::SIGNATURE_AT) == Some(layout::SIGNATURE)
}
