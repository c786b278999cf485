//! Options of `vrs disk`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub struct DiskArgs {
    #[command(subcommand)]
    pub command: DiskCommand,
}

#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Show the header of an image
    Info(ImageArgs),
    /// Show the chain of a differencing image, down to its base
    Chain(ImageArgs),
    /// Draw which image of the chain supplies which part of the disk
    Map(ImageArgs),
    /// Write the disk as the machine sees it to a new file
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The image
    pub file: PathBuf,

    /// Look for parents among these images instead of in the folder of the image, the one above it
    /// and its folder Snapshots; may be given several times
    #[arg(long = "parent", value_name = "FILE")]
    pub parents: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub image: ImageArgs,

    /// Format of the new file
    #[arg(long, default_value = "raw")]
    pub format: ExportFormat,

    /// The new file; must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A plain, sparse disk
    Raw,
    /// One dynamic VDI without a parent
    Vdi,
}
