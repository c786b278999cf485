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
    let reporter = context.reporter();
    let report = CheckReport::from(check::run(&store, &options, &reporter)?);
    let warnings = reporter.warnings();
    drop(reporter);
    context.printer.report(&report)?;
    if !report.sound {
        return Ok(Exit::Failed);
    }
    Ok(if report.warnings.is_empty() {
        Exit::with_warnings(warnings)
    } else {
        Exit::Warnings
    })
}
