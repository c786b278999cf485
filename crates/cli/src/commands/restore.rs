//! `vrs restore`

use vrs_engine::journal::{Intent, Unfinished};
use vrs_engine::machine::Machine;
use vrs_engine::portability;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan, Restored};
use vrs_engine::snapshot::Snapshot;
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_engine::{ErrorKind, Host};
use vrs_repository::SnapshotStore;
use vrs_virtualbox::Frontend;

use super::{lookup, recover};
use crate::args::{RestoreArgs, StartFrontend};
use crate::context::Context;
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::recover::{OperationEntry, RecoverOutcome, RecoverReport};
use crate::reports::restore::{RestoreReport, RestoreSetReport};

pub fn run(context: &Context, args: &RestoreArgs) -> Result<Exit> {
    context.require_consent(args.yes || args.dry_run)?;
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let all = lookup::catalog(context, store.as_ref())?.snapshots;
    let snapshots = wanted_snapshots(&host, &all, args)?;
    let call = Call {
        context,
        host: &host,
        store: store.as_ref(),
        all: &all,
        args,
    };
    match snapshots.as_slice() {
        [snapshot] => call.restore_one(snapshot),
        _ => call.restore_set(&snapshots),
    }
}

fn wanted_snapshots(host: &Host, all: &[Snapshot], args: &RestoreArgs) -> Result<Vec<Snapshot>> {
    let named = lookup::snapshot(host, all, &args.snapshot)?;
    if !args.set {
        return Ok(vec![named]);
    }
    if named.set.is_none() {
        return Err(Error::usage(format!(
            "snapshot {} belongs to no snapshot set; `vrs take --group` makes one",
            named.id.short()
        )));
    }
    let of_set = all.iter().filter(|snapshot| snapshot.set == named.set);
    Ok(of_set.cloned().collect())
}

/// One call of the command.
struct Call<'a> {
    context: &'a Context,
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    /// All snapshots, the oldest first.
    all: &'a [Snapshot],
    args: &'a RestoreArgs,
}

impl Call<'_> {
    fn restore_one(&self, snapshot: &Snapshot) -> Result<Exit> {
        let Self { context, args, .. } = *self;
        if let Some(finished) = self.finish_the_same(snapshot)? {
            context.printer.outcome(&finished)?;
            return Ok(Exit::Success);
        }
        let plan = self.plan(snapshot)?;
        let preview = preview(context, self.store, &plan, args.yes && !args.dry_run)?;
        if args.dry_run {
            context.printer.report(&preview)?;
            return Ok(Exit::Success);
        }
        refuse(&plan)?;
        context.confirm(&preview, "Restore it like this?", args.yes)?;
        let report = self.carry_out(&plan, preview)?;
        context.printer.outcome(&report)?;
        Ok(Exit::Success)
    }

    /// All machines or none: what stands against one of them is found before the first is touched.
    fn restore_set(&self, snapshots: &[Snapshot]) -> Result<Exit> {
        let Self { context, args, .. } = *self;
        let mut plans = Vec::with_capacity(snapshots.len());
        let mut set = RestoreSetReport::default();
        for snapshot in snapshots {
            let plan = self.plan(snapshot)?;
            set.machines.push(preview(
                context,
                self.store,
                &plan,
                args.yes && !args.dry_run,
            )?);
            plans.push(plan);
        }
        if args.dry_run {
            context.printer.report(&set)?;
            return Ok(Exit::Success);
        }
        plans.iter().try_for_each(refuse)?;
        context.confirm(&set, "Restore them like this?", args.yes)?;
        let mut done = RestoreSetReport::default();
        for (plan, preview) in plans.iter().zip(set.machines) {
            done.machines.push(self.carry_out(plan, preview)?);
        }
        context.printer.outcome(&done)?;
        Ok(Exit::Success)
    }

    fn plan(&self, snapshot: &Snapshot) -> Result<RestorePlan> {
        let options = RestoreOptions {
            power_off: self.args.poweroff,
            into: self.args.into.clone(),
            cold: self.args.cold,
            force: self.args.force.clone(),
            last_taken: restore::last_taken_here(self.host, self.all, snapshot.machine)
                .filter(|_| !self.args.force_read),
            ..RestoreOptions::default()
        };
        let reporter = self.context.reporter();
        Ok(RestorePlan::make(
            self.host, self.store, snapshot, &options, &reporter,
        )?)
    }

    fn carry_out(&self, plan: &RestorePlan, preview: RestoreReport) -> Result<RestoreReport> {
        let before = self.args.before.as_ref();
        let before = before
            .map(|name| take_before(self.context, self.host, self.store, plan, name))
            .transpose()?;
        let reporter = self.context.reporter();
        let restored = execute(self.context, self.host, self.store, plan)?;
        if let Some(frontend) = self.args.start {
            restore::start(self.host, plan, frontend.into(), &reporter)?;
        }
        Ok(RestoreReport { before, ..preview }.done(restored.stats))
    }

    /// Finishes the restore of the same snapshot that an earlier run began, if there is one and it
    /// had changed something.
    fn finish_the_same(&self, snapshot: &Snapshot) -> Result<Option<RecoverReport>> {
        if self.args.dry_run {
            return Ok(None);
        }
        let is_the_same = |unfinished: &Unfinished| match &unfinished.intent {
            Intent::Restore(intent) => {
                !intent.is_clone && intent.snapshot == snapshot.id.to_string()
            }
            _ => false,
        };
        let owed = vrs_engine::recover::owed(self.host)?;
        let Some(unfinished) = owed.into_iter().find(is_the_same) else {
            return Ok(None);
        };
        match recover::finish_from(self.context, self.host, self.store, &unfinished)? {
            RecoverOutcome::Dropped => Ok(None),
            outcome => Ok(Some(RecoverReport {
                operations: vec![OperationEntry::new(&unfinished, outcome)],
            })),
        }
    }
}

