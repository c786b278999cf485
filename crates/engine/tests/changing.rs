//! A machine that changes while it is read is not stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Scene, let_the_clock_move_on};
use vrs_engine::take::{self, TakeOptions};
use vrs_engine::{Error, catalog};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_testkit::SampleMachine;

/// Changes something the moment that the second disk is about to be read.
struct Meddler<'a> {
    change: &'a (dyn Fn() + Sync),
    done: AtomicBool,
}

impl Progress for Meddler<'_> {
    fn phase(&self, phase: Phase) {
        if phase.subject == "data.vdi" && !self.done.swap(true, Ordering::SeqCst) {
            (self.change)();
        }
    }

    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}
}

/// Takes a machine that `change` changes meanwhile; then takes it undisturbed.
fn take_while(change: impl Fn(&SampleMachine) + Sync) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    let meddler = Meddler {
        change: &|| change(&machine),
        done: AtomicBool::new(false),
    };
    let error = scene.try_take(&machine, &meddler).unwrap_err();
    assert!(meddler.done.load(Ordering::SeqCst));
    assert!(
        catalog::snapshots(scene.store())
            .unwrap()
            .snapshots
            .is_empty()
    );
    scene.take(&machine);
    error
}

fn disk(machine: &SampleMachine) -> PathBuf {
    machine.chain(0)[0].clone()
}

fn assert_names(error: &Error, what: &str) {
    assert!(matches!(error, Error::ChangedWhileRead { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("machine 'web' was started or changed while it was read ("),
        "{text}"
    );
    assert!(text.contains(what), "{text}");
    assert!(
        text.ends_with("take it again while it is powered off, what was sent is reused"),
        "{text}"
    );
}

#[test]
fn a_disk_that_is_written_to() {
    let error = take_while(|machine| {
        let file = File::options().write(true).open(disk(machine)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    });
    assert_names(&error, "disk0.vdi");
}

#[test]
fn a_disk_that_is_cut_short() {
    let error = take_while(|machine| {
        let file = File::options().write(true).open(disk(machine)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - (1 << 20)).unwrap();
    });
    assert_names(&error, "disk0.vdi");
}

#[test]
fn a_disk_that_was_known_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    let_the_clock_move_on();
    scene.take(&machine);
    let plan = scene.plan_take(&machine, TakeOptions::default()).unwrap();
    machine.fill(0, 0, 4096, 77);
    let error = take::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap_err();
    assert_names(&error, "disk0.vdi");
}

#[test]
fn settings_that_are_saved_anew() {
    let error = take_while(|machine| {
        let path = machine.settings_path();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("RAMSize=\"16\"", "RAMSize=\"32\"")).unwrap();
    });
    assert_names(&error, "web.vbox");
}
