//! The results of commands, each in two shapes: a text for people and a document for programs.
//!
//! The documents are specified in `docs/json.md`. They are types of their own, so that the engine
//! can change without anybody's scripts noticing.

pub mod check;
pub mod delete;
pub mod diff;
pub mod disk;
pub mod disk_map;
pub mod init;
pub mod list;
pub mod machines;
pub mod recover;
pub mod restore;
pub mod show;
pub mod snapshot;
pub mod take;
