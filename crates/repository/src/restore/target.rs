//! One file that is being restored.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use vrs_progress::Progress;

use crate::chunking::Cutter;
use crate::direct::{self, DirectFile, Run};
use crate::error::{Error, Result};
use crate::index::BlobLocation;
use crate::ingest::require_regular;
use crate::layout::{ChunkList, StoredChunk};
use crate::platform;
use crate::repository::ResticRepository;
use crate::sink::ZeroChunks;
use crate::store::{FileStamp, RestoreFile, TreePath};
use crate::tree::FoundFile;

use super::place::Place;
use super::survey::State;

/// Zeros that are written at once where holes cannot be made, past the page cache where the rest is.
static ZEROS: Zeros = Zeros([0; 1 << 20]);

#[repr(align(4096))]
struct Zeros([u8; 1 << 20]);

/// A stored chunk may be all zeros when it became this many times smaller; then it is worth
/// computing the id of so many zeros.
const ZEROS_SHRINK: u32 = 64;

/// So much is written before it is flushed while other threads go on: at the end nobody would have
/// anything to do meanwhile.
const FLUSHED_AT_ONCE_BYTES: u64 = 64 << 20;

pub(super) struct Target {
    pub(super) path: TreePath,
    pub(super) local: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) chunks: ChunkList,
    /// Of its first chunk.
    pub(super) first: Place,
    pub(super) states: Vec<State>,
    /// How the local file was cut, where that is known.
    pub(super) cutter: Option<Cutter>,
    /// What the local file holds, where that is known.
    pub(super) known: Option<ChunkList>,
    /// What is there: read-only until the first write is due.
    pub(super) file: Option<File>,
    direct: Option<DirectFile>,
    /// Of the file that was opened.
    pub(super) stamp: Option<FileStamp>,
    /// Length before the restore.
    pub(super) local_bytes: u64,
    modified: Option<SystemTime>,
    mode: Option<u32>,
    pub(super) existed: bool,
    writable: bool,
    written_bytes: AtomicU64,
}

impl Target {
    /// Looks at what is there, without changing it.
    pub(super) fn new(
        repository: &ResticRepository,
        zeros: &ZeroChunks,
        found: &FoundFile,
        request: &RestoreFile,
    ) -> Result<Self> {
        let chunks = repository.stored_chunks(found.clone())?;
        let file = open_existing(&request.target)?;
        let stamp = file
            .as_ref()
            .map(|file| file.metadata().map(|metadata| platform::stamp(&metadata)))
            .transpose()
            .map_err(|error| Error::local(&request.target, "open", None, error))?;
        Ok(Self {
            path: found.path.clone(),
            local: request.target.clone(),
            size_bytes: found.node.meta.size,
            first: Place::default(),
            states: first_states(&chunks, zeros),
            chunks,
            cutter: request.local_chunking.map(Cutter::new).transpose()?,
            known: None,
            existed: file.is_some(),
            local_bytes: stamp.map_or(0, |stamp| stamp.size_bytes),
            stamp,
            file,
            direct: None,
            modified: found.node.meta.mtime.map(SystemTime::from),
            mode: found.node.meta.mode,
            writable: false,
            written_bytes: AtomicU64::new(0),
        })
    }

    /// Whether the content or length has to change.
    fn is_different(&self) -> bool {
        !self.existed
            || self.local_bytes != self.size_bytes
            || self.states.iter().any(|state| *state != State::InPlace)
    }

