//! `vrs show`

use vrs_engine::catalog;

use super::lookup;
use crate::args::ShowArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::show::ShowReport;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let snapshot = lookup::snapshot(&host, &snapshots, &args.snapshot)?;
    let manifest = catalog::manifest(store.as_ref(), &snapshot.id)?;
    context.printer.report(&ShowReport {
        snapshot: SnapshotEntry::from(&snapshot),
        manifest,
    })?;
    Ok(Exit::Success)
}
