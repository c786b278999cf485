//! The use cases of vrs: take, restore, clone, list, compare, edit, delete, prune,
//! check, recover, doctor and the services of a storage machine.
//!
//! Each that changes something makes a plan first, a value that can be shown; carrying it out
//! writes the intent to a journal before the first change. The engine knows VirtualBox and the
//! storage trait; it does not know the terminal, the environment or the format of a repository.

pub mod calendar;
pub mod capture;
pub mod catalog;
pub mod check;
pub mod clone;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod edit;
pub mod error;
pub mod file_holder;
pub mod host;
pub mod inventory;
pub mod journal;
pub mod machine;
pub mod manifest;
pub mod migrate;
pub mod originals;
pub mod policy;
pub mod portability;
pub mod preflight;
pub mod prune;
pub mod records;
pub mod recover;
pub mod restore;
pub mod retention;
pub mod selection;
pub mod server;
pub mod snapshot;
pub mod take;
pub mod tracking;
pub mod undo;

mod grid;
mod lock;
mod permission;
mod platform;
mod portable;
mod ticks;
mod verdict;

pub use error::{Error, ErrorKind, Result};
pub use host::Host;
