//! `vrs take`

use vrs_engine::Host;
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::preflight::Verdict;
use vrs_engine::recover;
use vrs_engine::take::{self, TakeOptions, TakePlan, Taken};
use vrs_repository::SnapshotStore;

use crate::args::{ModeArgs, TakeArgs};
use crate::context::Context;
use crate::errors::{Error, Failure, Result};
use crate::exit::Exit;
use crate::reports::take::{PlannedEntry, TakeEntry, TakeOutcome, TakeReport, TakenEntry};

pub fn run(context: &Context, args: &TakeArgs) -> Result<Exit> {
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let mut call = Call {
        context,
        host: &host,
        store: store.as_ref(),
        args,
        report: TakeReport {
            machines: Vec::new(),
        },
        exit: Exit::Success,
    };
    match &args.group {
        Some(group) => call.take_group(group)?,
        None => call.take_each()?,
    }
    context.printer.outcome(&call.report)?;
    Ok(call.exit)
}

/// One call of the command, with what came of it so far.
struct Call<'a> {
    context: &'a Context,
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    args: &'a TakeArgs,
    report: TakeReport,
    exit: Exit,
}

impl Call<'_> {
    /// Each machine is on its own: what happens to one does not keep the others from being taken.
    fn take_each(&mut self) -> Result<()> {
        for machine in self.wanted_machines()? {
            let outcome = self.take_one(&machine);
            self.note(machine, outcome);
            if self.exit == Exit::Interrupted {
                break;
            }
        }
        Ok(())
    }

    fn wanted_machines(&self) -> Result<Vec<String>> {
        if !self.args.all {
            return Ok(self.args.machines.clone());
        }
        Ok(Machine::all(self.host)?
            .iter()
            .map(|machine| machine.id.to_string())
            .collect())
    }

    fn take_one(&self, machine: &str) -> Result<TakeOutcome> {
        let plan = self.plan(Machine::find(self.host, machine)?)?;
        if self.args.dry_run {
            return Ok(TakeOutcome::Planned(PlannedEntry::from(&plan)));
        }
        let reporter = self.context.reporter();
        Ok(taken(&take::execute(
            self.host, self.store, &plan, &reporter,
        )?))
    }

    /// All machines of a group or none: one that cannot be taken stops the others before anything
    /// is done.
    fn take_group(&mut self, group: &str) -> Result<()> {
        let machines = Machine::in_group(self.host, group)?;
        if machines.is_empty() {
            return Err(Error::usage(format!(
                "no machine is in the group '{group}'; VirtualBox groups begin with a slash, as in --group /lab"
            )));
        }
        let plans = machines.into_iter().map(|machine| self.plan(machine));
        let plans = plans.collect::<Result<Vec<_>>>()?;
        if self.args.dry_run {
            for plan in &plans {
                let planned = TakeOutcome::Planned(PlannedEntry::from(plan));
                self.note(plan.machine.name.clone(), Ok(planned));
            }
            return Ok(());
        }
        let reporter = self.context.reporter();
        let outcomes = take::execute_together(self.host, self.store, &plans, &reporter)?;
        for (plan, outcome) in plans.iter().zip(outcomes) {
            let outcome = outcome.map(|done| taken(&done)).map_err(Error::from);
            self.note(plan.machine.name.clone(), outcome);
        }
        Ok(())
    }

    fn plan(&self, machine: Machine) -> Result<TakePlan> {
        let machine = self.let_go(machine)?;
        let options = TakeOptions {
            mode: mode(&self.args.mode),
            strict: self.args.strict,
            skip_disks: self.args.skip_disks.clone(),
            force: self.args.force.clone(),
            name: self.args.name.clone(),
            description: self.args.description.clone(),
            tags: self.args.tags.clone(),
            force_read: self.args.force_read,
            track: self.context.tracks(&machine),
            migration: None,
        };
        let mut plan = TakePlan::make(self.host, self.store, &machine, options)?;
        if self.args.dry_run {
            plan = plan.foresee(self.host, self.store);
        }
        if let Some(advice) = plan.advice() {
            self.context.printer.note(&advice);
        }
        Ok(plan)
    }

    /// What an earlier run left of a capture is undone before anything is planned.
    fn let_go(&self, machine: Machine) -> Result<Machine> {
        let reporter = self.context.reporter();
        if self.args.dry_run || !recover::release_before_take(self.host, &machine, &reporter)? {
            return Ok(machine);
        }
        drop(reporter);
        self.context
            .printer
            .note("an earlier capture of it was undone first");
        Ok(machine.again(self.host)?)
    }

    /// What a plan would show, of a machine for which there can be none.
    fn planned_refusals(&self, error: &Error) -> Vec<Verdict> {
        let engine = error.engine().filter(|_| self.args.dry_run);
        engine.map(vrs_engine::Error::refusals).unwrap_or_default()
    }

    fn note(&mut self, machine: String, outcome: Result<TakeOutcome>) {
        let outcome = outcome.unwrap_or_else(|error| {
            self.exit = self.exit.max(error.exit());
            let failure = Failure::new(&error, self.context.is_verbose());
            self.context.printer.failure(&failure);
            TakeOutcome::Failed {
                error: failure,
                verdicts: self.planned_refusals(&error),
            }
        });
        self.report.machines.push(TakeEntry { machine, outcome });
    }
}

fn taken(taken: &Taken) -> TakeOutcome {
    TakeOutcome::Taken(TakenEntry::from(taken))
}

fn mode(args: &ModeArgs) -> Option<CaptureMode> {
    let modes = [
        (args.memory, CaptureMode::Memory),
        (args.live, CaptureMode::Live),
        (args.disks_only, CaptureMode::DisksOnly),
        (args.savestate, CaptureMode::SaveState),
    ];
    modes
        .into_iter()
        .find_map(|(wanted, mode)| wanted.then_some(mode))
}
