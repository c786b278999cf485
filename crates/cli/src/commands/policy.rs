//! `vrs policy`

use jiff::tz::TimeZone;
use vrs_engine::policy::{self, Policy};
use vrs_engine::retention::Rules;
use vrs_engine::selection;
use vrs_engine::snapshot::Snapshot;
use vrs_repository::SnapshotStore;
use vrs_virtualbox::MachineId;

use super::lookup;
use crate::args::{PolicyArgs, PolicyCommand, PolicySetArgs};
use crate::context::Context;
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::policy::PolicyReport;

pub fn run(context: &Context, args: &PolicyArgs) -> Result<Exit> {
    let store = context.repository()?;
    let present = policy::load(store.as_ref());
    let snapshots = lookup::catalog(context, store.as_ref())?.snapshots;
    let policy = match &args.command {
        PolicyCommand::Show => present?.unwrap_or_else(new),
        PolicyCommand::Set(args) => {
            // What cannot be read is replaced.
            let policy = set(present.ok().flatten(), &snapshots, args)?;
            save(context, store.as_ref(), policy)?
        }
        PolicyCommand::Remove { machine: None } => save(context, store.as_ref(), new())?,
        PolicyCommand::Remove {
            machine: Some(machine),
        } => {
            let mut policy = present?.unwrap_or_else(new);
            policy.machines.remove(&machine_id(&snapshots, machine)?);
            save(context, store.as_ref(), policy)?
        }
    };
    let report = PolicyReport::new(&policy, &snapshots);
    match args.command {
        PolicyCommand::Show => context.printer.report(&report)?,
        _ => context.printer.outcome(&report)?,
    }
    Ok(Exit::Success)
}

fn new() -> Policy {
    Policy::new(&TimeZone::system())
}

fn set(present: Option<Policy>, snapshots: &[Snapshot], args: &PolicySetArgs) -> Result<Policy> {
    let rules = Rules::from(&args.keep);
    if rules.is_empty() {
        return Err(Error::usage(
            "say what to keep, for example --keep-daily 7 --keep-weekly 5; `vrs policy remove` keeps everything",
        ));
    }
    let mut policy = new();
    if let Some(present) = present {
        policy.repository = present.repository;
        policy.machines = present.machines;
    }
    match &args.machine {
        Some(machine) => {
            policy
                .machines
                .insert(machine_id(snapshots, machine)?, rules);
        }
        None => policy.repository = rules,
    }
    Ok(policy)
}

fn save(context: &Context, store: &dyn SnapshotStore, policy: Policy) -> Result<Policy> {
    let hostname = gethostname::gethostname();
    policy::save(
        store,
        &policy,
        &hostname.to_string_lossy(),
        &context.reporter(),
    )?;
    Ok(policy)
}

/// A machine by a name that a snapshot has, or by its id.
fn machine_id(snapshots: &[Snapshot], wanted: &str) -> Result<MachineId> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let found = selection::of_machine(snapshots, wanted)?;
    let machine = found.first().map(|snapshot| snapshot.machine);
    machine.ok_or_else(|| {
        Error::usage(format!(
            "the repository has no snapshot of a machine '{wanted}'; a machine can be named by its id, too"
        ))
    })
}