/// The plan and, if somebody is going to look at it, what it will cost.
pub fn preview(
    context: &Context,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    is_unseen: bool,
) -> Result<RestoreReport> {
    let report = RestoreReport::from(plan);
    if is_unseen {
        return Ok(report);
    }
    let stats = plan.estimate(store, &context.reporter())?;
    Ok(report.with_estimate(stats))
}

/// Stops before anybody is asked about something that will not be done.
pub fn refuse(plan: &RestorePlan) -> Result<()> {
    let name = &plan.intent.machine_name;
    Ok(portability::refuse(name, &plan.portability)?)
}

/// Keeps the state that the restore is going to replace.
fn take_before(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    name: &str,
) -> Result<String> {
    let machine = present_machine(host, plan)?;
    let options = TakeOptions {
        name: Some(name.to_owned()),
        ..TakeOptions::default()
    };
    let take_plan = TakePlan::make(host, store, &machine, options)?;
    let taken = take::execute(host, store, &take_plan, &context.reporter())?;
    context.printer.note(&format!(
        "kept the present state as snapshot {} ('{name}')",
        taken.id.short()
    ));
    Ok(taken.id.to_string())
}

fn present_machine(host: &Host, plan: &RestorePlan) -> Result<Machine> {
    if let Some(machine) = Machine::registered(host, plan.intent.machine)? {
        return Ok(machine);
    }
    let settings_file = &plan.intent.settings_file;
    match settings_file.to_str() {
        Some(path) if settings_file.is_file() => Ok(Machine::find(host, path)?),
        _ => Err(Error::usage(
            "--before makes no sense here: the machine is not on this computer now",
        )),
    }
}

/// Does what was planned, and tells.
pub fn carry_out(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
    report: RestoreReport,
) -> Result<Exit> {
    let restored = execute(context, host, store, plan)?;
    context.printer.outcome(&report.done(restored.stats))?;
    Ok(Exit::Success)
}

/// Does what was planned, or says what is owed then.
pub fn execute(
    context: &Context,
    host: &Host,
    store: &dyn SnapshotStore,
    plan: &RestorePlan,
) -> Result<Restored> {
    let restored = restore::execute(host, store, plan, &context.reporter());
    Ok(restored.inspect_err(|error| {
        // An older one was told at the start. What went wrong now is told in any case.
        if error.kind() != ErrorKind::NeedsRecovery {
            let owed = host.journals().of_machine(plan.intent.machine);
            context.tell_owed(owed.ok().flatten().as_slice());
        }
    })?)
}

impl From<StartFrontend> for Frontend {
    fn from(frontend: StartFrontend) -> Self {
        match frontend {
            StartFrontend::Gui => Self::Gui,
            StartFrontend::Headless => Self::Headless,
        }
    }
}
