//! Options of `vrs migrate`.

use std::path::PathBuf;

use clap::Args;

use super::StartFrontend;

/// Without --accept: saves the machine's state if it is running, takes a snapshot, and marks the
/// machine as moved, so that it does not start here any more. With --accept: takes a machine over
/// that moved into a snapshot.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The machine; with --accept also the snapshot that it moved into
    #[arg(value_name = "MACHINE|SNAPSHOT")]
    pub subject: String,

    /// Take the machine over: restore it here, and remember that it lives here
    #[arg(long, conflicts_with = "back")]
    pub accept: bool,

    /// Send a machine back that was taken over; the computer that it came from accepts it then
    #[arg(long = "return")]
    pub back: bool,

    /// Put the machine folder into DIR, if the machine never was on this computer [default: where it
    /// was, else VirtualBox's default machine folder]
    #[arg(long, value_name = "DIR", requires = "accept")]
    pub into: Option<PathBuf>,

    /// Leave the machine's memory out: it boots from its disks
    #[arg(long, requires = "accept")]
    pub cold: bool,

    /// Take it over in spite of a verdict on what may not go on here, or, with "accepted", although
    /// another computer did; may be given several times
    #[arg(long, value_name = "VERDICT", requires = "accept")]
    pub force: Vec<String>,

    /// Start the machine when it is here; one with a saved state resumes where it was
    #[arg(long, value_name = "FRONTEND", num_args = 0..=1, require_equals = true, default_missing_value = "gui", requires = "accept")]
    pub start: Option<StartFrontend>,

    /// A name to find the snapshot by
    #[arg(long, conflicts_with = "accept")]
    pub name: Option<String>,

    /// A description of the snapshot
    #[arg(long, value_name = "TEXT", conflicts_with = "accept")]
    pub description: Option<String>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
