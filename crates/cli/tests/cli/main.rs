//! The command line as its users meet it. Machines are named by their settings files, so that no
//! VirtualBox is needed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod append_only;
mod bad_sectors;
mod borg;
mod clocks;
mod disk;
mod doctor;
mod elsewhere;
mod environment;
mod errors;
mod faults;
mod interruption;
mod json;
mod passwords;
mod prune;
mod repository;
mod server;
mod shape;
mod tracking;
mod verbs;
mod virtualbox;
