//! `vrs clone`

use vrs_engine::clone::{self, CloneOptions};

use super::{lookup, restore};
use crate::args::CloneArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::restore::RestoreReport;

pub fn run(context: &Context, args: &CloneArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let snapshot = lookup::snapshot(&host, &snapshots, &args.snapshot)?;
    let options = CloneOptions {
        name: args.name.clone(),
        into: args.dir.clone(),
        keep_mac_addresses: args.keep_macs,
    };
    let plan = clone::plan(&host, store.as_ref(), &snapshot, &options)?;
    let preview = RestoreReport::from(&plan);
    if args.dry_run {
        let stats = plan.estimate(store.as_ref(), &context.reporter())?;
        context.printer.report(&preview.with_estimate(stats))?;
        return Ok(Exit::Success);
    }
    restore::carry_out(context, &host, store.as_ref(), &plan, preview)
}
