//! Checking a repository, and saying what damage means for machines.

use std::ops::Range;

use vrs_progress::Progress;
use vrs_repository::store::{CheckOptions, SnapshotStore};

use crate::catalog;
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Damage. Empty means that every snapshot can be restored.
    pub errors: Vec<String>,
    /// Harmless oddities.
    pub warnings: Vec<String>,
    /// Snapshots that cannot be restored completely.
    pub damaged: Vec<Snapshot>,
    /// What of them is lost.
    pub losses: Vec<MachineLoss>,
    /// How many snapshots were looked at.
    pub snapshots: usize,
}

/// A file of a machine of which something is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineLoss {
    /// The snapshot, which names the machine.
    pub snapshot: Snapshot,
    /// The file or folder, as the snapshot names it; empty for everything.
    pub path: String,
    /// Which bytes of the file. None: all of it.
    pub ranges: Vec<Range<u64>>,
}

/// Verifies the repository and every snapshot's manifest.
pub fn run(
    store: &dyn SnapshotStore,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<Health> {
    let report = store.check(options, progress)?;
    let catalog = catalog::snapshots(store)?;
    let mut health = Health {
        errors: report.errors,
        warnings: report.warnings,
        snapshots: catalog.snapshots.len(),
        ..Health::default()
    };
    for snapshot in catalog.snapshots {
        let losses = report
            .losses
            .iter()
            .filter(|loss| loss.snapshot == snapshot.id);
        health.losses.extend(losses.map(|loss| MachineLoss {
            snapshot: snapshot.clone(),
            path: loss.path.clone(),
            ranges: loss.ranges.clone(),
        }));
        if report.damaged_snapshots.contains(&snapshot.id)
            || !has_manifest(store, &snapshot, &mut health)
        {
            health.damaged.push(snapshot);
        }
    }
    Ok(health)
}

fn has_manifest(store: &dyn SnapshotStore, snapshot: &Snapshot, health: &mut Health) -> bool {
    match catalog::manifest(store, &snapshot.id) {
        Ok(_) => true,
        Err(error @ Error::NewerManifest { .. }) => {
            health.warnings.push(error.to_string());
            true
        }
        Err(error) => {
            health.errors.push(error.to_string());
            false
        }
    }
}
