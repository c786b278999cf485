//! The verbs of a repository on borg, with the real borg, sshd and rsync.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rstest::rstest;
use vrs_borg::{BorgLocation, BorgOptions, BorgRepository};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{
    CheckOptions, Chunking, FileSource, IngestStats, PruneOptions, RestoreFile, RestoreRequest,
    RestoreStats, SnapshotLabel, SnapshotWords, TreePath, read_to_vec,
};
use vrs_repository::{ErrorKind, Password, Result, SnapshotStore};
use vrs_testkit::{ServerKind, StorageServer};

const PASSWORD: &str = "a secret $HOME '\"";
const CHUNK: usize = 128 << 10;
/// Of the file `disk`.
const CHUNKS: usize = 24;
const GRID: Chunking = Chunking::Grid {
    chunk_bytes: 128 << 10,
    phase_bytes: 512,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Local,
    Ssh,
}

/// A repository of its own, with a folder for files.
struct Scene {
    folder: tempfile::TempDir,
    password: &'static str,
    server: Option<StorageServer>,
}

impl Scene {
    fn empty(place: Place) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            password: PASSWORD,
            server: (place == Place::Ssh).then(|| StorageServer::start(ServerKind::Sshd)),
        }
    }

    /// With a repository.
    fn new(place: Place) -> Self {
        let scene = Self::empty(place);
        scene.init().unwrap();
        scene
    }

    fn location(&self) -> BorgLocation {
        let text = match &self.server {
            Some(server) => server.borg_location("repo"),
            None => format!("borg:{}", self.path("repo").display()),
        };
        BorgLocation::parse(&text).unwrap().unwrap()
    }

    fn options(&self) -> BorgOptions {
        let mut options = BorgOptions {
            base_folder: Some(self.path("borg")),
            ..BorgOptions::default()
        };
        if let Some(server) = &self.server {
            options.access.ssh = server.ssh();
        }
        options
    }

    fn init(&self) -> Result<()> {
        BorgRepository::init(&self.location(), &password(self.password), &self.options())
    }

    fn try_open(&self, secret: &str) -> Result<BorgRepository> {
        BorgRepository::open(&self.location(), &password(secret), &self.options())
    }

    fn open(&self) -> BorgRepository {
        self.try_open(self.password).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Where the repository lies for a program that runs on its server.
    fn repository_folder(&self) -> PathBuf {
        let server = self
            .server
            .as_ref()
            .map(|server| server.root().join("repo"));
        server.unwrap_or_else(|| self.path("repo"))
    }

    /// Stock borg on the storage's side.
    fn borg(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("borg");
        command
            .args(arguments)
            .current_dir(self.repository_folder())
            .env("BORG_BASE_DIR", self.path("borg-of-server"))
            .env("BORG_PASSPHRASE", self.password);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "borg {arguments:?}: {text}");
        text
    }
}

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// A disk whose chunks all differ, with zeros in the fifth.
fn disk(seed: u64) -> Vec<u8> {
    let mut disk = noise(seed, CHUNKS * CHUNK + 512);
    disk[512 + 4 * CHUNK..512 + 5 * CHUNK].fill(0);
    disk
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
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

fn source(name: &str, local: &Path, chunking: Chunking) -> FileSource {
    FileSource {
        path: path(name),
        local: local.to_path_buf(),
        chunking,
        previous: None,
    }
}

fn label() -> SnapshotLabel {
    SnapshotLabel {
        time: "2026-11-21T12:00:00.123456789Z".parse().unwrap(),
        hostname: "höst".to_owned(),
        tags: vec!["vrs".to_owned(), "machine={now}, 1".to_owned()],
        description: Some("before the\nupgrade".to_owned()),
    }
}

fn take(
    repository: &BorgRepository,
    disk: &Path,
    progress: &dyn Progress,
) -> Result<(SnapshotId, IngestStats)> {
    let mut ingest = repository.ingest(progress)?;
    ingest.file(&source("web/the disk.vdi", disk, GRID))?;
    ingest.bytes(&path(".vrs/web/manifest.json"), b"{}")?;
    ingest.commit(&label())
}

fn restore(repository: &BorgRepository, id: SnapshotId, target: &Path) -> RestoreStats {
    repository
        .restore(&request(id, target), &NoProgress)
        .unwrap()
}

fn request(snapshot: SnapshotId, target: &Path) -> RestoreRequest {
    let file = RestoreFile {
        path: path("web/the disk.vdi"),
        target: target.to_path_buf(),
        local_chunking: None,
        known: None,
    };
    RestoreRequest {
        snapshot,
        files: vec![file],
        seeds: Vec::new(),
    }
}

#[rstest]
fn every_verb_works(#[values(Place::Local, Place::Ssh)] place: Place) {
    let scene = Scene::empty(place);
    let absent = scene.try_open(PASSWORD).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound, "{absent}");
    scene.init().unwrap();
    let again = scene.init().unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
    let wrong = scene.try_open("wrong").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongPassword, "{wrong}");

    let repository = scene.open();
    let source = scene.write("source", &disk(1));
    let (first, stats) = take(&repository, &source, &NoProgress).unwrap();
    assert_eq!(
        (stats.files, stats.total_bytes),
        (2, disk(1).len() as u64 + 2)
    );
    assert!(stats.sent_bytes > 22 * CHUNK as u64, "{stats:?}");
    let mut changed = disk(1);
    changed[512 + 9 * CHUNK] ^= 1;
    scene.write("source", &changed);
    let (second, stats) = take(&repository, &source, &NoProgress).unwrap();
    // One chunk of the grid, and what borg writes about an archive.
    assert!(stats.sent_bytes < 2 * CHUNK as u64, "{stats:?}");
    assert!(stats.reused_bytes > 22 * CHUNK as u64, "{stats:?}");

    let repository = scene.open();
    let list = repository.snapshots().unwrap();
    assert_eq!((list.snapshots.len(), list.unreadable.len()), (2, 0));
    let record = list
        .snapshots
        .iter()
        .find(|record| record.id == first)
        .unwrap();
    let wanted = label();
    assert_eq!(
        (&record.time, &record.hostname),
        (&wanted.time, &wanted.hostname)
    );
    assert_eq!(
        (&record.tags, &record.description),
        (&wanted.tags, &wanted.description)
    );
    let disk_path = path("web/the disk.vdi");
    let changed_bytes = repository.changed_bytes((&first, &disk_path), (&second, &disk_path));
    assert_eq!(changed_bytes.unwrap(), CHUNK as u64);
    let names: Vec<String> = repository
        .files(&first)
        .unwrap()
        .iter()
        .map(|file| file.path.to_string())
        .collect();
    assert_eq!(names, [".vrs/web/manifest.json", "web/the disk.vdi"]);
    let mut reader = repository.open_file(&first, &disk_path).unwrap();
    let mut piece = vec![0; 1000];
    for offset in [3 * CHUNK, 100, 20 * CHUNK] {
        reader.read_at(offset as u64, &mut piece).unwrap();
        assert_eq!(piece, disk(1)[offset..offset + 1000]);
    }
    // A borg that hands out a file keeps others from changing the repository.
    drop(reader);
    let mut small = repository
        .open_file(&first, &path(".vrs/web/manifest.json"))
        .unwrap();
    assert_eq!(read_to_vec(small.as_mut(), 100).unwrap(), b"{}");
    drop(small);

    let words = SnapshotWords {
        tags: vec!["vrs".to_owned()],
        description: None,
    };
    let second = repository.relabel(&second, &words, &NoProgress).unwrap();
    let records = repository.snapshots().unwrap().snapshots;
    let record = records.iter().find(|record| record.id == second).unwrap();
    assert_eq!((&record.tags, &record.description), (&words.tags, &None));
    let target = scene.path("target");
    restore(&repository, second, &target);
    assert!(std::fs::read(&target).unwrap() == changed);

    let plan = repository
        .plan_prune(&PruneOptions::default(), &[first], &NoProgress)
        .unwrap();
    assert!(
        plan.unused_bytes >= CHUNK as u64 && plan.used_bytes > 22 * CHUNK as u64,
        "{plan:?}"
    );
    repository.delete(&[first], &NoProgress).unwrap();
    let options = PruneOptions {
        max_unused_percent: 0,
        ..PruneOptions::default()
    };
    let pruned = repository.prune(&options, &NoProgress).unwrap();
    assert!(pruned.freed_bytes >= CHUNK as u64, "{pruned:?}");
    let report = repository
        .check(&CheckOptions::everything(), &NoProgress)
        .unwrap();
    assert_eq!(
        (report.errors, report.damaged_snapshots),
        (Vec::new(), Vec::new())
    );
    restore(&repository, second, &target);
    assert!(std::fs::read(&target).unwrap() == changed);
    // Stock borg sees one archive with the machine's folder in it.
    let listed = scene.borg(&["list", "--short", "."]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let name = format!(".::{}", listed.trim());
    assert!(
        scene
            .borg(&["list", "--short", &name])
            .contains("web/the disk.vdi")
    );
}

