//! Living with stock restic on the same repository.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use vrs_progress::NoProgress;
use vrs_repository::{ErrorKind, SnapshotStore};

fn restic(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = Command::new("restic");
    command
        .args(["--no-cache", "-r"])
        .arg(sandbox.repository_folder())
        .args(arguments);
    command
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("HOME", sandbox.folder.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn restic_prune_waits_for_a_snapshot_in_the_making() {
    let sandbox = Sandbox::new();
    let local = sandbox.write("disk", &noise(1, 300_000));
    let repository = sandbox.open();
    let mut ingest = repository.ingest(&NoProgress).unwrap();
    ingest.file(&source("disk", &local, GRID)).unwrap();
    let refused = restic(&sandbox, &["prune"]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("already locked"),
        "{text}"
    );
    ingest.commit(&label()).unwrap();
    assert!(sandbox.objects("locks").is_empty());
    sandbox.restic(&["prune"]);
    assert_eq!(check(&repository).errors, Vec::<String>::new());
}

/// Stops restic while it holds its exclusive lock.
fn stopped_while_locked(sandbox: &Sandbox) -> Child {
    let child = restic(sandbox, &["check", "--read-data"])
        .spawn()
        .expect("these tests need stock restic");
    let folder = sandbox.repository_folder().join("locks");
    // Other names are those of files that are being written.
    let is_lock = |name: &std::ffi::OsStr| name.len() == 64;
    let names = || {
        std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
    };
    while !names().any(|name| is_lock(&name)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = Command::new("kill")
        .args(["-STOP", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    child
}

#[test]
fn an_exclusive_lock_is_respected_while_its_holder_lives() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let mut holder = stopped_while_locked(&sandbox);
    let error = repository.ingest(&NoProgress).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let begin = format!(
        "the repository at {} is locked by process {} of ",
        repository.location(),
        holder.id()
    );
    assert!(error.to_string().starts_with(&begin), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    take(&repository, &[]);
    assert!(sandbox.objects("locks").is_empty());
}
