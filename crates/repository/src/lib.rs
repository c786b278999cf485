//! The snapshot repository: ingest, read, restore data, delete, check.
//!
//! Snapshots are kept in restic's repository format, version 2, so that stock `restic` reads them.
//! The engine sees only [`SnapshotStore`]; [`ResticRepository`] is its implementation.
//!
//! Guarantees: a snapshot is visible completely or not at all; a byte is handed out or written to a
//! target only after its chunk was found equal to its id; what an interrupted run stored is used by
//! the next one; memory does not grow with the size of the files, except for some hundred bytes a
//! chunk. Not guaranteed: that a program which ignores restic's lock files, as rustic does, leaves a
//! running ingest alone when it prunes.

mod adopt;
mod backend;
mod blob;
mod check;
mod chunking;
mod crypto;
pub mod error;
pub mod id;
mod index;
mod ingest;
mod intake;
mod keys;
mod layout;
mod location;
mod lock;
mod object;
mod pack;
mod parallel;
mod password;
mod platform;
mod reader;
mod repository;
mod restic;
mod restore;
mod sink;
mod snapshot;
pub mod store;
mod tree;

pub use error::{Error, ErrorKind, Result};
pub use location::Location;
pub use password::Password;
pub use repository::{InitOptions, OpenOptions, ResticRepository};
pub use store::SnapshotStore;