#[rstest]
fn a_restore_writes_only_what_differs(#[values(Place::Local, Place::Ssh)] place: Place) {
    let scene = Scene::new(place);
    let repository = scene.open();
    let source = scene.write("source", &disk(1));
    let (id, _) = take(&repository, &source, &NoProgress).unwrap();
    // Longer, with a chunk that differs and noise where zeros belong.
    let mut other = disk(1);
    other[512 + 2 * CHUNK..512 + 3 * CHUNK].copy_from_slice(&noise(7, CHUNK));
    other[512 + 4 * CHUNK..512 + 5 * CHUNK].copy_from_slice(&noise(8, CHUNK));
    other.extend_from_slice(&noise(9, 5000));
    let target = scene.write("target", &other);
    let recorder = Recorder::default();
    let stats = repository
        .restore(&request(id, &target), &recorder)
        .unwrap();
    assert!(std::fs::read(&target).unwrap() == disk(1));
    // rsync's blocks and those of the stream do not begin where the chunks do.
    let moved = stats.fetched_bytes + stats.zero_bytes;
    assert!(moved >= CHUNK as u64, "{stats:?}");
    assert!(moved < 3 * 1024 * 1024, "{stats:?}");
    assert_eq!(recorder.notes.lock().unwrap().as_slice(), [] as [String; 0]);
    if place == Place::Ssh {
        assert!(moved < 6 * CHUNK as u64, "{stats:?}");
        assert_eq!(recorder.fetched.load(Ordering::SeqCst), stats.fetched_bytes);
    }
    let again = restore(&repository, id, &target);
    assert_eq!(again.fetched_bytes + again.zero_bytes, 0, "{again:?}");
    assert_eq!(again.in_place_bytes, disk(1).len() as u64);
    let times = [&source, &target].map(|file| {
        let modified = std::fs::metadata(file).unwrap().modified().unwrap();
        let since = modified
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        since.as_millis()
    });
    assert!(times[0].abs_diff(times[1]) <= 1, "{times:?}");
    if let Some(server) = &scene.server {
        assert_eq!(server.borg_mounts(), Vec::<PathBuf>::new());
    }
    let planned = repository
        .plan_restore(&request(id, &target), &NoProgress)
        .unwrap();
    assert_eq!(planned.in_place_bytes, disk(1).len() as u64);
}

