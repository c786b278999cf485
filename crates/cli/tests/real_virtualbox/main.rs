//! vrs on machines of the real VirtualBox, as a user calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod borg;
mod clones;
mod doctor;
mod elsewhere;
mod kills;
mod machines;
mod migrate;
mod observed;
mod online;
mod online_kills;
mod online_linux;
mod refusals;
mod relocated;
mod restic;
mod round_trips;
mod tracking;
mod vrs;
