//! `vrs vms`

use vrs_engine::machine::Machine;
use vrs_engine::migrate;
use vrs_engine::snapshot::Snapshot;

use super::lookup;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::machines::{MachineEntry, MachinesReport};
use crate::reports::migrate::MovedEntry;
use crate::reports::snapshot::SnapshotEntry;

pub fn run(context: &Context) -> Result<Exit> {
    let host = context.host_in_order()?;
    let machines = Machine::all(&host)?;
    let snapshots = if context.has_repository() {
        lookup::catalog(context, context.repository()?.as_ref())?.snapshots
    } else {
        Vec::new()
    };
    let machines = machines
        .iter()
        .map(|machine| entry(machine, &snapshots))
        .collect();
    let moved = migrate::moved_machines(&host)?;
    let moved = moved.into_iter().map(MovedEntry::from).collect();
    context
        .printer
        .report(&MachinesReport { machines, moved })?;
    Ok(Exit::Success)
}

fn entry(machine: &Machine, snapshots: &[Snapshot]) -> MachineEntry {
    let last = snapshots
        .iter()
        .rev()
        .find(|snapshot| snapshot.machine == machine.id);
    MachineEntry {
        id: machine.id.to_string(),
        name: machine.name.clone(),
        state: machine.state.to_string(),
        settings_file: machine.settings_file.display().to_string(),
        last_snapshot: last.map(SnapshotEntry::from),
    }
}
