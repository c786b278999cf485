//! Options of the commands about what is kept.

use clap::{Args, Subcommand};
use vrs_engine::retention::{Count, Rules, Within};

/// Rules of retention, as restic has them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rules")]
pub struct KeepArgs {
    /// Keep the last N snapshots of each machine
    #[arg(long, value_name = "N")]
    pub keep_last: Option<Count>,

    /// Keep the last snapshot of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<Count>,

    /// Keep the last snapshot of each of the last N days that have one
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<Count>,

    /// Keep the last snapshot of each of the last N weeks that have one
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<Count>,

    /// Keep the last snapshot of each of the last N months that have one
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<Count>,

    /// Keep the last snapshot of each of the last N years that have one
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<Count>,

    /// Keep what is no older than this before the machine's latest snapshot, for example 1y5m7d2h
    #[arg(long, value_name = "DURATION")]
    pub keep_within: Option<Within>,

    /// Keep snapshots with this tag, or with all of several separated by commas; may be repeated
    #[arg(long = "keep-tag", value_name = "TAG[,TAG]")]
    pub keep_tags: Vec<String>,
}

impl From<&KeepArgs> for Rules {
    fn from(args: &KeepArgs) -> Self {
        Self {
            last: args.keep_last,
            hourly: args.keep_hourly,
            daily: args.keep_daily,
            weekly: args.keep_weekly,
            monthly: args.keep_monthly,
            yearly: args.keep_yearly,
            within: args.keep_within,
            tags: args.keep_tags.clone(),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Which snapshots go is decided by the policy that is stored with the repository (see `vrs policy`), or \
by the rules given here instead of it. Without either all are kept, and only the space of deleted ones \
comes back. Snapshots from the future are kept, and no rule counts them.

Space comes back in two steps: what nobody uses is marked, and a prune at least 24 hours later removes \
it. So snapshots can be taken and restored meanwhile, from any computer. Neither VirtualBox nor any \
machine is needed here: run it where the repository is, for example once a day.")]
pub struct PruneArgs {
    #[command(flatten)]
    pub keep: KeepArgs,

    /// Heed no stored policy; without rules given here no snapshot is deleted
    #[arg(long)]
    pub ignore_policy: bool,

    /// How much unused data may stay, in percent of what is used, before packs are written anew
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub max_unused: u32,

    /// Only show each snapshot, whether it is kept and why, and what space would come back
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Only show what would be kept over the coming year, if snapshots are taken as they are now
    #[arg(long, conflicts_with = "dry_run")]
    pub calendar: bool,

    /// Do not ask before snapshots are deleted
    #[arg(short, long)]
    pub yes: bool,
}

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "give a number from 0 to 100, as in 5%".to_owned())
}

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the rules that are stored with the repository
    Show,
    /// Store rules in place of those that are there
    Set(PolicySetArgs),
    /// Remove rules
    Remove {
        /// Those of this machine, so that it follows those of the repository again
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct PolicySetArgs {
    /// For this machine only, instead of those for the whole repository
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<String>,

    #[command(flatten)]
    pub keep: KeepArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").multiple(true).required(true))]
pub struct EditArgs {
    /// The snapshot, for example MACHINE@latest
    pub snapshot: String,

    /// Keep it, whatever the policy says
    #[arg(long, group = "change")]
    pub pin: bool,

    /// Leave it to the policy again
    #[arg(long, group = "change", conflicts_with = "pin")]
    pub unpin: bool,

    /// A new name; an empty one takes it away
    #[arg(long, group = "change", allow_hyphen_values = true)]
    pub name: Option<String>,

    /// A new description; an empty one takes it away
    #[arg(
        long,
        value_name = "TEXT",
        group = "change",
        allow_hyphen_values = true
    )]
    pub description: Option<String>,

    /// Add a tag, or several separated by commas
    #[arg(
        long = "tag",
        value_name = "TAG",
        group = "change",
        value_delimiter = ','
    )]
    pub add_tags: Vec<String>,

    /// Take a tag away, or several separated by commas
    #[arg(
        long = "untag",
        value_name = "TAG",
        group = "change",
        value_delimiter = ','
    )]
    pub remove_tags: Vec<String>,
}
