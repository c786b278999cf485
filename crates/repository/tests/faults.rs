//! Killed at every step, full disks: the next run succeeds and repeats nothing.
//!
//! The cases run in a process of their own: this test binary again, told by [`CASE`] what to do.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use jiff::{SignedDuration, Timestamp};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::store::{CheckOptions, Chunking, FileSource, PruneOptions};
use vrs_repository::{
    Access, ErrorKind, InitOptions, Interrupted, Location, ResticRepository, SnapshotStore,
};
use vrs_testkit::{ServerKind, StorageServer};

const CASE: &str = "VRS_TEST_CASE";
const FOLDER: &str = "VRS_TEST_FOLDER";
const STEP: &str = "VRS_TEST_STEP";

/// Dies at a step as a process dies when the power fails.
struct DiesAt {
    left: AtomicUsize,
}

impl Progress for DiesAt {
    fn phase(&self, _: Phase) {}
    fn add(&self, _: Counter, _: u64) {}
    fn warn(&self, _: &str) {}

    fn step(&self, _: &'static str) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

fn child(case: &str, sandbox: &Path, step: usize) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "run_case", "--nocapture"]);
    command
        .env(CASE, case)
        .env(FOLDER, sandbox)
        .env(STEP, step.to_string())
        .env("RUST_BACKTRACE", "0");
    command
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
}

fn inputs(folder: &Path) -> Vec<FileSource> {
    let state = Chunking::ContentDefined {
        average_bytes: 4096,
    };
    let all = [
        ("disk", GRID, noise(1, 300_000)),
        ("state", state, noise(2, 200_000)),
    ];
    all.into_iter()
        .map(|(name, chunking, content)| {
            let local = folder.join(name);
            if !local.exists() {
                std::fs::write(&local, content).unwrap();
            }
            source(name, &local, chunking)
        })
        .collect()
}

fn open(folder: &Path) -> ResticRepository {
    let location = Location::parse(folder.join("repository").to_str().unwrap()).unwrap();
    let mut options = small_packs();
    options.threads = 1;
    ResticRepository::open(&location, &password(), &options).unwrap()
}

/// No test of its own: what [`child`] runs.
#[test]
fn run_case() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let folder = std::path::PathBuf::from(std::env::var(FOLDER).unwrap());
    let dies = DiesAt {
        left: AtomicUsize::new(std::env::var(STEP).unwrap().parse().unwrap()),
    };
    match case.as_str() {
        "take" => drop(take_with(&open(&folder), &inputs(&folder), &dies).unwrap()),
        "restore" => {
            let repository = open(&folder);
            let snapshot = repository.snapshots().unwrap().snapshots[0].id;
            repository
                .restore(
                    &request(snapshot, &[("disk", &folder.join("target"))]),
                    &dies,
                )
                .unwrap();
        }
        "full repository" => full_repository(&folder),
        "full SFTP server" => full_sftp_server(&folder),
        "full REST server" => full_rest_server(&folder),
        "full target" => full_target(&folder),
        other => panic!("no case {other}"),
    }
}

#[test]
fn a_take_that_was_killed_at_any_step_is_continued() {
    for step in 1.. {
        let sandbox = Sandbox::new();
        let sources = inputs(sandbox.folder.path());
        let finished = child("take", sandbox.folder.path(), step).success();
        let repository = sandbox.open();
        assert_eq!(
            repository.snapshots().unwrap().snapshots.len(),
            usize::from(finished),
            "step {step}"
        );
        if finished {
            assert!(step > 8, "only {step} steps");
            return;
        }
        let taken = take(&repository, &sources);
        assert_eq!(
            check(&repository).errors,
            Vec::<String>::new(),
            "step {step}"
        );
        let blobs = sandbox.restic(&["list", "blobs"]);
        let mut lines: Vec<_> = blobs.lines().collect();
        lines.sort_unstable();
        assert!(
            lines.windows(2).all(|pair| pair[0] != pair[1]),
            "step {step}: sent twice"
        );
        let out = sandbox.path("out");
        restore(&repository, &request(taken.id, &[("state", &out)]));
        assert!(std::fs::read(out).unwrap() == noise(2, 200_000));
    }
}

