//! `vrs delete`

use vrs_engine::delete::{self, DeletePlan};

use super::lookup;
use crate::args::DeleteArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::delete::DeleteReport;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &DeleteArgs) -> Result<Exit> {
    context.require_consent(args.yes || args.dry_run)?;
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let wanted = args
        .snapshots
        .iter()
        .map(|wanted| lookup::snapshot(&host, &snapshots, wanted));
    let plan = DeletePlan::make(wanted.collect::<Result<_>>()?);
    let mut report = DeleteReport {
        dry_run: true,
        snapshots: plan.snapshots.iter().map(SnapshotEntry::from).collect(),
    };
    if args.dry_run {
        context.printer.report(&report)?;
        return Ok(Exit::Success);
    }
    context.confirm(&report, "Delete them?", args.yes)?;
    delete::execute(store.as_ref(), &plan, &context.reporter())?;
    report.dry_run = false;
    context.printer.outcome(&report)?;
    Ok(Exit::Success)
}
