//! `vrs key`

use vrs_repository::{InitOptions, SnapshotStore};

use crate::args::{KeyArgs, KeyCommand};
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::key::KeysReport;

pub fn run(context: &Context, args: &KeyArgs) -> Result<Exit> {
    let (mut store, current) = context.repository_and_password()?;
    let engine = vrs_engine::Error::from;
    match &args.command {
        KeyCommand::List => {}
        KeyCommand::Add(new) => {
            let new = context.new_password(&store.location(), new)?;
            store.add_key(&current, &new, &maker()).map_err(engine)?;
        }
        KeyCommand::Passwd(new) => {
            let new = context.new_password(&store.location(), new)?;
            store
                .change_password(&current, &new, &maker())
                .map_err(engine)?;
        }
        KeyCommand::Remove { id } => {
            store.remove_key(id).map_err(engine)?;
        }
    }
    let (keys, unreadable) = store.keys().map_err(engine)?;
    unreadable
        .iter()
        .for_each(|reason| context.printer.warn(reason));
    let report = KeysReport::from(keys);
    match args.command {
        KeyCommand::List => context.printer.report(&report)?,
        _ => context.printer.outcome(&report)?,
    }
    Ok(Exit::Success)
}

/// Recorded with a new key, for people.
fn maker() -> InitOptions {
    let mut options = InitOptions::default();
    options.hostname = gethostname::gethostname().into_string().ok();
    options.username = std::env::var("USER")
        .or_else(|_| std::env::var("USERNAME"))
        .ok();
    options
}
