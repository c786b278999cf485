//! How every kind of repository treats the files and processes of this host.

pub use crate::ingest::{is_unchanged, require_regular};
pub use crate::platform::{
    hostname, is_running, keep_from_terminal, open_target, punch_hole, read_full_at, set_mode,
    stamp, sync_folder, write_all_at,
};
pub use crate::sink::is_zero;
