//! Takes that are told by the file system what did not change store just what a scan stores.
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
mod moves;
mod records;
mod story;
mod takes;
mod turns;
mod whatever;
