//! Takes that are told by a VirtualBox snapshot of vrs's own what did not change store just what a scan stores,
//! and leave one VirtualBox snapshot or none, wherever they end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../registered/mod.rs"]
mod registered;

mod ends;
mod other_commands;
mod scene;
mod story;
mod strangers;
mod takes;
mod witness;