    fn error(
        &self,
        operation: &'static str,
        offset: Option<u64>,
    ) -> impl FnOnce(io::Error) -> Error + '_ {
        move |error| Error::local(&self.local, operation, offset, error)
    }

    /// Opens or creates the file, if it has to change.
    pub(super) fn open_for_writing(&mut self, progress: &dyn Progress) -> Result<()> {
        if !self.is_different() {
            return Ok(());
        }
        if !self.existed {
            progress.step("create target");
        }
        let file = platform::open_target(&self.local, !self.existed)
            .map_err(self.error("open for writing", None))?;
        let metadata = file
            .metadata()
            .map_err(self.error("open for writing", None))?;
        require_regular(&self.local, &metadata)?;
        if let Some(mode) = self.mode.filter(|_| !self.existed) {
            platform::set_mode(&file, mode).map_err(self.error("set the permissions of", None))?;
        }
        if self.existed {
            progress.step("renew stamp of target");
            renew_stamp(&file).map_err(self.error("set the time of", None))?;
        }
        // What it holds may be in the page cache: see `direct`.
        if !self.existed || self.is_on_pages() {
            self.direct = DirectFile::beside(&file, &self.local);
        }
        self.file = Some(file);
        self.writable = true;
        Ok(())
    }

    /// Whether all chunks consist of whole pages of the file.
    fn is_on_pages(&self) -> bool {
        let mut chunks = self.chunks.iter();
        chunks.all(|chunk| direct::is_on_pages(chunk.offset, chunk.length_bytes.into()))
    }

    fn writable(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.writable)
    }

    /// Writes bytes to their place.
    pub(super) fn write(&self, content: &[u8], offset: u64, progress: &dyn Progress) -> Result<()> {
        let Some(file) = self.writable() else {
            return Ok(());
        };
        progress.step("write target");
        let is_past_cache = direct::write_all_at(file, self.direct.as_ref(), content, offset)
            .map_err(self.error("write", Some(offset)))?;
        if is_past_cache {
            return Ok(());
        }
        self.flush_early(file, content.len() as u64)
    }

    /// Writes what a run holds, at the latest when [`Self::settle`] returns.
    pub(super) fn write_run(&self, run: &mut Run, progress: &dyn Progress) -> Result<()> {
        let Some(file) = self.writable() else {
            run.begin(run.end());
            return Ok(());
        };
        progress.step("write target");
        let offset = run.begins();
        let cached_bytes = run
            .write(file, self.direct.as_ref())
            .map_err(self.error("write", Some(offset)))?;
        self.flush_early(file, cached_bytes)
    }

    /// Makes a hole where zeros belong.
    pub(super) fn write_zeros(&self, range: Range<u64>, progress: &dyn Progress) -> Result<()> {
        let file = self.writable();
        file.map_or(Ok(()), |file| self.clear(file, range, progress))
    }

    /// Lets the storage begin with what was written. Only [`Self::sync`] promises anything.
    fn flush_early(&self, file: &File, more_bytes: u64) -> Result<()> {
        let before = self.written_bytes.fetch_add(more_bytes, Ordering::Relaxed);
        let after = before.saturating_add(more_bytes);
        if before / FLUSHED_AT_ONCE_BYTES == after / FLUSHED_AT_ONCE_BYTES {
            return Ok(());
        }
        file.sync_data().map_err(self.error("flush", None))
    }

    /// Gives the file its length, makes holes where zeros belong, and has room given to it for the rest: several
    /// threads can then write at the same time, and a full disk is noticed before it.
    pub(super) fn make_room(&self, progress: &dyn Progress) -> Result<()> {
        let Some(file) = self.writable() else {
            return Ok(());
        };
        let present = file.metadata().map_err(self.error("check", None))?.len();
        if present != self.size_bytes {
            progress.step("set length of target");
            file.set_len(self.size_bytes)
                .map_err(self.error("set the length of", None))?;
        }
        // What lies behind the former end is a hole already.
        let old_end = self.local_bytes.min(self.size_bytes);
        for range in self.ranges(State::Zero) {
            self.clear(file, range.start..range.end.min(old_end), progress)?;
        }
        for range in self.ranges(State::Missing) {
            let length_bytes = range.end.saturating_sub(range.start);
            platform::allocate(file, range.start, length_bytes)
                .map_err(self.error("write", Some(range.start)))?;
        }
        Ok(())
    }

    /// Where chunks lie that are in a state; those side by side are one range.
    fn ranges(&self, state: State) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (chunk, _) in self
            .chunks
            .iter()
            .zip(&self.states)
            .filter(|(_, present)| **present == state)
        {
            match ranges.last_mut() {
                Some(last) if last.end == chunk.offset => last.end = chunk.end(),
                _ => ranges.push(chunk.range()),
            }
        }
        ranges
    }

    fn clear(&self, file: &File, range: Range<u64>, progress: &dyn Progress) -> Result<()> {
        let length_bytes = range.end.saturating_sub(range.start);
        if length_bytes == 0 {
            return Ok(());
        }
        progress.step("punch hole in target");
        let punched = platform::punch_hole(file, range.start, length_bytes)
            .map_err(self.error("punch a hole in", Some(range.start)))?;
        if punched {
            return Ok(());
        }
        let mut offset = range.start;
        while offset < range.end {
            let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let zeros = ZEROS.0.get(..left.min(ZEROS.0.len())).unwrap_or_default();
            direct::write_all_at(file, self.direct.as_ref(), zeros, offset)
                .map_err(self.error("write", Some(offset)))?;
            offset = offset.saturating_add(zeros.len() as u64);
        }
        Ok(())
    }

    /// Writes what was kept back.
    pub(super) fn settle(&self) -> Result<()> {
        let (Some(file), Some(direct)) = (self.writable(), &self.direct) else {
            return Ok(());
        };
        direct.settle(file).map_err(self.error("write", None))?;
        Ok(())
    }

    /// Has everything written through the page cache from now on.
    pub(super) fn use_page_cache(&mut self) {
        self.direct = None;
    }

    /// Makes the content durable.
    pub(super) fn sync(&self, progress: &dyn Progress) -> Result<()> {
        let Some(file) = self.writable() else {
            return Ok(());
        };
        self.settle()?;
        progress.step("flush target");
        file.sync_all().map_err(self.error("flush", None))?;
        if self.existed {
            return Ok(());
        }
        let folder = self
            .local
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        platform::sync_folder(folder).map_err(|error| Error::local(folder, "flush", None, error))
    }

    /// Gives the file its modification time, once everything is in place.
    pub(super) fn finish(&self, progress: &dyn Progress) -> Result<()> {
        let (Some(file), Some(modified)) = (self.file.as_ref(), self.modified) else {
            return Ok(());
        };
        let present = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(self.error("check", None))?;
        if present == modified {
            return Ok(());
        }
        progress.step("set time of target");
        let set = |file: &File| file.set_modified(modified).and_then(|()| file.sync_all());
        if self.writable {
            return set(file).map_err(self.error("set the time of", None));
        }
        platform::open_target(&self.local, false)
            .and_then(|file| set(&file))
            .map_err(self.error("set the time of", None))
    }
}

