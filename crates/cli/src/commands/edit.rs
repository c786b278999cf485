//! `vrs edit`

use vrs_engine::edit::{self, Changes};

use super::lookup;
use crate::args::EditArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::edit::EditReport;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &EditArgs) -> Result<Exit> {
    let host = context.host()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let snapshot = lookup::snapshot(&host, &snapshots, &args.snapshot)?;
    let changes = Changes {
        pin: (args.pin || args.unpin).then_some(args.pin),
        name: args.name.clone(),
        description: args.description.clone(),
        add_tags: args.add_tags.clone(),
        remove_tags: args.remove_tags.clone(),
    };
    let id = edit::execute(store.as_ref(), &snapshot, &changes, &context.reporter())?;
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let changed = snapshots.iter().find(|present| present.id == id);
    context.printer.outcome(&EditReport {
        former_id: snapshot.id.to_string(),
        snapshot: changed.map(SnapshotEntry::from),
    })?;
    Ok(Exit::Success)
}
