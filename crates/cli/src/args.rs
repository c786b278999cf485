//! What can be typed: types and help texts, nothing else.
//!
//! Help, man pages and completions are all generated from these types.

mod disk;
mod global;
mod migrate;
mod prune;
mod repository;
mod server;
mod snapshots;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub use disk::{DiskArgs, DiskCommand, ExportArgs, ExportFormat, ImageArgs};
pub use global::{ColorChoice, GlobalArgs};
pub use migrate::MigrateArgs;
pub use prune::{EditArgs, PolicyArgs, PolicyCommand, PolicySetArgs, PruneArgs};
pub use repository::{CheckArgs, CopyArgs, KeyArgs, KeyCommand, NewPasswordArgs, OtherArgs};
pub use server::{ServerArgs, ServerCommand, ServerInstallArgs, ServerPlaceArgs};
pub use snapshots::{
    CloneArgs, DeleteArgs, DiffArgs, DoctorArgs, ListArgs, ModeArgs, RecoverArgs, RestoreArgs,
    ShowArgs, StartFrontend, TakeArgs,
};

/// Keep snapshots of VirtualBox machines on cheap storage elsewhere: deduplicated, compressed and
/// encrypted, in the repository format of restic.
#[derive(Debug, Parser)]
#[command(name = "vrs", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,

    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
A MACHINE is named by its name, its id or the path of its .vbox file.

A SNAPSHOT is named by a prefix of its id, or by its machine and a point in time:
  MACHINE@latest               the last one
  MACHINE@2                    two steps before the last one
  MACHINE@'2026-11-20 14:00'   the last one at or before that time
  MACHINE@NAME                 the one that got this name when it was taken

Exit codes:
  0    done
  1    failed
  2    the command line makes no sense
  3    done, with warnings
  4    a machine needs vrs recover or vrs doctor
  5    the machine is running, or it or the repository is in use
  130  interrupted";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository
    Init,
    /// List the machines of this computer
    Vms,
    /// Take snapshots of machines, running or at rest
    Take(TakeArgs),
    /// List snapshots
    #[command(visible_alias = "snapshots")]
    List(ListArgs),
    /// Show what a snapshot holds
    Show(ShowArgs),
    /// Show what changed between two snapshots
    Diff(DiffArgs),
    /// Bring a machine back to a snapshot, in place
    Restore(RestoreArgs),
    /// Make a second machine from a snapshot
    Clone(CloneArgs),
    /// Move a machine to another computer, and back
    Migrate(MigrateArgs),
    /// Delete snapshots
    #[command(visible_alias = "forget")]
    Delete(DeleteArgs),
    /// Change what a snapshot is called, or pin it
    Edit(EditArgs),
    /// Delete snapshots by the rules of the policy, and give space back
    Prune(PruneArgs),
    /// Say which snapshots are kept
    Policy(PolicyArgs),
    /// Verify the repository, and repair it
    Check(CheckArgs),
    /// Copy snapshots to a second repository
    Copy(CopyArgs),
    /// Manage the passwords that open the repository
    Key(KeyArgs),
    /// Prune and check by a clock, on the machine where the repository is
    Server(ServerArgs),
    /// Finish or undo what an interrupted run left behind
    Recover(RecoverArgs),
    /// Look for trouble with machines and their disks, and repair it
    Doctor(DoctorArgs),
    /// Look into disk images
    Disk(DiskArgs),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write all of them to a folder
    Man {
        /// Write one page for each command to this folder
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    /// The whole help in one file, so that a change of any option shows in review.
    #[test]
    fn help() {
        let mut command = Args::command()
            .term_width(100)
            .color(clap::ColorChoice::Never);
        command.build();
        insta::assert_snapshot!(help_of(&mut command));
    }

    fn help_of(command: &mut clap::Command) -> String {
        let title = command.get_bin_name().unwrap_or("vrs").to_owned();
        // The options that every command has are shown once, with the command above all others.
        let own = if title == "vrs" {
            command.clone()
        } else {
            command.clone().mut_args(|arg| {
                let is_global = arg.is_global_set();
                arg.hide(is_global)
            })
        };
        let help = format!("## {title}\n\n{}\n", own.clone().render_long_help());
        let below = command
            .get_subcommands_mut()
            .filter(|below| below.get_name() != "help")
            .map(help_of);
        help + &below.collect::<String>()
    }
}