fn first_states(chunks: &ChunkList, zeros: &ZeroChunks) -> Vec<State> {
    let state = |(chunk, stored): (StoredChunk, BlobLocation)| {
        let is_zero = stored.is_compressed()
            && stored.length.saturating_mul(ZEROS_SHRINK) < chunk.length_bytes
            && zeros.id(chunk.length_bytes as usize) == chunk.id;
        if is_zero { State::Zero } else { State::Missing }
    };
    let mut states: Vec<State> = chunks.placed().map(state).collect();
    states.shrink_to_fit();
    states
}

/// Gives a file another time, durably. When the power fails, what was written to it can be there without
/// the time at which it was written, and the file would look as a snapshot knows it that read other content.
fn renew_stamp(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::now())?;
    file.sync_all()
}

/// Opens a target for reading, if it exists. Symbolic links and folders are refused.
fn open_existing(path: &Path) -> Result<Option<File>> {
    let failed = |error| Error::local(path, "open", None, error);
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    require_regular(path, &metadata)?;
    File::open(path).map(Some).map_err(failed)
}

/// Two files of a snapshot cannot be restored to one place.
pub(super) fn refuse_duplicates(targets: &[Target]) -> Result<()> {
    let mut seen = HashSet::new();
    for target in targets {
        if !seen.insert(identity(&target.local)) {
            let subject = format!("the target {}", target.local.display());
            return Err(Error::InvalidRequest {
                subject,
                reason: "two files would be restored to it",
            });
        }
    }
    Ok(())
}

/// The same for all names of one place, as far as that can be told.
pub(super) fn identity(path: &Path) -> PathBuf {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match (
        std::fs::canonicalize(path),
        std::fs::canonicalize(folder),
        path.file_name(),
    ) {
        (Ok(whole), _, _) => whole,
        (_, Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}