/// A server with nothing but `borg serve` for the key, as borg's manual advises.
#[test]
fn a_server_that_cannot_mount_is_told_and_done_without() {
    let scene = Scene::new(Place::Ssh);
    let repository = scene.open();
    let source = scene.write("source", &disk(1));
    let (id, _) = take(&repository, &source, &NoProgress).unwrap();
    let server = scene.server.as_ref().unwrap();
    server.permit_only("borg serve");
    let target = scene.write("target", &disk(2));
    let recorder = Recorder::default();
    repository
        .restore(&request(id, &target), &recorder)
        .unwrap();
    assert!(std::fs::read(&target).unwrap() == disk(1));
    let notes = recorder.notes.lock().unwrap().clone();
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].starts_with("the server cannot mount the archive ("),
        "{notes:?}"
    );
}

/// A mount whose process is gone, as after a crash of the server.
#[test]
fn a_leftover_mount_is_removed_by_the_next() {
    let scene = Scene::new(Place::Ssh);
    let repository = scene.open();
    let source = scene.write("source", &disk(1));
    let (id, _) = take(&repository, &source, &NoProgress).unwrap();
    let target = scene.write("target", &disk(2));
    restore(&repository, id, &target);
    let server = scene.server.as_ref().unwrap();
    let base = server.borg_mount_base();
    let left = base.join(i32::MAX.to_string());
    std::fs::create_dir(&left).unwrap();
    scene.borg(&["mount", ".", left.to_str().unwrap()]);
    assert!(is_mounted(&left));
    restore(&repository, id, &target);
    assert!(!is_mounted(&left) && !left.exists());
}

