//! The snapshot repository: ingest, read, restore data, delete, prune, check.
//!
//! Snapshots are kept in restic's repository format, version 2, so that stock `restic` reads them, in
//! a folder, over SFTP, in S3-compatible storage, on a REST server or wherever `rclone` reaches.
//! The engine sees only [`SnapshotStore`]; [`ResticRepository`] is its implementation.
//!
//! Guarantees: a snapshot is visible completely or not at all; a byte is handed out or written to a
//! target only after its chunk was found equal to its id; what an interrupted run stored is used by
//! the next one; memory does not grow with the size of the files, except for at most 100 bytes a
//! chunk; whatever is pruned meanwhile, a snapshot that becomes visible is complete. Not guaranteed:
//! that a snapshot in the making succeeds while a program prunes that ignores restic's lock files, as
//! rustic does; it may have to be taken again.

mod access;
mod adopt;
mod backend;
mod blob;
mod block_list;
mod check;
mod chunking;
mod copy;
mod crypto;
mod decompression;
mod direct;
pub mod error;
mod gathered;
pub mod id;
mod id_set;
mod index;
mod ingest;
mod intake;
mod keys;
mod layout;
mod least_used;
mod loaded_index;
pub mod local;
mod location;
mod lock;
mod object;
mod object_cache;
mod pack;
mod parallel;
mod password;
mod platform;
mod prune;
mod reader;
mod repair;
mod repository;
mod restic;
mod restore;
mod scan_cache;
mod seen_chunks;
mod sink;
mod snapshot;
pub mod store;
mod survival;
mod tree;
mod tree_copies;
mod tree_memory;
mod tree_text;

pub use access::{Access, Interrupted, S3Key};
pub use copy::Copied;
pub use error::{Error, ErrorKind, Result};
pub use keys::KeyRecord;
pub use location::Location;
pub use password::Password;
pub use repository::{InitOptions, OpenOptions, ResticRepository};
pub use store::SnapshotStore;
