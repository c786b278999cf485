//! Snapshots in a borg repository, through the installed program `borg`, 1.2 or later.
//!
//! One snapshot is one archive, which `borg extract` and `borg mount` show as any other: the machine's
//! folder, and vrs's own beside it. docs/design/borg.md says how it is made and why.
//!
//! Guarantees: an archive counts as a snapshot only with the label that vrs gives a complete one, in
//! one atomic write; passwords reach `borg` through a pipe alone; a target file is never written
//! where it is right already. Not guaranteed: that an unchanged file is not read, as `borg` has to see
//! every byte.

mod answers;
mod archive;
mod extract;
mod ingest;
mod label;
mod location;
mod mount;
mod platform;
mod program;
mod repository;
mod restore;
mod rsync;
mod running;
mod target;
mod upkeep;

pub use location::BorgLocation;
pub use repository::{BorgOptions, BorgRepository};
