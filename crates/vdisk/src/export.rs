//! Writing a guest disk into one file of its own.
//!
//! The target appears under its name only when it is complete and durable; a failed or interrupted
//! export leaves nothing behind. Runs of zeros are not written, so that the target is sparse.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use tempfile::TempPath;
use uuid::Uuid;
use vrs_progress::{Counter, Phase, Progress};

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::guest_disk::GuestDisk;
use crate::platform;
use crate::vdi::{VdiCreate, VdiVariant, VdiWriter, is_zero};

/// What to export a disk as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// The plain bytes of the disk.
    Raw,
    /// A dynamic VDI base image with a new UUID.
    Vdi,
}

/// Copied at once, and looked at for an interruption in between.
const BUFFER_BYTES: usize = 1 << 20;
/// Zeros are left out in units of this size, which is what file systems store.
const PAGE_BYTES: usize = 4096;

/// Writes `disk` to the new file `target`.
///
/// # Errors
/// [`Error::Exists`] if there is such a file; [`Error::Interrupted`]; what reading `disk` gives;
/// [`Error::Io`].
pub fn export(
    disk: &GuestDisk,
    target: &Path,
    format: ExportFormat,
    progress: &dyn Progress,
) -> Result<()> {
    if target.symlink_metadata().is_ok() {
        return Err(Error::Exists {
            path: target.to_path_buf(),
        });
    }
    progress.phase(Phase {
        name: "exporting",
        subject: target.display().to_string(),
        total_bytes: Some(disk.capacity_bytes()),
    });
    progress.step("export-create");
    let partial = partial_path(target)?;
    let mut sink = Sink::create(&partial, disk, format)?;
    copy(disk, target, &mut sink, progress)?;
    sink.finish(&partial)?;
    progress.step("export-rename");
    publish(partial, target)
}

fn copy(disk: &GuestDisk, target: &Path, sink: &mut Sink, progress: &dyn Progress) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    for extent in disk.extents() {
        if extent.kind == ExtentKind::Data {
            copy_extent(disk, &extent, &mut buffer, target, sink, progress)?;
        } else {
            progress.add(Counter::Scanned, extent.length_bytes);
        }
    }
    Ok(())
}

fn copy_extent(
    disk: &GuestDisk,
    extent: &Extent,
    buffer: &mut [u8],
    target: &Path,
    sink: &mut Sink,
    progress: &dyn Progress,
) -> Result<()> {
    let mut done_bytes = 0_u64;
    while done_bytes < extent.length_bytes {
        if progress.interrupted() {
            return Err(Error::Interrupted {
                path: target.to_path_buf(),
            });
        }
        let left_bytes = extent.length_bytes.saturating_sub(done_bytes);
        let length = usize::try_from(left_bytes)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (piece, _) = buffer.split_at_mut_checked(length).unwrap_or_default();
        let offset_bytes = extent.offset_bytes.saturating_add(done_bytes);
        disk.read_at(offset_bytes, piece)?;
        write_non_zero(sink, offset_bytes, piece)?;
        progress.add(Counter::Scanned, piece.len() as u64);
        done_bytes = done_bytes.saturating_add(piece.len() as u64);
    }
    Ok(())
}

/// Writes `bytes` except for its zero pages, each run of others in one piece.
fn write_non_zero(sink: &mut Sink, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
    let pages: Vec<bool> = bytes.chunks(PAGE_BYTES).map(is_zero).collect();
    let mut offset_bytes = offset_bytes;
    let mut rest = bytes;
    for run in pages.chunk_by(|left, right| left == right) {
        let length = run.len().saturating_mul(PAGE_BYTES);
        let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if run.first() == Some(&false) {
            sink.write_at(offset_bytes, part)?;
        }
        offset_bytes = offset_bytes.saturating_add(part.len() as u64);
        rest = behind;
    }
    Ok(())
}

/// What is being written to.
enum Sink {
    Raw(PathBuf, File),
    Vdi(Box<VdiWriter>),
}

impl Sink {
    fn create(path: &Path, disk: &GuestDisk, format: ExportFormat) -> Result<Self> {
        let capacity_bytes = disk.capacity_bytes();
        match format {
            ExportFormat::Vdi => {
                let create = VdiCreate::new(VdiVariant::Dynamic, capacity_bytes);
                Ok(Self::Vdi(Box::new(VdiWriter::create(path, create)?)))
            }
            ExportFormat::Raw => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).open(path);
                let file = file.map_err(Error::io("create", path))?;
                file.set_len(capacity_bytes)
                    .map_err(Error::io("enlarge", path))?;
                Ok(Self::Raw(path.to_path_buf(), file))
            }
        }
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Vdi(writer) => writer.write_at(offset_bytes, bytes),
            Self::Raw(path, file) => {
                platform::write_all_at(file, bytes, offset_bytes).map_err(Error::io("write", path))
            }
        }
    }

    fn finish(self, path: &Path) -> Result<()> {
        match self {
            Self::Vdi(writer) => writer.finish(),
            Self::Raw(_, file) => file.sync_all().map_err(Error::io("flush", path)),
        }
    }
}

/// A name beside `target`, whose file is removed unless it is published.
fn partial_path(target: &Path) -> Result<TempPath> {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", Uuid::new_v4().simple()));
    let path = target.with_file_name(name);
    TempPath::try_from_path(&path).map_err(Error::io("create", &path))
}

fn publish(partial: TempPath, target: &Path) -> Result<()> {
    partial
        .persist_noclobber(target)
        .map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists {
                path: target.to_path_buf(),
            },
            _ => Error::io("rename the export to", target)(error.error),
        })?;
    platform::sync_name(target).map_err(Error::io("flush the name of", target))
}
