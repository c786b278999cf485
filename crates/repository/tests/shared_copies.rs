//! Two processes on one host with the same copies: one adds snapshots while the other lists, removes and prunes,
//! which writes the files with the copies anew. Nothing is lost, and nothing that is gone is shown.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::store::{CheckOptions, PruneOptions, SnapshotRecord};
use vrs_repository::{OpenOptions, ResticRepository, SnapshotStore};

const FOLDER: &str = "VRS_TEST_FOLDER";
const BEFORE: u64 = 20;
const ADDED: u64 = 60;

fn open(sandbox: &Sandbox, has_copies: bool) -> ResticRepository {
    let mut options: OpenOptions = small_packs();
    options.cache_folder = has_copies.then(|| sandbox.path("cache"));
    ResticRepository::open(&sandbox.location(), &password(), &options).unwrap()
}

/// The sandbox of another process.
fn sandbox_at(folder: &Path) -> Sandbox {
    Sandbox {
        folder: tempfile::tempdir().unwrap(),
        options: small_packs(),
        scene: Some(folder.to_owned()),
    }
}

/// No test of its own: the process that adds.
#[test]
fn run_adding() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let sandbox = sandbox_at(&folder);
    let long = open(&sandbox, true);
    let mut added = std::fs::File::create(folder.join("added")).unwrap();
    for number in BEFORE..BEFORE + ADDED {
        // Each command a process of its own, or one that runs for long.
        let id = match number % 2 {
            0 => add_numbered(&long, number),
            _ => add_numbered(&open(&sandbox, true), number),
        };
        added.write_all(format!("{id}\n").as_bytes()).unwrap();
    }
}

struct Adding(Child);

impl Adding {
    fn start(folder: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["run_adding", "--exact"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.0.try_wait().unwrap();
        ended.is_some_and(|status| {
            assert!(status.success());
            true
        })
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(sandbox: &Sandbox) -> BTreeSet<String> {
    let text = std::fs::read_to_string(sandbox.path("added")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

/// What is listed, which must be readable and hold all that was added before and not removed.
fn list(
    sandbox: &Sandbox,
    repository: &ResticRepository,
    removed: &BTreeSet<String>,
) -> Vec<SnapshotRecord> {
    let added = lines(sandbox);
    let list = repository.snapshots().unwrap();
    assert_eq!(list.unreadable, Vec::<String>::new());
    let listed: BTreeSet<String> = list.snapshots.iter().map(|r| r.id.to_string()).collect();
    assert!(listed.is_disjoint(removed));
    let lost: Vec<_> = added.difference(removed).collect();
    let lost = lost.into_iter().filter(|id| !listed.contains(*id));
    assert_eq!(lost.count(), 0);
    list.snapshots
}

#[test]
fn one_process_adds_while_another_lists_removes_and_prunes() {
    let sandbox = Sandbox::new();
    let long = open(&sandbox, true);
    for number in 0..BEFORE {
        add_numbered(&long, number);
    }
    let old = open(&sandbox, true);
    let first = old.snapshots().unwrap().snapshots;
    assert!(
        first
            .iter()
            .all(|record| sound_number(&old, record).is_some())
    );

    let mut adding = Adding::start(sandbox.folder.path());
    let mut removed = BTreeSet::new();
    let mut round = 0;
    while !adding.has_ended() {
        let fresh = open(&sandbox, true);
        let repository = if round % 2 == 0 { &long } else { &fresh };
        let listed = list(&sandbox, repository, &removed);
        assert!(sound_number(repository, listed.last().unwrap()).is_some());
        if let Some(victim) = listed.first().filter(|_| listed.len() > 10) {
            repository.delete(&[victim.id], &NoProgress).unwrap();
            removed.insert(victim.id.to_string());
            list(&sandbox, repository, &removed);
        }
        if round % 8 == 7 {
            repository
                .prune(&PruneOptions::default(), &NoProgress)
                .unwrap();
        }
        round += 1;
    }

    assert_eq!(lines(&sandbox).len() as u64, ADDED);
    assert!(!removed.is_empty());
    let by_copies = open(&sandbox, true);
    let listed = list(&sandbox, &by_copies, &removed);
    assert_eq!((listed.len() + removed.len()) as u64, BEFORE + ADDED);
    let alone = open(&sandbox, false);
    assert_eq!(list(&sandbox, &alone, &removed), listed);
    // One has known only what there was at the beginning.
    for repository in [&by_copies, &alone, &long, &old] {
        assert!(
            listed
                .iter()
                .all(|record| sound_number(repository, record).is_some())
        );
    }
    let report = alone.check(&CheckOptions::default(), &NoProgress).unwrap();
    assert!(report.errors.is_empty(), "{report:?}");
}
