//! `vrs check`

use vrs_engine::check;
use vrs_repository::SnapshotStore;
use vrs_repository::store::CheckOptions;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::check::{CheckReport, Repairs};

pub fn run(context: &Context, args: &CheckArgs) -> Result<Exit> {
    let store = context.repository()?;
    let mut options = CheckOptions {
        read_percent: args.read_data.unwrap_or_default(),
    };
    let mut repairs = Repairs::default();
    if args.dry_run {
        let repository = context.restic_repository()?;
        let planned = repository.plan_repair(options, &context.reporter());
        repairs.planned = planned.map_err(vrs_engine::Error::from)?;
    } else if args.repair {
        repairs.done = repair(context, args, store.as_ref(), &options)?;
        // What was read is repaired already.
        options = CheckOptions::default();
    }
    let health = check::run(store.as_ref(), &options, &context.reporter())?;
    let report = CheckReport::new(health, repairs);
    context.printer.report(&report)?;
    Ok(match (report.sound, report.warnings.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Warnings,
        (true, true) => Exit::Success,
    })
}

/// What was done, one text each.
fn repair(
    context: &Context,
    args: &CheckArgs,
    store: &dyn SnapshotStore,
    options: &CheckOptions,
) -> Result<Vec<String>> {
    let from = args.from.as_deref();
    let from = from.map(|from| context.other_repository(from, &args.other));
    let from = from.transpose()?;
    let repaired = store.repair(options, &context.reporter());
    let mut done = repaired.map_err(vrs_engine::Error::from)?;
    if let Some(from) = from {
        let target = context.restic_repository()?;
        let fetched = target.fetch_missing(&from, &context.reporter());
        let fetched = fetched.map_err(vrs_engine::Error::from)?;
        done.push(format!("{fetched} chunks came from {}", from.location()));
    }
    Ok(done)
}
