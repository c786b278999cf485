//! Making an archive, file by file, through `borg import-tar`.
//!
//! The tar stream goes through a pipe: nothing is stored twice, and each file gets its place in the
//! archive whatever it is on this host. Small files wait in memory for the end, so that one can be
//! replaced. The archive has a name that hides it until `borg recreate` gives it its label, under
//! its final name, with one atomic write: a stream that ends early between two files is a sound
//! tar archive to borg.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::Path;
use std::process::{ChildStdin, Stdio};

use vrs_progress::{Counter, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::local;
use vrs_repository::store::{
    Chunking, FileSource, FileStamp, Ingest, IngestStats, IngestedFile, SnapshotLabel, TreePath,
};
use vrs_repository::{Error, Result};

use crate::answers::{CacheStats, Imported};
use crate::archive::{self, finished_name};
use crate::label::Label;
use crate::repository::BorgRepository;
use crate::running::Running;

/// Larger ones are streamed at once.
const LARGEST_HELD_BYTES: u64 = 4 << 20;

/// Read and sent at once.
const PIECE_BYTES: usize = 1 << 20;

/// borg's word for disk images and all else that comes with them, when nothing says more.
const DEFAULT_CHUNKER: &str = "fixed,524288";

/// As restic's format 2: fast, and a third smaller than borg's usual lz4 on disks.
const COMPRESSION: &str = "zstd,3";

/// How often borg keeps what it has stored so far, so that an interrupted take can go on.
const CHECKPOINT_SECONDS: &str = "120";

/// See the module.
pub(crate) struct BorgIngest<'a> {
    repository: &'a BorgRepository,
    progress: &'a dyn Progress,
    /// The repository before.
    before: CacheStats,
    name: String,
    chunker: Option<String>,
    import: Option<Import>,
    held: BTreeMap<TreePath, Held>,
    streamed: BTreeMap<TreePath, u64>,
    /// Streamed, and not part of the snapshot all the same.
    discarded: Vec<TreePath>,
    read_bytes: u64,
}

struct Held {
    content: Vec<u8>,
    mtime_ns: i128,
}

/// A running `borg import-tar`.
struct Import {
    running: Running,
    tar: tar::Builder<BufWriter<ChildStdin>>,
}

impl<'a> BorgIngest<'a> {
    pub(crate) fn new(repository: &'a BorgRepository, progress: &'a dyn Progress) -> Result<Self> {
        Ok(Self {
            repository,
            progress,
            before: repository.info(Some(progress))?.cache.stats,
            name: archive::incomplete_name(),
            chunker: None,
            import: None,
            held: BTreeMap::new(),
            streamed: BTreeMap::new(),
            discarded: Vec::new(),
            read_bytes: 0,
        })
    }

    /// The running import, which is started if there is none.
    fn import(&mut self, source: Option<&FileSource>) -> Result<&mut Import> {
        if self.import.is_none() {
            let chunker = match source {
                Some(source) => self.chunker_for(source)?,
                None => DEFAULT_CHUNKER.to_owned(),
            };
            self.import = Some(self.start(&chunker)?);
            self.chunker = Some(chunker);
        }
        self.import.as_mut().ok_or_else(|| self.repository.broken())
    }

    fn start(&self, chunker: &str) -> Result<Import> {
        self.progress.step("write archive");
        let borg = &self.repository.borg;
        let mut command = borg.command(&["import-tar", "--json"])?;
        command
            .args(["--chunker-params", chunker, "--compression", COMPRESSION])
            .args(["--checkpoint-interval", CHECKPOINT_SECONDS])
            .args([&borg.location.archive_argument(&self.name), "-"])
            .stdin(Stdio::piped());
        let mut running = borg.start(&mut command)?;
        let stdin = running.stdin().ok_or_else(|| self.repository.broken())?;
        Ok(Import {
            running,
            tar: tar::Builder::new(BufWriter::with_capacity(PIECE_BYTES, stdin)),
        })
    }

    /// The grid of the earlier snapshot, else that of the file. borg cuts all files of an archive the
    /// same way.
    fn chunker_for(&self, source: &FileSource) -> Result<String> {
        let earlier = source.previous.as_ref().map(|earlier| earlier.snapshot);
        if let Some(earlier) = earlier
            && let Some(label) = self.repository.archive(&earlier)?.label
            && let Some(chunker) = label.chunker
        {
            return Ok(chunker);
        }
        Ok(match source.chunking {
            Chunking::Grid {
                chunk_bytes,
                phase_bytes,
            } => {
                let header = phase_bytes.checked_rem(chunk_bytes.into()).unwrap_or(0);
                format!("fixed,{chunk_bytes},{header}")
            }
            Chunking::ContentDefined { .. } | Chunking::Whole => DEFAULT_CHUNKER.to_owned(),
        })
    }

