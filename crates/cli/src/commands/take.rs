//! `vrs take`

use vrs_engine::Host;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_repository::SnapshotStore;

use crate::args::TakeArgs;
use crate::context::Context;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::reports::take::{PlannedEntry, TakeEntry, TakeOutcome, TakeReport, TakenEntry};

/// Each machine is on its own: what happens to one does not keep the others from being taken.
pub fn run(context: &Context, args: &TakeArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let mut report = TakeReport {
        machines: Vec::new(),
    };
    let mut exit = Exit::Success;
    for machine in wanted_machines(&host, args)? {
        let taken = take_one(context, &host, &store, &machine, args);
        let outcome = taken.unwrap_or_else(|error| {
            exit = exit.max(error.exit());
            let failure = Failure::new(&error, context.is_verbose());
            context.printer.failure(&failure);
            TakeOutcome::Failed { error: failure }
        });
        report.machines.push(TakeEntry { machine, outcome });
        if exit == Exit::Interrupted {
            break;
        }
    }
    context.printer.outcome(&report)?;
    Ok(exit)
}

fn wanted_machines(host: &Host, args: &TakeArgs) -> Result<Vec<String>> {
    if !args.all {
        return Ok(args.machines.clone());
    }
    Ok(Machine::all(host)?
        .iter()
        .map(|machine| machine.id.to_string())
        .collect())
}

fn take_one(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    machine: &str,
    args: &TakeArgs,
) -> Result<TakeOutcome> {
    let machine = Machine::find(host, machine)?;
    let options = TakeOptions {
        name: args.name.clone(),
        description: args.description.clone(),
        tags: args.tags.clone(),
        force_read: args.force_read,
    };
    let plan = TakePlan::make(host, store, &machine, options)?;
    if args.dry_run {
        return Ok(TakeOutcome::Planned(PlannedEntry::from(&plan)));
    }
    let taken = take::execute(host, store, &plan, &context.reporter())?;
    Ok(TakeOutcome::Taken(TakenEntry::from(&taken)))
}
