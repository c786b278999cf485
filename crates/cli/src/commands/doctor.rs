//! `vrs doctor`

use vrs_engine::Host;
use vrs_engine::doctor::{self, Examination, Finding, RepairPlan, Scope};
use vrs_repository::SnapshotStore;

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::errors::{Error, Failure, Result};
use crate::exit::Exit;
use crate::reports::doctor::{DoctorReport, FindingEntry};

pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit> {
    let changes = args.repair && !args.dry_run;
    context.require_consent(args.yes || !changes)?;
    let host = context.host()?;
    if changes {
        context.sweep(&host);
    }
    let repository = open_repository(context)?;
    let visit = Visit {
        context,
        host: &host,
        store: repository.as_deref(),
        args,
    };
    let examination = visit.examine()?;
    visit.refuse_what_is_not_found(&examination)?;
    let mut report = DoctorReport::new(&examination, whose_virtualbox(&host));
    let chosen = examination
        .findings
        .iter()
        .any(|finding| visit.is_chosen(finding));
    if !changes || !chosen {
        context.printer.report(&report)?;
        return Ok(exit_of(&report));
    }
    context.confirm(&report, "Repair it like this?", args.yes)?;
    let exit = visit.repair(&examination.findings, &mut report.findings);
    if exit != Exit::Interrupted {
        visit.look_again(&examination, &mut report)?;
    }
    context.printer.outcome(&report)?;
    Ok(exit.max(exit_of(&report)))
}

/// The repository is optional here, but one that was named must open.
fn open_repository(context: &Context) -> Result<Option<Box<dyn SnapshotStore>>> {
    context
        .has_repository()
        .then(|| context.repository())
        .transpose()
}

/// Everything around one examination.
struct Visit<'a> {
    context: &'a Context,
    host: &'a Host,
    store: Option<&'a dyn SnapshotStore>,
    args: &'a DoctorArgs,
}

impl Visit<'_> {
    fn examine(&self) -> Result<Examination> {
        let scope = match &self.args.machine {
            Some(machine) => Scope::Machine(machine.clone()),
            None => Scope::All,
        };
        Ok(doctor::examine(
            self.host,
            self.store,
            &scope,
            &self.context.reporter(),
        )?)
    }

    /// Whoever allows a thing has looked at it: if it is not there, something else is meant.
    fn refuse_what_is_not_found(&self, examination: &Examination) -> Result<()> {
        let keys: Vec<&str> = examination
            .findings
            .iter()
            .filter_map(|finding| Some(finding.plan()?.consent.as_ref()?.key.as_str()))
            .collect();
        let mut allowed = self.args.allow.iter();
        match allowed.find(|allowed| !keys.contains(&allowed.as_str())) {
            Some(unknown) => Err(Error::usage(format!(
                "there is no repair that --allow {unknown} could mean; `vrs doctor` shows what there is"
            ))),
            None => Ok(()),
        }
    }

    fn is_chosen(&self, finding: &Finding) -> bool {
        let is_allowed = |plan: &RepairPlan| match &plan.consent {
            Some(consent) => self.args.allow.contains(&consent.key),
            None => true,
        };
        finding.plan().is_some_and(is_allowed)
    }

    /// Carries the chosen repairs out one by one; one that fails does not stop the others.
    fn repair(&self, findings: &[Finding], entries: &mut [FindingEntry]) -> Exit {
        let mut worst = Exit::Success;
        for (finding, entry) in findings.iter().zip(entries) {
            if !self.is_chosen(finding) {
                continue;
            }
            let repaired =
                doctor::execute(self.host, self.store, finding, &self.context.reporter());
            match repaired {
                Ok(repaired) => entry.set_repaired(&repaired),
                Err(error) => {
                    let error = Error::from(error);
                    worst = worst.max(error.exit());
                    let failure = Failure::new(&error, self.context.is_verbose());
                    self.context.printer.failure(&failure);
                    entry.set_failed(failure);
                }
            }
            if worst == Exit::Interrupted {
                break;
            }
        }
        worst
    }

    /// A machine that opens again may show what could not be seen before, and what came from something
    /// that was repaired is gone with it.
    fn look_again(&self, before: &Examination, report: &mut DoctorReport) -> Result<()> {
        let is_new = |finding: &&Finding| {
            let mut known = before.findings.iter();
            !known.any(|known| known.is_same_as(finding))
        };
        let now = self.examine()?;
        for (finding, entry) in before.findings.iter().zip(&mut report.findings) {
            if !now.findings.iter().any(|found| found.is_same_as(finding)) {
                entry.set_gone();
            }
        }
        let new = now.findings.iter().filter(is_new).map(FindingEntry::from);
        report.findings.extend(new);
        Ok(())
    }
}

fn exit_of(report: &DoctorReport) -> Exit {
    if report.is_in_order() {
        Exit::Success
    } else {
        Exit::NeedsRecovery
    }
}

/// Whose machines these are: VirtualBox keeps a registry for each user, and for each folder that
/// this variable names.
fn whose_virtualbox(host: &Host) -> String {
    let Ok(virtualbox) = &host.virtualbox else {
        return "no VirtualBox".to_owned();
    };
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME"));
    let home = std::env::var("VBOX_USER_HOME");
    let of_user = user.map_or_else(|_| String::new(), |user| format!(" of user {user}"));
    let in_home = home.map_or_else(|_| String::new(), |home| format!(", VBOX_USER_HOME={home}"));
    format!("VirtualBox {}{of_user}{in_home}", virtualbox.version())
}