    /// Streams a file, however large. The stream stays sound if the file does not.
    fn stream(&mut self, source: &FileSource, file: &File, stamp: &FileStamp) -> Result<()> {
        let progress = self.progress;
        let mut content = BufReader::with_capacity(
            PIECE_BYTES,
            Content {
                file,
                path: &source.local,
                left_bytes: stamp.size_bytes,
                offset: 0,
                progress,
                failure: None,
            },
        );
        let import = self.import(Some(source))?;
        let written = append(
            &mut import.tar,
            &source.path,
            stamp.size_bytes,
            stamp.mtime_ns,
            &mut content,
        );
        let failure = content.get_mut().failure.take();
        if let Err(error) = written {
            return Err(failure.unwrap_or_else(|| self.import_failed(&error)));
        }
        self.streamed.insert(source.path.clone(), stamp.size_bytes);
        Ok(())
    }

    /// Why borg does not read any more.
    fn import_failed(&mut self, error: &io::Error) -> Error {
        let borg = &self.repository.borg;
        let Some(import) = self.import.take() else {
            return self.repository.broken();
        };
        drop(import.tar);
        match import.running.end() {
            Ok(ended) if !ended.status.success() => borg.error_of("write to", &ended),
            _ => borg.failed("write to", error.to_string()),
        }
    }

    fn hold(&mut self, source: &FileSource, file: &File, stamp: &FileStamp) -> Result<()> {
        let mut content = vec![0; usize::try_from(stamp.size_bytes).unwrap_or(usize::MAX)];
        let read = local::read_full_at(file, &mut content, 0)
            .map_err(|error| Error::local(&source.local, "read", None, error))?;
        content.truncate(read);
        self.progress.add(Counter::Scanned, read as u64);
        let mtime_ns = stamp.mtime_ns;
        self.held
            .insert(source.path.clone(), Held { content, mtime_ns });
        Ok(())
    }

    /// Ends the stream, and waits until borg has stored everything.
    fn finish_import(&mut self) -> Result<Imported> {
        let held = std::mem::take(&mut self.held);
        self.import(None)?;
        for (path, Held { content, mtime_ns }) in held {
            let size_bytes = content.len() as u64;
            let import = self.import(None)?;
            let mut rest = content.as_slice();
            let written = append(&mut import.tar, &path, size_bytes, mtime_ns, &mut rest);
            written.map_err(|error| self.import_failed(&error))?;
            self.streamed.insert(path, size_bytes);
        }
        let import = self.import.take().ok_or_else(|| self.repository.broken())?;
        let Import { running, tar } = import;
        let ended = tar
            .into_inner()
            .and_then(|pipe| pipe.into_inner().map_err(io::Error::from))
            .map(drop);
        let progress = self.progress;
        let borg = &self.repository.borg;
        let output = running
            .output(&|| progress.interrupted())
            .map_err(|error| borg.failed("write to", error.to_string()))?;
        let (answer, end) = output.ok_or(Error::Interrupted)?;
        borg.require_success("write to", &end)?;
        ended.map_err(|error| borg.failed("write to", error.to_string()))?;
        borg.parse("write to", &answer)
    }

    /// Gives the archive its label and its name. This is the moment in which the snapshot appears.
    fn publish(&self, label: &Label) -> Result<SnapshotId> {
        let folder = self.streamed.keys().next();
        let folder = folder.and_then(|path| path.parts().find(|part| !part.starts_with('.')));
        let name = finished_name(folder.unwrap_or("vrs"), label.time, uuid::Uuid::new_v4());
        let borg = &self.repository.borg;
        let mut arguments = vec![
            "--target".to_owned(),
            name.clone(),
            "--comment".to_owned(),
            label.to_comment(),
            "--timestamp".to_owned(),
            label.time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        ];
        for path in &self.discarded {
            arguments.extend(["--exclude".to_owned(), format!("pf:{path}")]);
        }
        arguments.push(borg.location.archive_argument(&self.name));
        self.progress.step("label archive");
        borg.answer("write to", &["recreate"], arguments, None)?;
        let archives = self.repository.refresh()?.archives;
        let made = archives.into_iter().find(|archive| archive.name == name);
        let made = made.filter(|archive| archive.label.as_ref() == Some(label));
        made.map(|archive| archive.id).ok_or_else(|| {
            borg.failed(
                "write to",
                format!("the new archive '{name}' is not listed"),
            )
        })
    }
}

