//! A local file that is brought into the state of a stored one, block by block.
//!
//! A block that is right already is not written; one of zeros becomes a hole, where that is possible.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vrs_progress::{Counter, Progress};
use vrs_repository::local;
use vrs_repository::store::{RestoreFile, RestoreStats};
use vrs_repository::{Error, Result};

use crate::extract::Stream;
use crate::repository::ArchivedFile;

/// Compared and written at once.
const BLOCK_BYTES: usize = 512 << 10;

/// Whether files are changed, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Look,
    Write,
}

/// See the module.
pub(crate) struct Target<'a> {
    path: &'a Path,
    stored: &'a ArchivedFile,
    progress: &'a dyn Progress,
    mode: Mode,
    /// Absent if there is none and none is to be made.
    file: Option<File>,
    local_bytes: u64,
}

impl<'a> Target<'a> {
    pub(crate) fn open(
        request: &'a RestoreFile,
        stored: &'a ArchivedFile,
        mode: Mode,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let path = request.target.as_path();
        let failed = |error| Error::local(path, "open", None, error);
        let is_there = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            metadata => {
                local::require_regular(path, &metadata.map_err(failed)?)?;
                true
            }
        };
        let file = match mode {
            Mode::Look if !is_there => None,
            Mode::Look => Some(File::open(path).map_err(failed)?),
            Mode::Write => {
                if !is_there {
                    progress.step("create target");
                }
                let file = local::open_target(path, !is_there).map_err(failed)?;
                if !is_there {
                    // As VirtualBox makes them.
                    local::set_mode(&file, 0o600).map_err(failed)?;
                }
                Some(file)
            }
        };
        let length = file.as_ref().map(|file| Ok(file.metadata()?.len()));
        Ok(Self {
            path,
            stored,
            progress,
            mode,
            file,
            local_bytes: length.transpose().map_err(failed)?.unwrap_or(0),
        })
    }

    fn error(
        &self,
        operation: &'static str,
        offset: Option<u64>,
    ) -> impl FnOnce(io::Error) -> Error + '_ {
        move |error| Error::local(self.path, operation, offset, error)
    }

    /// Makes the file what the stream says, up to its length and time.
    pub(crate) fn take(&self, mut stream: Stream<'_>, stats: &mut RestoreStats) -> Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut here = vec![0; BLOCK_BYTES];
        let mut offset: u64 = 0;
        loop {
            if self.progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let filled = stream.fill(&mut block)?;
            let piece = block.get(..filled).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            self.progress.add(Counter::Fetched, filled as u64);
            self.place(piece, &mut here, offset, stats)?;
            self.progress.add(Counter::Scanned, filled as u64);
            offset = offset.saturating_add(filled as u64);
        }
        stream.finish()?;
        if offset != self.stored.size_bytes {
            return Err(Error::Incomplete {
                path: self.path.to_path_buf(),
                offset,
                length_bytes: self.stored.size_bytes.saturating_sub(offset),
                more: 0,
                source: Box::new(Error::DamagedObject {
                    location: String::new(),
                    object: format!("file {}", self.stored.path),
                    reason: "borg ended before its end".to_owned(),
                }),
            });
        }
        Ok(())
    }

    fn place(
        &self,
        piece: &[u8],
        here: &mut [u8],
        offset: u64,
        stats: &mut RestoreStats,
    ) -> Result<()> {
        let here = here.get_mut(..piece.len()).unwrap_or_default();
        let present = match &self.file {
            Some(file) => {
                local::read_full_at(file, here, offset).map_err(self.error("read", Some(offset)))?
            }
            None => 0,
        };
        let length = piece.len() as u64;
        if present == piece.len() && here == piece {
            stats.in_place_bytes = stats.in_place_bytes.saturating_add(length);
            return Ok(());
        }
        let is_zero = local::is_zero(piece);
        let sum = if is_zero {
            &mut stats.zero_bytes
        } else {
            stats.fetched_chunks = stats.fetched_chunks.saturating_add(1);
            &mut stats.fetched_bytes
        };
        *sum = sum.saturating_add(length);
        let Some(file) = self.file.as_ref().filter(|_| self.mode == Mode::Write) else {
            return Ok(());
        };
        if is_zero {
            // What lies behind the end becomes a hole with the length.
            let inside = self.local_bytes.saturating_sub(offset).min(length);
            self.progress.step("punch hole in target");
            let punched = inside == 0
                || local::punch_hole(file, offset, inside)
                    .map_err(self.error("punch a hole in", Some(offset)))?;
            if punched {
                return Ok(());
            }
        }
        self.progress.step("write target");
        local::write_all_at(file, piece, offset).map_err(self.error("write", Some(offset)))
    }

    /// Gives the file its length and time, and makes it durable.
    pub(crate) fn finish(&self) -> Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.mode == Mode::Write) else {
            return Ok(());
        };
        let length = file.metadata().map_err(self.error("check", None))?.len();
        if length != self.stored.size_bytes {
            self.progress.step("set length of target");
            file.set_len(self.stored.size_bytes)
                .map_err(self.error("set the length of", None))?;
        }
        if let Some(modified) = self.stored.modified {
            self.progress.step("set time of target");
            file.set_modified(modified.into())
                .map_err(self.error("set the time of", None))?;
        }
        self.flush()
    }

    /// Makes what was written durable, also before the end: the next run builds on it.
    pub(crate) fn flush(&self) -> Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.mode == Mode::Write) else {
            return Ok(());
        };
        self.progress.step("flush target");
        file.sync_all().map_err(self.error("flush", None))?;
        let folder = self
            .path
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf);
        local::sync_folder(&folder).map_err(|error| Error::local(&folder, "flush", None, error))
    }
}
