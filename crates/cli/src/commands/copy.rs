//! `vrs copy`

use vrs_engine::snapshot::Snapshot;
use vrs_repository::SnapshotStore;

use super::lookup;
use crate::args::CopyArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::copy::{CopiedEntry, CopyReport};

pub fn run(context: &Context, args: &CopyArgs) -> Result<Exit> {
    let host = context.host()?;
    let store = context.restic_repository()?;
    let all = lookup::catalog(context, &store)?.snapshots;
    let chosen: Vec<Snapshot> = if args.snapshots.is_empty() {
        all
    } else {
        let wanted = args.snapshots.iter();
        wanted
            .map(|wanted| lookup::snapshot(&host, &all, wanted))
            .collect::<Result<_>>()?
    };
    let target = context.other_repository(&args.to, &args.other)?;
    let ids: Vec<_> = chosen.iter().map(|snapshot| snapshot.id).collect();
    let mut copied = Vec::new();
    let outcome = target.copy_from(&store, &ids, &context.reporter(), |id, done| {
        let snapshot = chosen.iter().find(|snapshot| snapshot.id == *id);
        copied.extend(snapshot.map(|snapshot| CopiedEntry::new(snapshot, done)));
    });
    outcome.map_err(vrs_engine::Error::from)?;
    context.printer.outcome(&CopyReport {
        to: target.location(),
        snapshots: copied,
    })?;
    Ok(Exit::Success)
}
