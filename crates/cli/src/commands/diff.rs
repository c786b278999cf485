//! `vrs diff`

use vrs_engine::diff::diff;

use super::lookup;
use crate::args::DiffArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::diff::DiffReport;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &DiffArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let from = lookup::snapshot(&host, &snapshots, &args.from)?;
    let to = lookup::snapshot(&host, &snapshots, &args.to)?;
    let report = DiffReport {
        from: SnapshotEntry::from(&from),
        to: SnapshotEntry::from(&to),
        diff: diff(store.as_ref(), &from.id, &to.id)?,
    };
    context.printer.report(&report)?;
    Ok(Exit::Success)
}
