//! A repository in a temporary folder, and what tests do with it again and again.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tempfile::TempDir;
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{
    CheckOptions, CheckReport, Chunking, FileSource, IngestStats, IngestedFile, RestoreFile,
    RestoreRequest, RestoreStats, SnapshotLabel, SnapshotRecord, TreePath, read_to_vec,
};
use vrs_repository::{
    Access, Location, OpenOptions, Password, ResticRepository, Result, S3Key, SnapshotStore,
};
use vrs_testkit::{REPOSITORY_PASSWORD, StorageServer, make_repository};

pub const PASSWORD: &str = REPOSITORY_PASSWORD;

/// A grid as for disk images, but smaller, and not starting at 0.
pub const GRID: Chunking = Chunking::Grid {
    chunk_bytes: 4096,
    phase_bytes: 512,
};

pub struct Sandbox {
    pub folder: TempDir,
    pub options: OpenOptions,
    /// Where everything is instead, for a test that goes on in another process.
    pub scene: Option<PathBuf>,
}

impl Sandbox {
    pub fn new() -> Self {
        let sandbox = Self {
            folder: tempfile::tempdir().unwrap(),
            options: small_packs(),
            scene: None,
        };
        make_repository(&sandbox.repository_folder());
        sandbox
    }

    pub fn repository_folder(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn location(&self) -> Location {
        Location::parse(self.repository_folder().to_str().unwrap()).unwrap()
    }

    pub fn open(&self) -> ResticRepository {
        ResticRepository::open(&self.location(), &password(), &self.options).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let folder = self.scene.as_deref().unwrap_or(self.folder.path());
        folder.join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Stock restic, which must be installed.
    pub fn restic(&self, arguments: &[&str]) -> String {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(self.repository_folder())
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("HOME", self.folder.path())
            .output()
            .expect("these tests need stock restic: apt-get install restic");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {text}");
        text
    }

    /// All objects of a kind: "data", "index", "snapshots", "keys".
    pub fn objects(&self, kind: &str) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.repository_folder().join(kind)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)
                .unwrap()
                .map(std::result::Result::unwrap)
            {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    found.insert(entry.path(), metadata.len());
                }
            }
        }
        found
    }
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files = all.filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

/// What opens a repository on a server.
pub fn access(server: &StorageServer) -> Access {
    let mut access = Access::default();
    let (user, password) = server.rest_login();
    access.rest_login = Some((user.to_owned(), Password::new(password.to_owned())));
    let (id, secret) = server.s3_key();
    access.s3_key = Some(S3Key {
        id: id.to_owned(),
        secret: Password::new(secret.to_owned()),
        session_token: None,
    });
    access.ssh = server.ssh();
    access.certificates = Some(server.certificate()).filter(|file| file.exists());
    access
}

pub fn password() -> Password {
    Password::new(PASSWORD.to_owned())
}

pub fn small_packs() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.pack_bytes = 64 << 10;
    options.index_every_bytes = 256 << 10;
    options
}

pub fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub fn source(name: &str, local: &Path, chunking: Chunking) -> FileSource {
    FileSource {
        path: path(name),
        local: local.to_path_buf(),
        chunking,
        previous: None,
    }
}

pub fn label() -> SnapshotLabel {
    SnapshotLabel {
        time: "2026-11-21T12:00:00.123456789Z".parse().unwrap(),
        hostname: "host".to_owned(),
        tags: vec!["vrs".to_owned(), "machine=1".to_owned()],
        description: Some("before the upgrade".to_owned()),
    }
}

pub struct Taken {
    pub id: SnapshotId,
    pub stats: IngestStats,
    pub files: Vec<IngestedFile>,
}

pub fn take_with(
    repository: &ResticRepository,
    sources: &[FileSource],
    progress: &dyn Progress,
) -> Result<Taken> {
    let mut ingest = repository.ingest(progress)?;
    let files = sources
        .iter()
        .map(|source| ingest.file(source))
        .collect::<Result<_>>()?;
    ingest.bytes(&path("vrs/manifest.json"), b"{}")?;
    let (id, stats) = ingest.commit(&label())?;
    Ok(Taken { id, stats, files })
}

pub fn take(repository: &ResticRepository, sources: &[FileSource]) -> Taken {
    take_with(repository, sources, &NoProgress).unwrap()
}

pub fn request(snapshot: SnapshotId, files: &[(&str, &Path)]) -> RestoreRequest {
    let files = files
        .iter()
        .map(|(name, target)| RestoreFile {
            path: path(name),
            target: target.to_path_buf(),
            local_chunking: None,
            known: None,
        })
        .collect();
    RestoreRequest {
        snapshot,
        files,
        seeds: Vec::new(),
    }
}

pub fn restore(repository: &ResticRepository, request: &RestoreRequest) -> RestoreStats {
    repository.restore(request, &NoProgress).unwrap()
}

pub fn check(repository: &ResticRepository) -> CheckReport {
    repository
        .check(&CheckOptions::everything(), &NoProgress)
        .unwrap()
}

/// Bytes that do not compress and never repeat.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Counts what is reported, and can ask to stop at a step.
#[derive(Default)]
pub struct Recorder {
    pub steps: Mutex<Vec<&'static str>>,
    pub warnings: Mutex<Vec<String>>,
    pub sent: AtomicU64,
    pub fetched: AtomicU64,
    pub scanned: AtomicU64,
    pub stop: AtomicBool,
}

impl Recorder {
    pub fn count(&self, step: &str) -> usize {
        self.steps
            .lock()
            .unwrap()
            .iter()
            .filter(|present| **present == step)
            .count()
    }
}

impl Progress for Recorder {
    fn phase(&self, _: Phase) {}

    fn add(&self, counter: Counter, bytes: u64) {
        match counter {
            Counter::Sent => self.sent.fetch_add(bytes, Ordering::Relaxed),
            Counter::Fetched => self.fetched.fetch_add(bytes, Ordering::Relaxed),
            Counter::Scanned => self.scanned.fetch_add(bytes, Ordering::Relaxed),
            Counter::Reused => 0,
        };
    }

    fn warn(&self, warning: &str) {
        self.warnings.lock().unwrap().push(warning.to_owned());
    }

    fn step(&self, step: &'static str) {
        self.steps.lock().unwrap().push(step);
    }

    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Asks to stop at a step, counted from 1.
pub struct StopsAt(AtomicUsize);

impl StopsAt {
    pub fn step(number: usize) -> Self {
        Self(AtomicUsize::new(number))
    }
}

impl Progress for StopsAt {
    fn phase(&self, _: Phase) {}
    fn add(&self, _: Counter, _: u64) {}
    fn warn(&self, _: &str) {}

    fn step(&self, _: &'static str) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

/// Adds a snapshot with a small file, and in its description the number that tells what is in it.
pub fn add_numbered(repository: &ResticRepository, number: u64) -> SnapshotId {
    let mut ingest = repository.ingest(&NoProgress).unwrap();
    ingest.bytes(&path("own"), &noise(number, 2000)).unwrap();
    let mut label = label();
    label.description = Some(number.to_string());
    ingest.commit(&label).unwrap().0
}

/// The number of such a snapshot, if its file is as it was added.
pub fn sound_number(repository: &ResticRepository, record: &SnapshotRecord) -> Option<u64> {
    let number = record.description.as_ref().unwrap().parse().unwrap();
    let mut reader = repository.open_file(&record.id, &path("own")).unwrap();
    let content = read_to_vec(reader.as_mut(), 1 << 20).unwrap();
    (content == noise(number, 2000)).then_some(number)
}
