//! The verbs, one file each: from arguments over the engine to a report.

mod check;
mod clone;
mod completions;
mod copy;
mod delete;
mod diff;
mod disk;
mod doctor;
mod edit;
mod init;
mod key;
mod list;
mod lookup;
mod man;
mod migrate;
mod policy;
mod prune;
mod recover;
mod restore;
mod server;
mod show;
mod take;
mod vms;

use crate::args::{Args, Command};
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::printer::Printer;

/// Does what the command line asks for.
pub fn run(args: Args, printer: Printer) -> Result<Exit> {
    let Args { global, command } = args;
    let context = || Context::new(global, printer);
    match &command {
        Command::Init => init::run(&context()?),
        Command::Vms => vms::run(&context()?),
        Command::Take(args) => take::run(&context()?, args),
        Command::List(args) => list::run(&context()?, args),
        Command::Show(args) => show::run(&context()?, args),
        Command::Diff(args) => diff::run(&context()?, args),
        Command::Restore(args) => restore::run(&context()?, args),
        Command::Clone(args) => clone::run(&context()?, args),
        Command::Migrate(args) => migrate::run(&context()?, args),
        Command::Delete(args) => delete::run(&context()?, args),
        Command::Edit(args) => edit::run(&context()?, args),
        Command::Prune(args) => prune::run(&context()?, args),
        Command::Policy(args) => policy::run(&context()?, args),
        Command::Check(args) => check::run(&context()?, args),
        Command::Copy(args) => copy::run(&context()?, args),
        Command::Key(args) => key::run(&context()?, args),
        Command::Server(args) => server::run(&context()?, args),
        Command::Recover(args) => recover::run(&context()?, args),
        Command::Doctor(args) => doctor::run(&context()?, args),
        Command::Disk(args) => disk::run(&context()?, args),
        // These work whatever the configuration is like.
        Command::Completions { shell } => completions::run(*shell),
        Command::Man { dir } => man::run(dir.as_deref()),
    }
}
