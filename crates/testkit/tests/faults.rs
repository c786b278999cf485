//! The fault helpers break operations where they say, and notice an operation that breaks by
//! itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::Path;

use vrs_progress::{Counter, Progress};
use vrs_testkit::{CrashPoint, FaultProgress, StepLog, TinyDisk, run_at_every_step};

fn write_three_files(folder: &Path, progress: &dyn Progress) {
    for name in ["one", "two", "three"] {
        progress.step(name);
        fs::write(
            folder.join(name),
            folder.join("prepared").exists().to_string(),
        )
        .unwrap();
        progress.add(Counter::Sent, 4);
    }
}

#[test]
fn every_step_is_a_crash_with_exactly_the_earlier_steps_done() {
    let crashes = run_at_every_step(
        "every_step_is_a_crash_with_exactly_the_earlier_steps_done",
        |folder| fs::write(folder.join("prepared"), "").unwrap(),
        write_three_files,
        |folder, crash| {
            let written = ["one", "two", "three"].map(|name| folder.join(name).exists());
            assert_eq!(written, [crash.number > 1, crash.number > 2, false]);
        },
    );
    let names: Vec<_> = crashes
        .iter()
        .map(|CrashPoint { number, step }| (*number, step.as_str()))
        .collect();
    assert_eq!(names, [(1, "one"), (2, "two"), (3, "three")]);
}

#[test]
#[should_panic(expected = "announces no steps")]
fn an_operation_without_steps_is_noticed() {
    run_at_every_step(
        "an_operation_without_steps_is_noticed",
        |_| {},
        |_, _| {},
        |_, _| {},
    );
}

#[test]
#[should_panic(expected = "failed by itself")]
fn an_operation_that_fails_by_itself_is_noticed() {
    run_at_every_step(
        "an_operation_that_fails_by_itself_is_noticed",
        |_| {},
        |_, _| panic!("broken"),
        |_, _| {},
    );
}

#[test]
#[should_panic(expected = "does not exist")]
fn a_misspelt_test_is_noticed() {
    run_at_every_step("no_such_test", |_| {}, write_three_files, |_, _| {});
}

#[test]
fn an_interruption_starts_at_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let progress = FaultProgress::interrupt_at(3);
    progress.step("earlier");
    progress.step("earlier");
    assert!(!progress.interrupted());
    write_three_files(folder.path(), &progress);
    assert!(progress.interrupted());
    assert_eq!(progress.steps_taken(), 5);
}

#[test]
fn the_log_keeps_order_and_sums() {
    let folder = tempfile::tempdir().unwrap();
    let log = StepLog::default();
    write_three_files(folder.path(), &log);
    assert_eq!(log.steps(), ["one", "two", "three"]);
    assert_eq!(log.count("two"), 1);
    assert_eq!(log.bytes(Counter::Sent), 12);
    assert_eq!(log.bytes(Counter::Fetched), 0);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_tiny_disk_is_full_soon_and_gone_afterwards() {
    let disk = TinyDisk::mount(1 << 20);
    let path = disk.path().to_owned();
    let error = fs::write(path.join("too-much"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    drop(disk);
    assert!(!path.exists());
}
