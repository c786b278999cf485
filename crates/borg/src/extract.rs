//! Reading a file of an archive from its start, through `borg extract --stdout`.

use std::io::Read;
use std::process::ChildStdout;

use vrs_repository::store::{StoredFileReader, TreePath};
use vrs_repository::{Error, Result};

use crate::program::Borg;
use crate::repository::{ArchivedFile, BorgRepository};
use crate::running::Running;

/// A stored file on its way. borg verifies each chunk before it hands it out.
pub(crate) struct Stream<'a> {
    borg: &'a Borg,
    running: Running,
    stdout: ChildStdout,
}

impl<'a> Stream<'a> {
    /// Starts reading a file.
    pub(crate) fn open(
        repository: &'a BorgRepository,
        archive: &str,
        path: &TreePath,
    ) -> Result<Self> {
        let borg = &repository.borg;
        let mut command = borg.command(&["extract", "--stdout"])?;
        command
            .arg(borg.location.archive_argument(archive))
            // borg 1.2 never counts a whole path as matched and warns.
            .arg(format!("pp:{path}"));
        let mut running = borg.start(&mut command)?;
        let stdout = running.stdout().ok_or_else(|| repository.broken())?;
        Ok(Self {
            borg,
            running,
            stdout,
        })
    }

    /// Fills the buffer as far as there is more. Returns the number of bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled: usize = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.stdout.read(rest) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.borg.failed("read", error.to_string())),
            }
        }
        Ok(filled)
    }

    /// Whether borg handed everything out and had nothing to say against it.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.stdout);
        let ended = self.running.end();
        let ended = ended.map_err(|error| self.borg.failed("read", error.to_string()))?;
        self.borg.require_success("read", &ended)
    }
}

/// See [`StoredFileReader`]. Reading backwards begins anew.
pub(crate) struct FileReader<'a> {
    repository: &'a BorgRepository,
    archive: String,
    file: ArchivedFile,
    stream: Option<(Stream<'a>, u64)>,
}

impl<'a> FileReader<'a> {
    pub(crate) const fn new(
        repository: &'a BorgRepository,
        archive: String,
        file: ArchivedFile,
    ) -> Self {
        Self {
            repository,
            archive,
            file,
            stream: None,
        }
    }

    /// The stream at an offset.
    fn stream_at(&mut self, offset: u64) -> Result<(Stream<'a>, u64)> {
        let present = self
            .stream
            .take()
            .filter(|(_, position)| *position <= offset);
        let (mut stream, mut position) = match present {
            Some(present) => present,
            None => {
                let stream = Stream::open(self.repository, &self.archive, &self.file.path)?;
                (stream, 0)
            }
        };
        let mut skipped = vec![0; 1 << 20];
        while position < offset {
            let wanted = usize::try_from(offset.saturating_sub(position)).unwrap_or(usize::MAX);
            let length = wanted.min(skipped.len());
            let piece = skipped.get_mut(..length).unwrap_or_default();
            let filled = stream.fill(piece)?;
            if filled < length {
                return Err(self.cut_short(stream));
            }
            position = position.saturating_add(filled as u64);
        }
        Ok((stream, position))
    }

    fn cut_short(&self, stream: Stream<'_>) -> Error {
        let too_short = || {
            let reason = format!("'{}' is shorter than its entry says", self.file.path);
            self.repository.borg.failed("read", reason)
        };
        stream.finish().err().unwrap_or_else(too_short)
    }
}

impl StoredFileReader for FileReader<'_> {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.file.size_bytes) {
            return Err(Error::OutOfBounds {
                path: self.file.path.clone(),
                offset,
                length_bytes: buffer.len() as u64,
                size_bytes: self.file.size_bytes,
            });
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let (mut stream, position) = self.stream_at(offset)?;
        if stream.fill(buffer)? < buffer.len() {
            return Err(self.cut_short(stream));
        }
        let position = position.saturating_add(buffer.len() as u64);
        if position == self.file.size_bytes {
            return stream.finish();
        }
        self.stream = Some((stream, position));
        Ok(())
    }
}
