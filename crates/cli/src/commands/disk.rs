//! `vrs disk`

use vrs_vdisk::{Chain, ExportFormat, GuestDisk, ImageFormat, VdiImage};

use crate::args::{self, DiskArgs, DiskCommand, ExportArgs, ImageArgs};
use crate::context::Context;
use crate::errors::Result;
use crate::exit::Exit;
use crate::reports::disk::{ChainReport, ExportReport, InfoReport};
use crate::reports::disk_map::MapReport;

pub fn run(context: &Context, args: &DiskArgs) -> Result<Exit> {
    match &args.command {
        DiskCommand::Info(args) => info(context, args),
        DiskCommand::Chain(args) => chain(context, args),
        DiskCommand::Map(args) => map(context, args),
        DiskCommand::Export(args) => export(context, args),
    }
}

fn info(context: &Context, args: &ImageArgs) -> Result<Exit> {
    let format = ImageFormat::probe(&args.file).map_err(image_error)?;
    let image = VdiImage::open(&args.file).map_err(image_error)?;
    let report = InfoReport::new(&image, format);
    context.printer.report(&report)?;
    let is_sound = report.block_map.findings_total == 0;
    Ok(if is_sound {
        Exit::Success
    } else {
        Exit::Warnings
    })
}

fn chain(context: &Context, args: &ImageArgs) -> Result<Exit> {
    context
        .printer
        .report(&ChainReport::from(&resolve(args)?))?;
    Ok(Exit::Success)
}

fn map(context: &Context, args: &ImageArgs) -> Result<Exit> {
    let disk = GuestDisk::open(&resolve(args)?).map_err(image_error)?;
    context
        .printer
        .report(&MapReport::new(&disk, context.printer.width()))?;
    Ok(Exit::Success)
}

fn export(context: &Context, args: &ExportArgs) -> Result<Exit> {
    let disk = GuestDisk::open(&resolve(&args.image)?).map_err(image_error)?;
    let format = match args.format {
        args::ExportFormat::Raw => ExportFormat::Raw,
        args::ExportFormat::Vdi => ExportFormat::Vdi,
    };
    vrs_vdisk::export(&disk, &args.output, format, &context.reporter()).map_err(image_error)?;
    context.printer.outcome(&ExportReport::new(&disk, args))?;
    Ok(Exit::Success)
}

fn resolve(args: &ImageArgs) -> Result<Chain> {
    Ok(Chain::resolve(&args.file, &args.parents).map_err(image_error)?)
}

fn image_error(error: vrs_vdisk::Error) -> vrs_engine::Error {
    vrs_engine::Error::from(error)
}
