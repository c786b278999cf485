//! `vrs diff`

use vrs_engine::catalog;
use vrs_engine::manifest::Manifest;
use vrs_repository::SnapshotStore;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{TreePath, read_to_vec};

use super::lookup;
use crate::args::DiffArgs;
use crate::context::Context;
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::diff::{DiffReport, file_changes, line_changes};
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context, args: &DiffArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let snapshots = lookup::catalog(context, &store)?.snapshots;
    let from = lookup::snapshot(&host, &snapshots, &args.from)?;
    let to = lookup::snapshot(&host, &snapshots, &args.to)?;
    let manifests = (
        catalog::manifest(&store, &from.id)?,
        catalog::manifest(&store, &to.id)?,
    );
    let report = DiffReport {
        from: SnapshotEntry::from(&from),
        to: SnapshotEntry::from(&to),
        files: file_changes(&manifests.0, &manifests.1),
        settings: line_changes(
            &settings(&store, &from.id, &manifests.0)?,
            &settings(&store, &to.id, &manifests.1)?,
        ),
    };
    context.printer.report(&report)?;
    Ok(Exit::Success)
}

/// The settings as they were on the host.
fn settings(
    store: &dyn SnapshotStore,
    snapshot: &SnapshotId,
    manifest: &Manifest,
) -> Result<String> {
    let path = manifest
        .original_settings
        .as_ref()
        .unwrap_or(&manifest.settings);
    let path = TreePath::new(path.as_str()).map_err(|error| Error::usage(error.to_string()))?;
    let mut file = store
        .open_file(snapshot, &path)
        .map_err(vrs_engine::Error::from)?;
    let text = read_to_vec(file.as_mut(), MAX_SETTINGS_BYTES).map_err(vrs_engine::Error::from)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// More than VirtualBox itself would read.
const MAX_SETTINGS_BYTES: u64 = 16 << 20;
