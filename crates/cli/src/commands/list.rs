//! `vrs list`

use vrs_engine::selection;

use super::lookup;
use crate::args::ListArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::list::ListReport;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &ListArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let catalog = lookup::catalog(context, store.as_ref())?;
    let snapshots = match &args.machine {
        Some(machine) => {
            selection::of_machine(&catalog.snapshots, &lookup::machine_key(&host, machine)?)?
        }
        None => catalog.snapshots.iter().collect(),
    };
    let report = ListReport {
        snapshots: snapshots.into_iter().map(SnapshotEntry::from).collect(),
        unreadable: catalog.unreadable,
    };
    context.printer.report(&report)?;
    Ok(Exit::Success)
}