#[test]
fn a_restore_that_was_killed_at_any_step_is_finished_by_the_next() {
    let sandbox = Sandbox::new();
    let folder = sandbox.folder.path();
    let wanted = [noise(1, 60_000), vec![0; 40_960], noise(3, 20_000)].concat();
    let local = sandbox.write("wanted", &wanted);
    let repository = sandbox.open();
    let taken = take(&repository, &[source("disk", &local, GRID)]);
    // Parts in place, parts moved within the file, a longer tail.
    let before = [
        &wanted[..10_000],
        &noise(7, 6_896)[..],
        &wanted[512..50_000],
        &noise(8, 90_000)[..],
    ]
    .concat();
    for step in 1.. {
        std::fs::write(folder.join("target"), &before).unwrap();
        let finished = child("restore", folder, step).success();
        let recorder = Recorder::default();
        repository
            .restore(
                &request(taken.id, &[("disk", &folder.join("target"))]),
                &recorder,
            )
            .unwrap();
        assert!(
            std::fs::read(folder.join("target")).unwrap() == wanted,
            "step {step}"
        );
        if finished {
            assert!(step > 8, "only {step} steps");
            assert!(recorder.steps.lock().unwrap().is_empty());
            return;
        }
    }
}

#[test]
fn an_interrupted_take_leaves_no_snapshot_and_is_continued() {
    let sandbox = Sandbox::new();
    let sources = inputs(sandbox.folder.path());
    let repository = sandbox.open();
    let recorder = Recorder::default();
    recorder.stop.store(true, Ordering::Relaxed);
    let error = take_with(&repository, &sources, &recorder)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(repository.snapshots().unwrap().snapshots.is_empty());
    take(&repository, &sources);
}

/// Runs a case where a small file system of its own is mounted on `folder/small`.
fn on_a_small_disk(case: &str, size: &str) {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} small \"${FOLDER}/small\" && exec \"$0\" --exact run_case --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(CASE, case)
        .env(FOLDER, sandbox.folder.path())
        .env(STEP, "0")
        .output()
        .expect("these tests need unshare: apt-get install util-linux");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn grow(folder: &Path) {
    let grown = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(folder)
        .status()
        .unwrap();
    assert!(grown.success());
}

#[test]
fn a_full_repository_disk_is_told_and_loses_nothing() {
    on_a_small_disk("full repository", "300k");
}

#[test]
fn a_full_server_is_told_and_loses_nothing() {
    for case in ["full SFTP server", "full REST server"] {
        on_a_small_disk(case, "300k");
    }
}

fn full_repository(folder: &Path) {
    let location = Location::parse(folder.join("small/repository").to_str().unwrap()).unwrap();
    full_storage(folder, &location, &Access::default(), ErrorKind::NoSpace);
}

/// OpenSSH's server of files, but not `sshd`, which cannot change users here.
fn full_sftp_server(folder: &Path) {
    let text = format!("sftp:host:{}/small/repository", folder.display());
    let mut access = Access::default();
    access.ssh = ["sh", "-c", "exec /usr/lib/openssh/sftp-server"]
        .map(str::to_owned)
        .to_vec();
    let location = Location::parse(&text).unwrap();
    full_storage(folder, &location, &access, ErrorKind::NoSpace);
}

fn full_rest_server(folder: &Path) {
    let server = StorageServer::start_at(ServerKind::RcloneRest, &folder.join("small"));
    let location = Location::parse(&server.location("repository")).unwrap();
    let mut access = access(&server);
    // rclone says only that something went wrong, for which vrs would wait.
    access.interrupted = Interrupted::new(|| true);
    full_storage(folder, &location, &access, ErrorKind::Io);
}

fn full_storage(folder: &Path, location: &Location, access: &Access, told: ErrorKind) {
    let (mut init, mut open) = (InitOptions::default(), small_packs());
    init.access = access.clone();
    open.access = access.clone();
    ResticRepository::init(location, &password(), &init).unwrap();
    let repository = ResticRepository::open(location, &password(), &open).unwrap();
    let sources = inputs(folder);
    let error = take_with(&repository, &sources, &NoProgress)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), told, "{error:?}");
    assert!(repository.snapshots().unwrap().snapshots.is_empty());
    grow(&folder.join("small"));
    let taken = take(&repository, &sources);
    assert!(taken.stats.reused_bytes > 100_000, "{:?}", taken.stats);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

