//! Options of the commands about machines and their snapshots.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct TakeArgs {
    /// Machines, by name, id or path of the .vbox file
    #[arg(value_name = "MACHINE", required_unless_present_any = ["all", "group"])]
    pub machines: Vec<String>,

    /// Take every machine that VirtualBox lists
    #[arg(long, conflicts_with = "machines")]
    pub all: bool,

    /// Take all machines of this VirtualBox group, the running ones at one instant, as one snapshot set
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["machines", "all"])]
    pub group: Option<String>,

    #[command(flatten)]
    pub mode: ModeArgs,

    /// Refuse a snapshot of a running machine whose memory could not be captured
    #[arg(long)]
    pub strict: bool,

    /// Leave a disk out, named by its place (SATA-1-0), file or id; may be given several times
    #[arg(long = "skip-disk", value_name = "DISK")]
    pub skip_disks: Vec<String>,

    /// Capture a running machine although a verdict of this name is against it, see --dry-run
    #[arg(long, value_name = "NAME")]
    pub force: Vec<String>,

    /// A name to find the snapshot by
    #[arg(long, allow_hyphen_values = true)]
    pub name: Option<String>,

    /// A description
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub description: Option<String>,

    /// A tag; may be given several times
    #[arg(
        long = "tag",
        value_name = "TAG",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub tags: Vec<String>,

    /// Read all files, also those that are known to be unchanged
    #[arg(long)]
    pub force_read: bool,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// How a running machine is captured; a machine at rest is only read.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ModeArgs {
    /// Capture a running machine with its memory; it stands still while that is written (the default)
    #[arg(long)]
    pub memory: bool,

    /// Capture a running machine with its memory while it runs, if its guest lets that come to an end
    #[arg(long)]
    pub live: bool,

    /// Capture all disks of a running machine at one instant, without its memory
    #[arg(long)]
    pub disks_only: bool,

    /// Save the state of a running machine, read it, and start it again
    #[arg(long)]
    pub savestate: bool,
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
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub before: Option<String>,

    /// Put the machine folder into DIR, if the machine is not on this computer any more
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,

    /// Restore all machines of the snapshot set that this snapshot belongs to
    #[arg(long)]
    pub set: bool,

    /// Leave the machine's memory out: it boots from its disks
    #[arg(long)]
    pub cold: bool,

    /// Restore in spite of a verdict on what may not go on here; may be given several times
    #[arg(long, value_name = "VERDICT")]
    pub force: Vec<String>,

    /// Read all files of the machine, also those that are known to be as the last snapshot read them
    #[arg(long)]
    pub force_read: bool,

    /// Start the machine when it is restored; one with a saved state resumes where it was
    #[arg(long, value_name = "FRONTEND", num_args = 0..=1, require_equals = true, default_missing_value = "gui")]
    pub start: Option<StartFrontend>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Where a started machine shows itself, in VBoxManage's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StartFrontend {
    /// In a window
    Gui,
    /// Nowhere
    Headless,
}

#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The snapshot, for example MACHINE@latest
    pub snapshot: String,

    /// Name of the new machine
    #[arg(long, allow_hyphen_values = true)]
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
pub struct RecoverArgs {
    /// Only this machine, by name or id
    pub machine: Option<String>,

    /// Give up instead of finishing: remove what an interrupted clone wrote, or bring a machine back
    /// whose files an interrupted restore had not begun to write
    #[arg(long)]
    pub undo: bool,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Only this machine, by name, id or path of the .vbox file [default: all, and VirtualBox's
    /// media registry]
    pub machine: Option<String>,

    /// Carry out the repairs that are found. Copies of what is changed are kept, and each repair is
    /// proven by looking again. Missing pieces come from the repository
    #[arg(long)]
    pub repair: bool,

    /// Carry out a repair, too, that gives up data or touches what may not be ours; the findings say
    /// which KEY means which; may be given several times
    #[arg(long, value_name = "KEY", requires = "repair")]
    pub allow: Vec<String>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
