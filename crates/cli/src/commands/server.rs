//! `vrs server`

use std::path::{Path, PathBuf};

use vrs_engine::retention::Rules;
use vrs_engine::server::{InstallPlan, Installed, Scope, Service, Systemctl, TimerState};

use crate::args::{ServerArgs, ServerCommand, ServerInstallArgs, ServerPlaceArgs};
use crate::context::{self, Context};
use crate::errors::{Error, Result};
use crate::exit::Exit;
use crate::reports::server::{ServerReport, UnitsReport};

const SYSTEM_UNITS: &str = "/etc/systemd/system";

pub fn run(context: &Context, args: &ServerArgs) -> Result<Exit> {
    match &args.command {
        ServerCommand::Install(args) => install(context, args),
        ServerCommand::Status(args) => status(context, args),
        ServerCommand::Uninstall { place, dry_run } => uninstall(context, place, *dry_run),
    }
}

fn install(context: &Context, args: &ServerInstallArgs) -> Result<Exit> {
    let (place, service) = (Place::of(context, &args.place)?, service(context, args)?);
    let plan = InstallPlan::make(&service)?;
    // Whatever keeps the services from opening it should show now.
    context.repository()?;
    if args.dry_run {
        context
            .printer
            .report(&UnitsReport::planned(&plan, &place.folder))?;
        return Ok(Exit::Success);
    }
    let Some(systemctl) = &place.systemctl else {
        plan.write(&place.folder)?;
        context
            .printer
            .outcome(&UnitsReport::written(&plan, &place.folder))?;
        return Ok(Exit::Success);
    };
    let states = plan.execute(&place.folder, systemctl)?;
    context.printer.outcome(&ServerReport::new(&states))?;
    Ok(Exit::Success)
}

fn status(context: &Context, args: &ServerPlaceArgs) -> Result<Exit> {
    let place = Place::of(context, args)?;
    let installed = Installed::find(&context.repository_folder()?, &place.folder)?;
    let Some(systemctl) = &place.systemctl else {
        context
            .printer
            .report(&UnitsReport::found(&installed.files))?;
        return Ok(Exit::Success);
    };
    let states = installed.states(systemctl)?;
    context.printer.report(&ServerReport::new(&states))?;
    let is_well = |state: &TimerState| state.is_active() && !state.has_failed();
    Ok(if !states.is_empty() && states.iter().all(is_well) {
        Exit::Success
    } else {
        Exit::Failed
    })
}

fn uninstall(context: &Context, args: &ServerPlaceArgs, dry_run: bool) -> Result<Exit> {
    let place = Place::of(context, args)?;
    let installed = Installed::find(&context.repository_folder()?, &place.folder)?;
    if dry_run {
        context
            .printer
            .report(&UnitsReport::found(&installed.files))?;
        return Ok(Exit::Success);
    }
    match &place.systemctl {
        Some(systemctl) => installed.execute(systemctl)?,
        None => installed.remove()?,
    }
    context
        .printer
        .outcome(&UnitsReport::removed(&installed.files))?;
    Ok(Exit::Success)
}

/// Where units are, and who is told of them.
struct Place {
    folder: PathBuf,
    systemctl: Option<Systemctl>,
}

impl Place {
    fn of(context: &Context, args: &ServerPlaceArgs) -> Result<Self> {
        if let Some(folder) = &args.units {
            return Ok(Self {
                folder: context::absolute_path(folder),
                systemctl: None,
            });
        }
        let folder = match scope(args) {
            Scope::System => Path::new(SYSTEM_UNITS).to_owned(),
            Scope::User => context.user_units()?,
        };
        Ok(Self {
            folder,
            systemctl: Some(Systemctl {
                scope: scope(args),
                secret_variables: context::secret_variables().map(Into::into).collect(),
            }),
        })
    }
}

const fn scope(args: &ServerPlaceArgs) -> Scope {
    if args.user {
        Scope::User
    } else {
        Scope::System
    }
}

fn service(context: &Context, args: &ServerInstallArgs) -> Result<Service> {
    let rules = Rules::from(&args.keep);
    let counts = !rules.is_empty() || args.ignore_policy;
    let program = std::env::current_exe().map_err(|source| Error::NoProgram { source })?;
    Ok(Service {
        scope: scope(&args.place),
        program,
        repository: context.repository_folder()?,
        password_file: context.password_file()?,
        rules: counts.then_some(rules),
        prune_at: args.prune_at.clone(),
        check_at: args.check_at.clone(),
        check_percent: args.read_data,
    })
}
