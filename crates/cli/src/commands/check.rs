//! `vrs check`

use vrs_engine::check;
use vrs_repository::store::CheckOptions;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::check::CheckReport;

pub fn run(context: &Context, args: &CheckArgs) -> Result<Exit> {
    let store = context.repository()?;
    let options = CheckOptions {
        read_data: args.read_data,
    };
    let report = CheckReport::from(check::run(&store, &options, &context.reporter())?);
    context.printer.report(&report)?;
    Ok(match (report.sound, report.warnings.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Warnings,
        (true, true) => Exit::Success,
    })
}
