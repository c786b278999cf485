//! What the tests of all crates share: sample machines, a fake `VBoxManage`, helpers for the real
//! one, servers of storage, and faults.
//!
//! For tests only. Helpers panic, with the reason, when a test's own preparation fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::exit,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test whose preparation fails has to fail"
)]

mod contents;
mod every_step;
mod fake;
mod fault;
mod guest_counts;
mod guest_records;
mod image;
mod linux_guest;
mod linux_records;
mod loop_disk;
mod machine;
mod mounted;
mod read_errors;
mod repository;
mod rig;
mod rig_guests;
mod rig_kinds;
mod rig_machine;
mod sample;
mod sample_builder;
mod saved_state;
mod script;
mod servers;
mod settings;
mod tiny_disk;
mod unnoticed;

pub use contents::{random_bytes, sha256};
pub use every_step::{CrashPoint, run_at_every_step};
pub use fake::{FakeVBoxManage, Fault, FaultKind, fake_vboxmanage};
pub use fault::{FaultProgress, StepLog};
pub use guest_counts::GuestCounts;
pub use guest_records::GuestRecords;
pub use linux_guest::LinuxGuest;
pub use linux_records::LinuxRecords;
pub use loop_disk::{Device, LoopDisk, SECTOR_BYTES};
pub use read_errors::ReadErrors;
pub use repository::{REPOSITORY_PASSWORD, make_repository};
pub use rig::Rig;
pub use rig_kinds::{RIG_MACHINE_KINDS, RigMachineKind};
pub use rig_machine::RigMachine;
pub use sample::{SampleMachine, write_raw_to_image};
pub use sample_builder::{SampleDisk, SampleMachineBuilder};
pub use saved_state::SavedStateFile;
pub use script::write_script;
pub use servers::{Proxy, ServerKind, StorageServer};
pub use tiny_disk::TinyDisk;
pub use unnoticed::write_unnoticed;
