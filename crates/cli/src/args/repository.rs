//! Options of the commands about a repository as a whole.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where the password and the credentials of a second repository come from. Without these they are those of
/// the config file for its name, else the same as for the first.
#[derive(Debug, Args)]
pub struct OtherArgs {
    /// Read the second repository's password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "other_password_command")]
    pub other_password_file: Option<PathBuf>,

    /// Run a command that prints the second repository's password
    #[arg(long, value_name = "COMMAND")]
    pub other_password_command: Option<String>,

    /// Use the key and the region of this profile in ~/.aws for the second repository
    #[arg(long, value_name = "PROFILE")]
    pub other_aws_profile: Option<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Read and verify all data, not only the structure, or a part of it that is chosen anew each time
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100%", value_parser = percent)]
    pub read_data: Option<u8>,

    /// Remove what is damaged beyond use and keep what is sound; what is lost is stored again by the next
    /// snapshot that still finds it
    #[arg(long)]
    pub repair: bool,

    /// With --repair: only show what it would do
    #[arg(short = 'n', long, requires = "repair")]
    pub dry_run: bool,

    /// Fetch what is lost from this repository, for example a copy
    #[arg(long, value_name = "LOCATION|NAME", requires = "repair")]
    pub from: Option<String>,

    #[command(flatten)]
    pub other: OtherArgs,
}

pub(super) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number
        .parse()
        .ok()
        .filter(|percent| (1..=100).contains(percent));
    percent.ok_or_else(|| "give a number from 1 to 100, as in 5%".to_owned())
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Snapshots, for example MACHINE@latest; all if none is given
    #[arg(value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,

    /// The repository to copy to, which must exist
    #[arg(long, value_name = "LOCATION|NAME")]
    pub to: String,

    #[command(flatten)]
    pub other: OtherArgs,
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys
    List,
    /// Add a key, so that another password opens the repository, too
    Add(NewPasswordArgs),
    /// Remove a key; never the one in use
    Remove {
        /// First digits of its id
        id: String,
    },
    /// Change the password: a new key takes the place of the one in use
    Passwd(NewPasswordArgs),
}

#[derive(Debug, Args)]
pub struct NewPasswordArgs {
    /// Read the new password from a file instead of asking for it
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    pub new_password_file: Option<PathBuf>,

    /// Run a command that prints the new password
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<String>,
}
