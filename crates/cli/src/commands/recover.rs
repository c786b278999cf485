//! `vrs recover`

use vrs_engine::Host;
use vrs_engine::journal::Unfinished;
use vrs_engine::recover;
use vrs_engine::undo::{self, UndoPlan};
use vrs_repository::SnapshotStore;

use crate::args::RecoverArgs;
use crate::context::Context;
use crate::errors::{Error, Failure, Result};
use crate::exit::Exit;
use crate::reports::recover::{OperationEntry, RecoverOutcome, RecoverReport, location};

pub fn run(context: &Context, args: &RecoverArgs) -> Result<Exit> {
    let host = context.host()?;
    let mut report = RecoverReport {
        operations: Vec::new(),
    };
    let mut exit = Exit::Success;
    for unfinished in wanted_operations(&host, args)? {
        let outcome = match (args.undo, args.dry_run) {
            (true, dry_run) if location(&unfinished).is_some() => {
                give_up(context, &host, &unfinished, dry_run)
            }
            (_, true) => Ok(RecoverOutcome::Owed { undo: None }),
            (_, false) => finish(context, &host, &unfinished),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            let ended = exit_of(&host, &unfinished, &error);
            exit = exit.max(ended);
            let failure = Failure {
                exit_code: ended.code(),
                ..Failure::new(&error, context.is_verbose())
            };
            context.printer.failure(&failure);
            RecoverOutcome::Failed { error: failure }
        });
        report
            .operations
            .push(OperationEntry::new(&unfinished, outcome));
        if exit == Exit::Interrupted {
            break;
        }
    }
    if args.dry_run {
        context.printer.report(&report)?;
    } else {
        context.printer.outcome(&report)?;
    }
    Ok(exit)
}

/// A machine to which something is still owed needs recovery, whatever kept that from being done.
fn exit_of(host: &Host, unfinished: &Unfinished, error: &Error) -> Exit {
    let owed = host.journals().of_machine(unfinished.machine);
    match error.exit() {
        Exit::Failed if !matches!(owed, Ok(None)) => Exit::NeedsRecovery,
        exit => exit,
    }
}

fn wanted_operations(host: &Host, args: &RecoverArgs) -> Result<Vec<Unfinished>> {
    let mut owed = recover::owed(host)?;
    if let Some(machine) = &args.machine {
        owed.retain(|unfinished| is_about(unfinished, machine));
        if owed.is_empty() {
            return Err(Error::usage(format!(
                "nothing is owed to a machine '{machine}'; `vrs recover --dry-run` shows what is"
            )));
        }
    }
    Ok(owed)
}

fn is_about(unfinished: &Unfinished, machine: &str) -> bool {
    unfinished.intent.machine_name() == machine || unfinished.machine.to_string() == machine
}

fn finish(context: &Context, host: &Host, unfinished: &Unfinished) -> Result<RecoverOutcome> {
    let store = location(unfinished)
        .map(|location| context.repository_or(location))
        .transpose()?;
    let Some(store) = &store else {
        return Ok(
            recover::finish_without_repository(host, unfinished, &context.reporter())?.into(),
        );
    };
    finish_from(context, host, store.as_ref(), unfinished)
}

fn give_up(
    context: &Context,
    host: &Host,
    unfinished: &Unfinished,
    dry_run: bool,
) -> Result<RecoverOutcome> {
    Ok(if dry_run {
        let plan = UndoPlan::make(host, unfinished)?;
        RecoverOutcome::Owed {
            undo: Some(plan.into()),
        }
    } else {
        let undone = undo::execute(host, unfinished, &context.reporter())?;
        RecoverOutcome::Undone {
            undo: undone.into(),
        }
    })
}

/// Finishes an operation with the repository that it used.
pub fn finish_from(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    unfinished: &Unfinished,
) -> Result<RecoverOutcome> {
    Ok(recover::finish(host, store, unfinished, &context.reporter())?.into())
}
