//! VirtualBox disk images: what a file is, what its header says, which images make up a disk, and
//! the disk's bytes as the guest sees them.
//!
//! Reads and writes VDI (versions 0 and 1; dynamic, fixed, undo, differencing). Other formats are
//! recognised, not read, except for the list of files that a VMDK image is made of. Nothing read from a file is believed before it is checked, and no memory is
//! taken for what a header merely claims. This crate knows nothing of VirtualBox as a program.

mod chain;
mod error;
mod export;
mod extent;
mod format;
mod guest_disk;
mod platform;
mod vdi;
mod vmdk;

pub use chain::{Chain, Link, StaleParentModification};
pub use error::{Error, ErrorKind, HeadFault, HeaderFault, Result};
pub use export::{ExportFormat, export};
pub use extent::{Extent, ExtentKind};
pub use format::ImageFormat;
pub use guest_disk::{Extents, GuestDisk};
pub use vdi::{
    BlockEntry, BlockMap, Finding, Geometry, MapReport, MendedHead, MergeFault, VdiCreate, VdiHead,
    VdiHeader, VdiImage, VdiImageType, VdiUuids, VdiVariant, VdiVersion, VdiWriter, kept_ranges,
    set_image_identity, set_uuids,
};
pub use vmdk::{ExtentFile, extent_files, extent_names};
