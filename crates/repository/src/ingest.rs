//! A new snapshot: files in, one atomic write at the end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use vrs_progress::{Phase, Progress};

use crate::adopt;
use crate::block_list::BlockList;
use crate::chunking::{Cutter, WHOLE_BYTES};
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::intake::{Intake, Tally};
use crate::layout::{ChunkList, Part, parts};
use crate::platform::{self, own_ownership, ownership};
use crate::repository::ResticRepository;
use crate::scan_cache::ScanCache;
use crate::sink::{ChunkRef, Sink, ZeroChunks};
use crate::snapshot::NewSnapshot;
use crate::store::{
    FileSource, FileStamp, Ingest, IngestStats, IngestedFile, PreviousFile, SnapshotLabel, TreePath,
};
use crate::survival::{self, Needed};
use crate::tree::{self, NewFile};

/// See [`Ingest`].
pub(crate) struct ResticIngest<'a> {
    repository: &'a ResticRepository,
    sink: Sink<'a>,
    zeros: ZeroChunks,
    files: BTreeMap<TreePath, (NewFile, IngestedFile)>,
    started: Timestamp,
}

impl<'a> ResticIngest<'a> {
    /// Takes over what an interrupted ingest left, and starts a new snapshot.
    pub(crate) fn start(
        repository: &'a ResticRepository,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let started = Timestamp::now();
        let sink = adopt::start(repository, progress)?;
        Ok(Self {
            repository,
            sink,
            zeros: ZeroChunks::default(),
            files: BTreeMap::new(),
            started,
        })
    }

    /// Chunks that the caller vouches for. What cannot be had is read, which costs time and no more.
    fn earlier(&self, previous: &PreviousFile) -> Option<ChunkList> {
        let (repository, base) = (self.repository, self.sink.base());
        let file = repository.found_file(base, &previous.snapshot, &previous.path);
        repository.stored_chunks(file.ok()?).ok()
    }

    fn parts(&self, source: &FileSource, size_bytes: u64) -> Vec<Part> {
        let previous = source.previous.as_ref();
        let previous = previous.filter(|previous| !previous.unchanged.is_empty());
        let earlier = previous.and_then(|previous| self.earlier(previous));
        let chunks = earlier.iter().flat_map(ChunkList::places);
        let unchanged = previous.map_or(&[][..], |previous| &previous.unchanged);
        parts(size_bytes, chunks, unchanged, |chunk| {
            self.sink.is_stored(chunk)
        })
    }

    fn read(
        &self,
        source: &FileSource,
        file: &File,
        cutter: Cutter,
        before: FileStamp,
        cache: Option<&ScanCache<'_>>,
    ) -> Result<(BlockList<ChunkRef>, Tally)> {
        let intake = Intake {
            sink: &self.sink,
            zeros: &self.zeros,
            file,
            path: &source.local,
            cache,
            tally: Tally::default(),
        };
        let parts = self.parts(source, before.size_bytes);
        let chunks = intake.chunks(parts, cutter, self.repository.waiting_threads())?;
        if let Some(cache) = cache.filter(|cache| cache.is_wrong()) {
            cache.remove(self.sink.progress);
            return self.read(source, file, cutter, before, None);
        }
        Ok((chunks, intake.tally))
    }

    fn add(&mut self, path: &TreePath, file: NewFile, ingested: IngestedFile) -> Result<()> {
        let conflict = |reason| Error::InvalidRequest {
            subject: format!("the path {path}"),
            reason,
        };
        let mut present = self.files.keys();
        if present.any(|present| path.is_below(present) || present.is_below(path)) {
            return Err(conflict("it would be a file and a folder in the snapshot"));
        }
        match self.files.entry(path.clone()) {
            Entry::Occupied(_) => Err(conflict("the snapshot holds it already")),
            Entry::Vacant(place) => {
                place.insert((file, ingested));
                Ok(())
            }
        }
    }

    fn stats(&self) -> IngestStats {
        let mut stats = IngestStats {
            files: self.files.len() as u64,
            ..IngestStats::default()
        };
        for (_, file) in self.files.values() {
            stats.total_bytes = stats.total_bytes.saturating_add(file.stamp.size_bytes);
            stats.read_bytes = stats.read_bytes.saturating_add(file.read_bytes);
            stats.reused_bytes = stats.reused_bytes.saturating_add(file.reused_bytes);
            stats.recognised_bytes = stats.recognised_bytes.saturating_add(file.recognised_bytes);
            stats.new_chunks = stats.new_chunks.saturating_add(file.new_chunks);
        }
        stats.sent_bytes = self.sink.sent.bytes.load(Ordering::Relaxed);
        stats.objects = self.sink.sent.objects();
        stats
    }
}

