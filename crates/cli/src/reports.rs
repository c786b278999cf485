//! The results of commands, each in two shapes: a text for people and a document for programs.
//!
//! The documents are specified in `docs/json.md`. They are types of their own, so that the engine
//! can change without anybody's scripts noticing.

pub mod calendar;
pub mod check;
pub mod copy;
pub mod delete;
pub mod diff;
pub mod disk;
pub mod disk_map;
pub mod doctor;
pub mod edit;
pub mod init;
pub mod key;
pub mod list;
pub mod machines;
pub mod migrate;
pub mod policy;
pub mod prune;
pub mod recover;
pub mod restore;
pub mod server;
pub mod show;
pub mod snapshot;
pub mod take;