fn is_mounted(folder: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    mounts.contains(folder.to_str().unwrap())
}

#[rstest]
fn a_file_that_changes_while_it_is_read_is_not_stored(
    #[values(GRID, Chunking::Whole)] chunking: Chunking,
) {
    /// Writes to the file when it is half read.
    struct Touches(PathBuf, Mutex<bool>);
    impl Progress for Touches {
        fn phase(&self, _: Phase) {}
        fn warn(&self, _: &str) {}
        fn add(&self, counter: Counter, _: u64) {
            let mut done = self.1.lock().unwrap();
            if counter == Counter::Scanned && !*done {
                *done = true;
                let mut file = std::fs::File::options().append(true).open(&self.0).unwrap();
                file.write_all(b"more").unwrap();
            }
        }
    }
    let scene = Scene::new(Place::Local);
    let repository = scene.open();
    let other = scene.write("other", &disk(2));
    let file = scene.write("source", &disk(1));
    let touches = Touches(file.clone(), Mutex::new(false));
    let mut ingest = repository.ingest(&touches).unwrap();
    let error = ingest
        .file(&source("web/disk", &file, chunking))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    ingest.file(&source("web/other", &other, GRID)).unwrap();
    let (id, _) = ingest.commit(&label()).unwrap();
    let names: Vec<_> = repository.files(&id).unwrap();
    let names: Vec<_> = names.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["web/other"]);
}

#[rstest]
fn an_interrupted_take_leaves_no_snapshot_and_the_next_one_cleans_up(
    #[values(Place::Local, Place::Ssh)] place: Place,
) {
    let scene = Scene::new(place);
    let repository = scene.open();
    let source_file = scene.write("source", &disk(1));
    {
        let mut ingest = repository.ingest(&NoProgress).unwrap();
        ingest
            .file(&source("web/disk", &source_file, GRID))
            .unwrap();
    }
    let stops = StopsAt(AtomicU64::new(1 << 20));
    let error = take(&repository, &source_file, &stops).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 0);
    // What a vrs that was killed between its steps leaves: a sound archive under a hidden name.
    let host = vrs_repository::local::hostname();
    let name = format!(".::vrs-incomplete-{host}-{}-x", i32::MAX);
    scene.borg(&["create", &name, "config"]);
    assert_eq!(repository.snapshots().unwrap().snapshots.len(), 0);
    take(&repository, &source_file, &NoProgress).unwrap();
    let listed = scene.borg(&["list", "--short", "--consider-checkpoints", "."]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

#[test]
fn damage_is_named_and_repaired_and_stored_again() {
    let scene = Scene::new(Place::Local);
    let repository = scene.open();
    let source = scene.write("source", &disk(1));
    let (id, _) = take(&repository, &source, &NoProgress).unwrap();
    damage_largest_segment(&scene.path("repo/data"));
    let report = repository
        .check(&CheckOptions::everything(), &NoProgress)
        .unwrap();
    assert!(!report.errors.is_empty());
    let done = repository
        .repair(&CheckOptions::everything(), &NoProgress)
        .unwrap();
    assert!(!done.is_empty());
    let report = repository
        .check(&CheckOptions::default(), &NoProgress)
        .unwrap();
    assert_eq!(report.damaged_snapshots.len(), 1, "{report:?}");
    assert_eq!(report.losses[0].path, "web/the disk.vdi");
    let damaged = report.damaged_snapshots[0];
    let target = scene.path("target");
    let refused = repository
        .restore(&request(damaged, &target), &NoProgress)
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged, "{refused}");
    assert!(!target.exists());
    // A later take brings the chunks back, and a repair puts them where they were lost.
    let (whole, _) = take(&repository, &source, &NoProgress).unwrap();
    repository
        .repair(&CheckOptions::default(), &NoProgress)
        .unwrap();
    let report = repository
        .check(&CheckOptions::everything(), &NoProgress)
        .unwrap();
    assert_eq!(
        (report.errors, report.damaged_snapshots),
        (Vec::new(), Vec::new())
    );
    let healed = repository.snapshots().unwrap().snapshots;
    assert_eq!(healed.len(), 2, "{id} {whole}");
    for record in healed {
        restore(&repository, record.id, &target);
        assert!(std::fs::read(&target).unwrap() == disk(1));
        std::fs::remove_file(&target).unwrap();
    }
}

