//! `vrs completions`

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::errors::Result;
use crate::exit::Exit;

pub fn run(shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vrs", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Success)
}
