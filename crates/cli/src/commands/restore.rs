//! `vrs restore`

use vrs_engine::Host;
use vrs_engine::journal::{Intent, Unfinished};
use vrs_engine::machine::Machine;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan};
use vrs_engine::snapshot::Snapshot;
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_repository::SnapshotStore;

use super::{lookup, recover};
use crate::args::RestoreArgs;
use crate::context::Context;
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::recover::{OperationEntry, RecoverOutcome, RecoverReport};
use crate::reports::restore::RestoreReport;

pub fn run(context: &Context, args: &RestoreArgs) -> Result<Exit> {
    context.require_consent(args.yes || args.dry_run)?;
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, &store)?.snapshots;
    let snapshot = lookup::snapshot(&host, &snapshots, &args.snapshot)?;
    if !args.dry_run
        && let Some(finished) = finish_the_same(context, &host, &store, &snapshot)?
    {
        context.printer.outcome(&finished)?;
        return Ok(Exit::Success);
    }
    let options = RestoreOptions {
        power_off: args.poweroff,
        into: args.into.clone(),
    };
    let plan = RestorePlan::make(&host, &store, &snapshot, &options, &context.reporter())?;
    let preview = preview(context, &store, &plan, args)?;
    if args.dry_run {
        context.printer.report(&preview)?;
        return Ok(Exit::Success);
    }
    context.confirm(&preview, "Restore it like this?", args.yes)?;
    let before = args
        .before
        .as_ref()
        .map(|name| take_before(context, &host, &store, &plan, name))
        .transpose()?;
    carry_out(
        context,
        &host,
        &store,
        &plan,
        RestoreReport { before, ..preview },
    )
}

/// Finishes the restore of the same snapshot that an earlier run began, if there is one and it had
/// changed something.
fn finish_the_same(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    snapshot: &Snapshot,
) -> Result<Option<RecoverReport>> {
    let is_the_same = |unfinished: &Unfinished| match &unfinished.intent {
        Intent::Restore(intent) => !intent.is_clone && intent.snapshot == snapshot.id.to_string(),
        _ => false,
    };
    let Some(unfinished) = vrs_engine::recover::owed(host)?
        .into_iter()
        .find(is_the_same)
    else {
        return Ok(None);
    };
    match recover::finish_from(context, host, store, &unfinished)? {
        RecoverOutcome::Dropped => Ok(None),
        outcome => Ok(Some(RecoverReport {
            operations: vec![OperationEntry::new(&unfinished, outcome)],
        })),
    }
}

/// The plan and, if somebody is going to look at it, what it will cost.
fn preview(
    context: &Context,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    args: &RestoreArgs,
) -> Result<RestoreReport> {
    let report = RestoreReport::from(plan);
    if args.yes && !args.dry_run {
        return Ok(report);
    }
    let stats = plan.estimate(store, &context.reporter())?;
    Ok(report.with_estimate(stats))
}

/// Keeps the state that the restore is going to replace.
fn take_before(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    name: &str,
) -> Result<String> {
    let machine = present_machine(host, plan)?;
    let options = TakeOptions {
        name: Some(name.to_owned()),
        ..TakeOptions::default()
    };
    let take_plan = TakePlan::make(host, store, &machine, options)?;
    let taken = take::execute(host, store, &take_plan, &context.reporter())?;
    context.printer.note(&format!(
        "kept the present state as snapshot {} ('{name}')",
        taken.id.short()
    ));
    Ok(taken.id.to_string())
}

fn present_machine(host: &Host, plan: &RestorePlan) -> Result<Machine> {
    if let Some(machine) = Machine::registered(host, plan.intent.machine)? {
        return Ok(machine);
    }
    let settings_file = &plan.intent.settings_file;
    match settings_file.to_str() {
        Some(path) if settings_file.is_file() => Ok(Machine::find(host, path)?),
        _ => Err(Error::usage(
            "--before makes no sense here: the machine is not on this computer now",
        )),
    }
}

/// Does what was planned, and tells.
pub fn carry_out(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    report: RestoreReport,
) -> Result<Exit> {
    let restored = restore::execute(host, store, plan, &context.reporter())?;
    context.printer.outcome(&report.done(restored.stats))?;
    Ok(Exit::Success)
}
