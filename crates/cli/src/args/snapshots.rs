//! Options of the commands about machines and their snapshots.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct TakeArgs {
    /// Machines, by name, id or path of the .vbox file
    #[arg(value_name = "MACHINE", required_unless_present = "all")]
    pub machines: Vec<String>,

    /// Take every machine that VirtualBox lists
    #[arg(long, conflicts_with = "machines")]
    pub all: bool,

    /// A name to find the snapshot by
    #[arg(long)]
    pub name: Option<String>,

    /// A description
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,

    /// Read all files, also those that are known to be unchanged
    #[arg(long)]
    pub force_read: bool,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only snapshots of this machine
    pub machine: Option<String>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The snapshot, for example MACHINE@latest
    pub snapshot: String,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub from: String,

    /// The later snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub to: String,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The snapshot, for example MACHINE@latest
    pub snapshot: String,

    /// Power the machine off first if it is running
    #[arg(long)]
    pub poweroff: bool,

    /// First take a snapshot of the present state under this name
    #[arg(long, value_name = "NAME")]
    pub before: Option<String>,

    /// Put the machine folder into DIR, if the machine is not on this computer any more
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The snapshot, for example MACHINE@latest
    pub snapshot: String,

    /// Name of the new machine
    #[arg(long)]
    pub name: String,

    /// Folder that gets the new machine folder [default: where the first machine's folder is]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep the MAC addresses of the network adapters
    #[arg(long)]
    pub keep_macs: bool,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Snapshots, for example MACHINE@5
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<String>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Read and verify all data, not only the structure
    #[arg(long)]
    pub read_data: bool,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Only this machine, by name or id
    pub machine: Option<String>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
