//! `vrs init`

use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::init::InitReport;

pub fn run(context: &Context) -> Result<Exit> {
    let location = context.init_repository()?;
    context.printer.outcome(&InitReport { location })?;
    Ok(Exit::Success)
}