impl Ingest for ResticIngest<'_> {
    fn file(&mut self, source: &FileSource) -> Result<IngestedFile> {
        let cutter = Cutter::new(source.chunking)?;
        let (file, metadata) = open_regular(&source.local)?;
        let before = platform::stamp(&metadata);
        self.sink.progress.phase(Phase {
            name: "reading",
            subject: source.path.to_string(),
            total_bytes: Some(before.size_bytes),
        });
        let cache = ScanCache::for_file(self.repository, &source.local, cutter, before.size_bytes);
        let (chunks, tally) = self.read(source, &file, cutter, before, cache.as_ref())?;
        let ingested = ingested(&tally, before);
        let complete = tally.total_bytes.into_inner() == before.size_bytes;
        if !complete || !is_unchanged(&source.local, &file, &before)? {
            return Err(Error::Changed {
                path: source.local.clone(),
            });
        }
        let ownership = ownership(&metadata);
        let new = NewFile {
            chunks,
            size_bytes: before.size_bytes,
            ownership,
            stamp: Some(before),
        };
        self.add(&source.path, new, ingested.clone())?;
        Ok(ingested)
    }

    fn bytes(&mut self, path: &TreePath, content: &[u8]) -> Result<()> {
        let mut sealer = self.sink.sealer()?;
        let mut chunks = BlockList::default();
        let size_bytes = content.len() as u64;
        let stamp = FileStamp {
            size_bytes,
            inode: 0,
            mtime_ns: 0,
            ctime_ns: 0,
        };
        let mut ingested = IngestedFile {
            stamp,
            read_bytes: 0,
            reused_bytes: 0,
            recognised_bytes: 0,
            new_chunks: 0,
        };
        for raw in content.chunks(WHOLE_BYTES as usize) {
            let id = self.zeros.id_of(raw);
            let (chunk, is_new) = self.sink.store(&mut sealer, id, raw)?;
            if is_new {
                ingested.new_chunks = ingested.new_chunks.saturating_add(1);
            } else {
                ingested.reused_bytes = ingested.reused_bytes.saturating_add(raw.len() as u64);
            }
            chunks.push(chunk);
        }
        let new = NewFile {
            chunks,
            size_bytes,
            ownership: own_ownership(0o600),
            stamp: None,
        };
        self.add(path, new, ingested)
    }

    fn discard(&mut self, path: &TreePath) {
        self.files.remove(path);
    }

    fn commit(self: Box<Self>, label: &SnapshotLabel) -> Result<(SnapshotId, IngestStats)> {
        // A tree is as long as the list of all chunks: the last data need not stay in memory beside it.
        self.sink.end_data()?;
        let files = self.files.iter().map(|(path, (file, _))| (path, file));
        let (tree, folders) = tree::write(&self.sink, files, label.time)?;
        self.sink.flush()?;
        let stats = self.stats();
        let tree_blobs = self.sink.sent.tree_blobs.load(Ordering::Relaxed);
        let new = NewSnapshot {
            label,
            tree,
            folders,
            stats: &stats,
            tree_blobs,
            started: self.started,
        };
        let object = new.to_file(self.files.keys());
        let (id, sealed) = self
            .repository
            .vault()
            .prepare(&object, self.repository.options.compression_level)?;
        let needed = Needed {
            sink: &self.sink,
            files: self.files.values().map(|(file, _)| &file.chunks).collect(),
        };
        survival::require(self.repository, &needed)?;
        self.sink.write_snapshot(id, sealed)?;
        survival::require_still(self.repository, &needed, &id.into())?;
        Ok((id.into(), self.stats()))
    }
}

/// Opens what must be a regular file, without waiting for a pipe.
fn open_regular(path: &Path) -> Result<(File, std::fs::Metadata)> {
    let open = |error| Error::local(path, "open", None, error);
    require_regular(path, &std::fs::metadata(path).map_err(open)?)?;
    let file = File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    require_regular(path, &metadata)?;
    Ok((file, metadata))
}

/// Refuses everything but regular files.
pub fn require_regular(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    let found = match metadata.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_symlink() => "symbolic link",
        _ => "device or pipe",
    };
    Err(Error::NotAFile {
        path: path.to_path_buf(),
        found,
    })
}

/// Whether the path still leads to the file that was read, and it has not been touched.
pub fn is_unchanged(path: &Path, file: &File, before: &FileStamp) -> Result<bool> {
    let check = |error| Error::local(path, "check", None, error);
    let read = platform::stamp(&file.metadata().map_err(check)?);
    let named = match FileStamp::of(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        named => named.map_err(check)?,
    };
    Ok(read == *before && named == *before)
}