impl Ingest for BorgIngest<'_> {
    fn file(&mut self, source: &FileSource) -> Result<IngestedFile> {
        let open = |error| Error::local(&source.local, "open", None, error);
        let metadata = std::fs::metadata(&source.local).map_err(open)?;
        local::require_regular(&source.local, &metadata)?;
        let file = File::open(&source.local).map_err(open)?;
        let stamp = local::stamp(&file.metadata().map_err(open)?);
        if source.chunking == Chunking::Whole && stamp.size_bytes <= LARGEST_HELD_BYTES {
            self.hold(source, &file, &stamp)?;
        } else {
            self.stream(source, &file, &stamp)?;
        }
        if !local::is_unchanged(&source.local, &file, &stamp)? {
            self.discard(&source.path);
            return Err(Error::Changed {
                path: source.local.clone(),
            });
        }
        self.read_bytes = self.read_bytes.saturating_add(stamp.size_bytes);
        Ok(IngestedFile {
            stamp,
            read_bytes: stamp.size_bytes,
            // borg tells at the end only, and for all files together.
            reused_bytes: 0,
            recognised_bytes: 0,
            new_chunks: 0,
        })
    }

    fn bytes(&mut self, path: &TreePath, content: &[u8]) -> Result<()> {
        let held = Held {
            content: content.to_vec(),
            mtime_ns: jiff::Timestamp::now().as_nanosecond(),
        };
        self.held.insert(path.clone(), held);
        Ok(())
    }

    fn discard(&mut self, path: &TreePath) {
        self.held.remove(path);
        if self.streamed.remove(path).is_some() {
            self.discarded.push(path.clone());
        }
    }

    fn commit(mut self: Box<Self>, label: &SnapshotLabel) -> Result<(SnapshotId, IngestStats)> {
        let imported = self.finish_import()?;
        let after = imported.cache.stats;
        let sent_bytes = imported.archive.stats.deduplicated_size;
        let total_bytes = self
            .streamed
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        let new_bytes = after.unique_size.saturating_sub(self.before.unique_size);
        self.progress.add(Counter::Sent, sent_bytes);
        let mut label = Label::new(label);
        label.size_bytes = Some(total_bytes);
        label.added_bytes = Some(sent_bytes);
        label.chunker = self.chunker.clone();
        let id = self.publish(&label)?;
        self.repository.remove_leftovers(&self.name, self.progress);
        let stats = IngestStats {
            files: self.streamed.len() as u64,
            total_bytes,
            read_bytes: self.read_bytes,
            reused_bytes: total_bytes.saturating_sub(new_bytes),
            recognised_bytes: 0,
            new_chunks: after
                .total_unique_chunks
                .saturating_sub(self.before.total_unique_chunks),
            sent_bytes,
            objects: BTreeMap::from([("archive", 1)]),
        };
        Ok((id, stats))
    }
}

/// One member of the tar archive.
fn append(
    tar: &mut tar::Builder<BufWriter<ChildStdin>>,
    path: &TreePath,
    size_bytes: u64,
    mtime_ns: i128,
    content: &mut dyn Read,
) -> io::Result<()> {
    let seconds = mtime_ns.div_euclid(1_000_000_000);
    let fraction = mtime_ns.rem_euclid(1_000_000_000);
    if seconds >= 0 {
        let exact = format!("{seconds}.{fraction:09}");
        tar.append_pax_extensions([("mtime", exact.as_bytes())])?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    tar.append_data(&mut header, path.as_str(), content)
}

/// As many bytes of a file as its stamp says, whatever has become of it meanwhile.
struct Content<'a> {
    file: &'a File,
    path: &'a Path,
    left_bytes: u64,
    offset: u64,
    progress: &'a dyn Progress,
    failure: Option<Error>,
}

impl Content<'_> {
    fn fail(&mut self, error: Error) -> io::Error {
        let text = error.to_string();
        self.failure = Some(error);
        io::Error::other(text)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.interrupted() {
            return Err(self.fail(Error::Interrupted));
        }
        let length = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let Some(wanted) = buffer.get_mut(..length).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let read = match local::read_full_at(self.file, wanted, self.offset) {
            Ok(read) => read,
            Err(error) => {
                let error = Error::local(self.path, "read", Some(self.offset), error);
                return Err(self.fail(error));
            }
        };
        // The file became shorter, which its stamp tells afterwards.
        if let Some(rest) = wanted.get_mut(read..) {
            rest.fill(0);
        }
        self.left_bytes = self.left_bytes.saturating_sub(length as u64);
        self.offset = self.offset.saturating_add(length as u64);
        self.progress.add(Counter::Scanned, length as u64);
        Ok(length)
    }
}
