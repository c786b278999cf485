//! `vrs migrate`

use vrs_engine::machine::Machine;
use vrs_engine::migrate::{self, AcceptPlan, MigrateOptions, MigratePlan};
use vrs_engine::restore::{self, RestoreOptions};
use vrs_engine::snapshot::Snapshot;
use vrs_engine::{Host, recover, selection};
use vrs_repository::SnapshotStore;

use super::{lookup, restore as restoring};
use crate::args::MigrateArgs;
use crate::context::Context;
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::migrate::MigrateReport;

pub fn run(context: &Context, args: &MigrateArgs) -> Result<Exit> {
    context.require_consent(args.yes || args.dry_run)?;
    let host = context.host_in_order()?;
    let store = context.repository()?;
    let call = Call {
        context,
        host: &host,
        store: store.as_ref(),
        args,
    };
    if args.accept {
        call.accept()
    } else {
        call.send()
    }
}

/// One call of the command.
struct Call<'a> {
    context: &'a Context,
    host: &'a Host,
    store: &'a dyn SnapshotStore,
    args: &'a MigrateArgs,
}

impl Call<'_> {
    fn send(&self) -> Result<Exit> {
        let Self { context, args, .. } = *self;
        let mut machine = Machine::find(self.host, &args.subject)?;
        if !args.dry_run {
            // What an earlier run left of a capture is undone before anything is planned.
            recover::release_before_take(self.host, &machine, &context.reporter())?;
            machine = machine.again(self.host)?;
        }
        let to = self.origin(&machine)?;
        let options = MigrateOptions {
            name: args.name.clone(),
            description: args.description.clone(),
        };
        let plan = MigratePlan::make(self.host, self.store, &machine, options)?;
        for note in &plan.notes {
            context.printer.note(note);
        }
        let report = MigrateReport::planned(&plan, to);
        if args.dry_run {
            context.printer.report(&report)?;
            return Ok(Exit::Success);
        }
        context.confirm(&report, "Move it like this?", args.yes)?;
        let done = migrate::execute(self.host, self.store, &plan, &context.reporter())?;
        context.printer.outcome(&report.done(&done))?;
        Ok(Exit::Success)
    }

    /// The computer that a machine goes back to.
    fn origin(&self, machine: &Machine) -> Result<Option<String>> {
        if !self.args.back {
            return Ok(None);
        }
        let accepted = migrate::accepted_here(self.host, machine)?.ok_or_else(|| {
            Error::usage(format!(
                "machine '{}' was not taken over from another computer; `vrs migrate` without --return moves it",
                machine.name
            ))
        })?;
        Ok(Some(accepted.from))
    }

    fn accept(&self) -> Result<Exit> {
        let Self { context, args, .. } = *self;
        let snapshots = lookup::catalog(context, self.store)?.snapshots;
        let snapshot = self.on_its_way(&snapshots)?;
        let options = RestoreOptions {
            into: args.into.clone(),
            cold: args.cold,
            force: args.force.clone(),
            ..RestoreOptions::default()
        };
        let reporter = context.reporter();
        let plan = AcceptPlan::make(
            self.host, self.store, &snapshots, &snapshot, &options, &reporter,
        )?
        .restore;
        let is_unseen = args.yes && !args.dry_run;
        let preview = restoring::preview(context, self.store, &plan, is_unseen)?;
        if args.dry_run {
            context.printer.report(&preview)?;
            return Ok(Exit::Success);
        }
        restoring::refuse(&plan)?;
        context.confirm(&preview, "Take it over like this?", args.yes)?;
        let restored = restoring::execute(context, self.host, self.store, &plan)?;
        if let Some(frontend) = args.start {
            restore::start(self.host, &plan, frontend.into(), &reporter)?;
        }
        context.printer.outcome(&preview.done(restored.stats))?;
        Ok(Exit::Success)
    }

    /// The snapshot that is named, or the one that the machine moved into last.
    fn on_its_way(&self, snapshots: &[Snapshot]) -> Result<Snapshot> {
        let wanted = &self.args.subject;
        let key = lookup::machine_key(self.host, wanted)?;
        let of_machine = selection::of_machine(snapshots, &key)?;
        if of_machine.is_empty() {
            return lookup::snapshot(self.host, snapshots, wanted);
        }
        migrate::latest(&of_machine).cloned().ok_or_else(|| {
            Error::usage(format!(
                "the last snapshot of machine '{wanted}' is not one that it moved into; `vrs list` shows what there is"
            ))
        })
    }
}
