//! The benchmark: what `vrs` costs, in time, memory and bytes stored, beside restic, rustic and borg.
//!
//! Every figure is of a process of its own. Panics, with the reason, when its preparation or a
//! measured command fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a benchmark whose preparation fails has to fail"
)]

pub mod crowd;
pub mod document;
pub mod limits;
pub mod memory;
pub mod next_state;
pub mod race;
pub mod saved_states;
pub mod scene;
pub mod states;
pub mod tracked;

mod comparison;
mod debugfs;
mod files;
mod guest_files;
mod guest_memory;
mod host_files;
mod live_machine;
mod measured;
mod page_cache;
mod platform;
mod programs;
mod storage;
mod workload;
