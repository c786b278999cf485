//! `vrs prune`

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vrs_engine::calendar;
use vrs_engine::policy::{self, Policy};
use vrs_engine::prune::PrunePlan;
use vrs_engine::retention::Rules;
use vrs_repository::SnapshotStore;
use vrs_repository::store::PruneOptions;

use super::lookup;
use crate::args::PruneArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::calendar::CalendarReport;
use crate::reports::prune::PruneReport;

pub fn run(context: &Context, args: &PruneArgs) -> Result<Exit> {
    let store = context.repository()?;
    let policy = policy_for(args, store.as_ref())?;
    let catalog = lookup::catalog(context, store.as_ref())?;
    if args.calendar {
        let years = calendar::of(&catalog, &policy, Timestamp::now())?;
        context.printer.report(&CalendarReport::from(years))?;
        return Ok(Exit::Success);
    }
    let plan = PrunePlan::make(&catalog, &policy, Timestamp::now())?;
    let options = PruneOptions {
        max_unused_percent: args.max_unused,
        ..PruneOptions::default()
    };
    let asks = plan.deleted().next().is_some() && !args.yes;
    if args.dry_run || asks {
        if !args.dry_run {
            context.require_consent(args.yes)?;
        }
        let space = plan.space(store.as_ref(), &options, &context.reporter())?;
        let report = PruneReport::new(&plan, &space, true);
        if args.dry_run {
            context.printer.report(&report)?;
            return Ok(Exit::Success);
        }
        context.confirm(&report, "Delete the snapshots that are not kept?", args.yes)?;
    }
    let space = plan.execute(store.as_ref(), &options, &context.reporter())?;
    context
        .printer
        .outcome(&PruneReport::new(&plan, &space, false))?;
    Ok(Exit::Success)
}

/// The rules on the command line, else the stored policy if it is heeded, else none.
fn policy_for(args: &PruneArgs, store: &dyn SnapshotStore) -> Result<Policy> {
    let given = Rules::from(&args.keep);
    if given.is_empty() && !args.ignore_policy {
        let stored = policy::load(store)?;
        return Ok(stored.unwrap_or_else(|| Policy::new(&TimeZone::system())));
    }
    let mut policy = Policy::new(&TimeZone::system());
    policy.repository = given;
    Ok(policy)
}