fn ingested(tally: &Tally, stamp: FileStamp) -> IngestedFile {
    IngestedFile {
        stamp,
        read_bytes: tally.read_bytes.load(Ordering::Relaxed),
        reused_bytes: tally.reused_bytes.load(Ordering::Relaxed),
        recognised_bytes: tally.recognised_bytes.load(Ordering::Relaxed),
        new_chunks: tally.new_chunks.load(Ordering::Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use vrs_progress::NoProgress;
    use vrs_testkit::{REPOSITORY_PASSWORD, make_repository};

    use super::*;
    use crate::scan_cache::Entry;
    use crate::store::{Chunking, RestoreFile, RestoreRequest, SeedFile, SnapshotStore};
    use crate::{Location, OpenOptions, Password};

    const CHUNKS: usize = 8192;
    const CHUNK_BYTES: usize = 4096;

    fn content() -> Vec<u8> {
        let numbers = (0..CHUNKS).flat_map(|number| {
            let mut chunk = vec![7; CHUNK_BYTES];
            chunk.splice(..8, number.to_le_bytes());
            chunk
        });
        numbers.collect()
    }

    fn path() -> TreePath {
        TreePath::new("disk").unwrap()
    }

    /// With a cache beside it.
    fn new_repository(folder: &Path) -> ResticRepository {
        let place = folder.join("repository");
        make_repository(&place);
        let options = OpenOptions {
            cache_folder: Some(folder.join("cache")),
            ..OpenOptions::default()
        };
        let location = Location::parse(place.to_str().unwrap()).unwrap();
        let password = Password::new(REPOSITORY_PASSWORD.to_owned());
        ResticRepository::open(&location, &password, &options).unwrap()
    }

    fn take(
        repository: &ResticRepository,
        image: &Path,
        chunking: Chunking,
    ) -> (SnapshotId, IngestStats) {
        let mut ingest = repository.ingest(&NoProgress).unwrap();
        let source = FileSource {
            path: path(),
            local: image.to_owned(),
            chunking,
            previous: None,
        };
        ingest.file(&source).unwrap();
        let label = SnapshotLabel {
            time: Timestamp::now(),
            hostname: String::new(),
            tags: Vec::new(),
            description: None,
        };
        ingest.commit(&label).unwrap()
    }

    #[test]
    fn a_file_is_cut_in_parts_as_it_would_be_in_one_stream() {
        let folder = tempfile::tempdir().unwrap();
        let repository = new_repository(folder.path());
        let image = folder.path().join("state.sav");
        let mut content = vec![0; 24 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        std::fs::write(&image, &content).unwrap();
        let chunking = Chunking::ContentDefined {
            average_bytes: 64 << 10,
        };
        let (id, _) = take(&repository, &image, chunking);

        let loaded = repository.index().unwrap();
        let file = repository.found_file(&loaded, &id, &path()).unwrap();
        let stored = repository.stored_chunks(file).unwrap();
        let stored: Vec<usize> = stored
            .iter()
            .map(|chunk| chunk.length_bytes as usize)
            .collect();
        let Cutter::Content(cutter) = Cutter::new(chunking).unwrap() else {
            panic!("by content");
        };
        let mut pieces = cutter.pieces(content.as_slice(), ());
        let mut expected = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            expected.extend(piece.chunks().map(|(raw, _)| raw.len()));
        }
        assert!(expected.len() > 100);
        assert_eq!(stored, expected);
    }

    /// Every entry says that the chunk's bytes are those of the next one, with checksums that are right.
    fn poison(cache: &ScanCache<'_>) {
        let entries: Vec<Entry> = cache.entries(0, CHUNKS).into_iter().flatten().collect();
        assert!(entries.len() > 1000);
        let mut writer = cache.successor().unwrap();
        for (entry, next) in entries.iter().zip(entries.iter().cycle().skip(1)) {
            let (seen, chunk) = (entry.seen, next.chunk);
            writer.push(Some(Entry { seen, chunk })).unwrap();
        }
        writer.finish().unwrap();
    }

    #[rstest]
    #[case(Chunking::Grid { chunk_bytes: 4096, phase_bytes: 0 })]
    #[case(Chunking::ContentDefined { average_bytes: 1024 })]
    fn a_poisoned_scan_cache_is_found_out(#[case] chunking: Chunking) {
        let folder = tempfile::tempdir().unwrap();
        let repository = new_repository(folder.path());
        let image = folder.path().join("disk.vdi");
        std::fs::write(&image, content()).unwrap();
        take(&repository, &image, chunking);

        let cutter = Cutter::new(chunking).unwrap();
        let scans = repository.scan_folder().unwrap();
        let cache = || ScanCache::of(&repository.key.scan, scans.clone(), &image, cutter);
        let is_gone = || cache().entries(0, CHUNKS).iter().all(Option::is_none);
        poison(&cache());
        let (id, stats) = take(&repository, &image, chunking);
        assert_eq!(stats.recognised_bytes, 0);
        let mut stored = vec![0; CHUNKS * CHUNK_BYTES];
        let mut reader = repository.open_file(&id, &path()).unwrap();
        reader.read_at(0, &mut stored).unwrap();
        assert!(stored == content());
        // It is gone, and the next scan begins a sound one.
        assert!(is_gone());

        take(&repository, &image, chunking);
        poison(&cache());
        let target = folder.path().join("restored.vdi");
        let request = RestoreRequest {
            snapshot: id,
            files: vec![RestoreFile {
                path: path(),
                target: target.clone(),
                local_chunking: None,
                known: None,
            }],
            seeds: vec![SeedFile {
                local: image.clone(),
                chunking,
                known: None,
            }],
        };
        repository.restore(&request, &NoProgress).unwrap();
        assert!(std::fs::read(target).unwrap() == content());
        assert!(is_gone());
    }
}
