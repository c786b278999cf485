//! VirtualBox's own disk image format: header, block map, reading and writing one image.

mod block_map;
mod create;
mod grid;
mod head;
mod header;
mod header_parser;
mod image;
mod kept;
mod layout;
mod map_report;
mod sector;
mod writer;

pub use block_map::{BlockEntry, BlockMap};
pub use create::{VdiCreate, VdiVariant};
pub use head::{MendedHead, VdiHead};
pub use header::{Geometry, VdiHeader, VdiImageType, VdiUuids, VdiVersion};
pub use image::{RunKind, VdiImage};
pub use kept::{MergeFault, kept_ranges};
pub use map_report::{Finding, MapReport};
pub use sector::{set_image_identity, set_uuids};
pub use writer::VdiWriter;

/// Whether a file that begins with `head` is a VDI image.
pub fn has_signature(head: &[u8]) -> bool {
    layout::u32_at(head, layout::SIGNATURE_AT) == Some(layout::SIGNATURE)
}

/// Whether there is nothing but zeros in `bytes`.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