#[test]
fn a_full_target_disk_is_told_and_the_next_run_finishes() {
    on_a_small_disk("full target", "100k");
}

fn full_target(folder: &Path) {
    let repository = open(folder);
    let taken = take(&repository, &inputs(folder));
    let target = folder.join("small/disk");
    let wanted = request(taken.id, &[("disk", &target)]);
    let error = repository.restore(&wanted, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    // Before anything was written.
    assert!(std::fs::read(&target).unwrap() == [0; 300_000]);
    grow(&folder.join("small"));
    let stats = restore(&repository, &wanted);
    assert_eq!(stats.fetched_bytes, 300_000);
    assert!(std::fs::read(target).unwrap() == noise(1, 300_000));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_stored() {
    struct Toucher(std::path::PathBuf);
    impl Progress for Toucher {
        fn phase(&self, _: Phase) {}
        fn warn(&self, _: &str) {}
        fn add(&self, counter: Counter, _: u64) {
            if counter == Counter::Scanned {
                let file = std::fs::OpenOptions::new()
                    .append(true)
                    .open(&self.0)
                    .unwrap();
                std::io::Write::write_all(&mut &file, b"x").unwrap();
            }
        }
    }
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, 10_000));
    let repository = sandbox.open();
    let toucher = Toucher(local.clone());
    let mut ingest = repository.ingest(&toucher).unwrap();
    let error = ingest.file(&source("disk", &local, GRID)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().starts_with(&format!(
        "{} changed while it was being read",
        local.display()
    )));
    // The others of the same snapshot are not affected.
    ingest.bytes(&path("manifest"), b"{}").unwrap();
    let (id, stats) = ingest.commit(&label()).unwrap();
    assert_eq!((stats.files, repository.files(&id).unwrap().len()), (1, 1));
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

/// What finds a snapshot whose take was killed when it had just appeared, while a prune that was killed,
/// too, marked what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finder {
    Take,
    Prune,
    Repair,
}

#[rstest::rstest]
fn what_two_killed_processes_left_marked_is_taken_back(
    #[values(Finder::Take, Finder::Prune, Finder::Repair)] finder: Finder,
) {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let sources = inputs(sandbox.folder.path());
    let id = take(&repository, &sources).id;
    let object = sandbox.repository_folder().join(format!("snapshots/{id}"));
    let content = std::fs::read(&object).unwrap();
    repository.delete(&[id], &NoProgress).unwrap();
    let options = PruneOptions {
        now: Timestamp::now() + SignedDuration::from_hours(25),
        ..PruneOptions::default()
    };
    let stats = repository.prune(&options, &NoProgress).unwrap();
    assert!(stats.marked_bytes > 400_000, "{stats:?}");
    // Just as if the snapshot had appeared now, and leaves the lock of a killed take.
    assert!(!child("take", sandbox.folder.path(), 2).success());
    std::fs::write(&object, content).unwrap();
    assert_eq!(sandbox.objects("locks").len(), 1);
    let report = check(&repository);
    let explained = report
        .errors
        .iter()
        .any(|text| text.contains("is only marked"));
    assert!(explained, "{:?}", report.errors);

    match finder {
        Finder::Take => {
            let other = sandbox.write("other", &noise(9, 5000));
            take(&repository, &[source("other", &other, GRID)]);
        }
        Finder::Prune => drop(
            repository
                .prune(&PruneOptions::default(), &NoProgress)
                .unwrap(),
        ),
        Finder::Repair => {
            // A folder list that is only marked hides what else is.
            let planned = repository.plan_repair(CheckOptions::default(), &NoProgress);
            assert!(planned.unwrap()[0].contains("would be taken back"));
            let done = repository
                .repair(&CheckOptions::default(), &NoProgress)
                .unwrap();
            assert!(done.iter().all(|text| text.contains("is taken back")));
        }
    }
    assert_eq!(check(&repository).errors, Vec::<String>::new());
    let out = sandbox.path("out");
    restore(&repository, &request(id, &[("disk", &out)]));
    assert!(std::fs::read(out).unwrap() == noise(1, 300_000));
    assert!(sandbox.objects("locks").is_empty());
}
