//! Finding what the user names: a snapshot, the snapshots of a machine.

use std::path::Path;

use jiff::tz::TimeZone;
use vrs_engine::catalog::{self, Catalog};
use vrs_engine::machine::Machine;
use vrs_engine::snapshot::Snapshot;
use vrs_engine::{Host, selection};
use vrs_repository::SnapshotStore;

use crate::context::Context;
use crate::errors::Result;

/// The snapshots of the repository. What cannot be read is warned about.
pub fn catalog(context: &Context, store: &dyn SnapshotStore) -> Result<Catalog> {
    let catalog = catalog::snapshots(store)?;
    catalog
        .unreadable
        .iter()
        .for_each(|reason| context.printer.warn(reason));
    Ok(catalog)
}

/// The snapshot that `wanted` names.
pub fn snapshot(host: &Host, snapshots: &[Snapshot], wanted: &str) -> Result<Snapshot> {
    let by_id = match wanted.rsplit_once('@') {
        Some((machine, point)) => format!("{}@{point}", machine_key(host, machine)?),
        None => wanted.to_owned(),
    };
    Ok(selection::select(snapshots, &by_id, &TimeZone::system())?.clone())
}

/// What the engine knows a machine by: its id if it is named by its settings file.
pub fn machine_key(host: &Host, wanted: &str) -> Result<String> {
    let path = Path::new(wanted);
    let is_settings_file = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("vbox"))
        && path.is_file();
    if is_settings_file {
        Ok(Machine::find(host, wanted)?.id.to_string())
    } else {
        Ok(wanted.to_owned())
    }
}
