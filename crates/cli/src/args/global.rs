//! Options that every command has.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Repository: a folder, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH,
    /// borg:PATH, borg:USER@HOST:PATH, or the name of one in the config file
    #[arg(
        short,
        long,
        global = true,
        value_name = "LOCATION|NAME",
        env = "VRS_REPOSITORY",
        hide_env_values = true
    )]
    pub repo: Option<String>,

    /// Read the repository's password from a file [env: VRS_PASSWORD_FILE]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "password_command"
    )]
    pub password_file: Option<PathBuf>,

    /// Run a command that prints the repository's password [env: VRS_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,

    /// Keep the password in the system's keyring once it has opened the repository
    #[arg(long, global = true)]
    pub save_password: bool,

    /// Send at most so many KiB a second to the repository
    #[arg(long, global = true, value_name = "KIB")]
    pub limit_upload: Option<NonZeroU32>,

    /// Fetch at most so many KiB a second from the repository
    #[arg(long, global = true, value_name = "KIB")]
    pub limit_download: Option<NonZeroU32>,

    /// Trust the certificates in this file (PEM) instead of the usual ones
    #[arg(long, global = true, value_name = "FILE")]
    pub cacert: Option<PathBuf>,

    /// Do not use what earlier runs on this computer remembered to save time [env: VRS_CACHE_DIR says
    /// where it is]
    #[arg(long, global = true)]
    pub no_cache: bool,

    /// Where VBoxManage is
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "VRS_VBOXMANAGE",
        hide_env_values = true
    )]
    pub vboxmanage: Option<PathBuf>,

    /// Read this config file instead of the usual one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "VRS_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Print the result as one JSON document, and what happens meanwhile as JSON lines on stderr
    #[arg(long, global = true)]
    pub json: bool,

    /// Print only what was asked for, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Show the commands that were given to VirtualBox when they fail
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,

    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
