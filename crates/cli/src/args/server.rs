//! Options of the command that sets up services.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::prune::KeepArgs;
use super::repository::percent;

#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(subcommand)]
    pub command: ServerCommand,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Write services and timers of systemd that prune and check the repository, and start them
    Install(ServerInstallArgs),
    /// Show when they run, and how that went
    Status(ServerPlaceArgs),
    /// Stop and remove them; nothing in the repository changes
    Uninstall {
        #[command(flatten)]
        place: ServerPlaceArgs,

        /// Only show what would be removed
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Run it on the machine where the repository is, with the folder as --repo and the password in a file \
that only its owner can read. The services need neither VirtualBox nor any machine, nor that a host is \
on. A service of the computer runs as the owner of the folder and gets the password from systemd.

With rules given here `vrs prune` heeds no policy that is stored in the repository, which is what you \
want where hosts may only add: see docs/prune.md. Without any it heeds the stored policy.

Run it again to change anything.")]
pub struct ServerInstallArgs {
    #[command(flatten)]
    pub place: ServerPlaceArgs,

    #[command(flatten)]
    pub keep: KeepArgs,

    /// Heed no stored policy; without rules given here no snapshot is deleted
    #[arg(long)]
    pub ignore_policy: bool,

    /// When to prune, as OnCalendar of systemd has it
    #[arg(long, value_name = "TIME", default_value = "daily")]
    pub prune_at: String,

    /// When to check, likewise
    #[arg(long, value_name = "TIME", default_value = "weekly")]
    pub check_at: String,

    /// How much of the data a check reads
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub read_data: u8,

    /// Only print the units
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ServerPlaceArgs {
    /// Services of the user, not of the computer; they run while the user's systemd does
    #[arg(long)]
    pub user: bool,

    /// The folder of the units, of which systemd is told nothing
    #[arg(long, value_name = "DIR")]
    pub units: Option<PathBuf>,
}
