//! `vrs`, the command line of VirtualBox Remote Snapshots.
//!
//! Only this crate prints, reads the environment and ends the process.

mod access;
mod args;
mod commands;
mod config;
mod context;
mod errors;
mod events;
mod exit;
mod keyring;
mod password;
mod printer;
mod reporters;
mod reports;
mod signals;
mod text;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::printer::Printer;

fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => run(args).into(),
        Err(error) => {
            // A reader that went away has seen enough of the help.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            }
        }
    }
}

fn run(args: Args) -> Exit {
    let printer = Printer::new(&args.global);
    let verbose = args.global.verbose > 0;
    let exit = commands::run(args, printer.clone()).unwrap_or_else(|error| {
        if !error.is_broken_pipe() {
            printer.failure(&Failure::new(&error, verbose));
        }
        error.exit()
    });
    if printer.has_warned() {
        exit.max(Exit::Warnings)
    } else {
        exit
    }
}