fn damage_largest_segment(data: &Path) {
    let folder = std::fs::read_dir(data)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let segments = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let largest = segments
        .max_by_key(|file| std::fs::metadata(file).unwrap().len())
        .unwrap();
    let mut content = std::fs::read(&largest).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    std::fs::write(&largest, content).unwrap();
}

/// Watches what every process is given while vrs works.
#[test]
fn the_password_is_in_no_argument_and_no_variable() {
    const ONLY_HERE: &str = "only here and nowhere else";
    let mut scene = Scene::empty(Place::Ssh);
    scene.password = ONLY_HERE;
    let source = scene.write("source", &disk(1));
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::SeqCst) {
                seen.extend(processes_of_borg());
            }
            seen
        });
        scene.init().unwrap();
        let repository = scene.open();
        let (id, _) = take(&repository, &source, &NoProgress).unwrap();
        restore(&repository, id, &scene.path("target"));
        assert!(!format!("{repository:?}").contains(ONLY_HERE));
        is_over.store(true, Ordering::SeqCst);
        watch.join().unwrap()
    });
    let seen: String = seen.into_iter().collect();
    for verb in ["import-tar", "recreate", "mount", "--inplace"] {
        assert!(seen.contains(verb), "{seen}");
    }
    assert!(!seen.contains(ONLY_HERE), "{seen}");
}

/// Arguments and environment of all that has to do with borg.
fn processes_of_borg() -> Vec<String> {
    let text = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let given = processes.filter_map(|process| {
        let arguments = text(process.path().join("cmdline"));
        let is_wanted = arguments.contains("borg") && !arguments.contains("cargo");
        is_wanted.then(|| arguments + "\n" + &text(process.path().join("environ")) + "\n")
    });
    given.collect()
}

/// Keeps what is told.
#[derive(Default)]
struct Recorder {
    notes: Mutex<Vec<String>>,
    fetched: AtomicU64,
}

impl Progress for Recorder {
    fn phase(&self, _: Phase) {}
    fn warn(&self, warning: &str) {
        self.note(warning);
    }
    fn note(&self, note: &str) {
        self.notes.lock().unwrap().push(note.to_owned());
    }
    fn add(&self, counter: Counter, bytes: u64) {
        if counter == Counter::Fetched {
            self.fetched.fetch_add(bytes, Ordering::SeqCst);
        }
    }
}

/// Asks to stop when so many bytes were looked at.
struct StopsAt(AtomicU64);

impl Progress for StopsAt {
    fn phase(&self, _: Phase) {}
    fn warn(&self, _: &str) {}
    fn add(&self, counter: Counter, bytes: u64) {
        if counter == Counter::Scanned {
            let left = self.0.load(Ordering::SeqCst).saturating_sub(bytes);
            self.0.store(left, Ordering::SeqCst);
        }
    }
    fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}
