//! vrs on machines of the real VirtualBox, as a user calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod clones;
mod kills;
mod machines;
mod observed;
mod refusals;
mod relocated;
mod restic;
mod round_trips;
mod vrs;
