//! Giving up an interrupted clone or restore, wherever it was cut, and wherever the undoing is cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod registered;

use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Scene, Tree, assert_same, tree};
use registered::{Known, assert_listed, changed_machine, find, recover_all, virtualbox};
use vrs_engine::journal::Unfinished;
use vrs_engine::restore::RestorePlan;
use vrs_engine::undo::{self, UndoPlan};
use vrs_engine::{Error, ErrorKind, Result, recover, restore};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_testkit::run_at_every_step;

/// Stops the operation dead before the step of a name, of which it lets `left` - 1 pass.
struct StopBefore {
    step: &'static str,
    left: AtomicUsize,
}

impl Progress for StopBefore {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}

    fn step(&self, step: &'static str) {
        let is_named = step == self.step;
        let left = if is_named {
            self.left.fetch_sub(1, Ordering::SeqCst)
        } else {
            0
        };
        assert!(left != 1, "stopped on purpose");
    }
}

fn carry_out_until(scene: &Scene, plan: &RestorePlan, step: &'static str, at: usize) {
    let stop = StopBefore {
        step,
        left: AtomicUsize::new(at),
    };
    catch_unwind(AssertUnwindSafe(|| {
        restore::execute(&scene.host, scene.store(), plan, &stop)
    }))
    .unwrap_err();
}

/// A clone of which only the end of the journal is missing.
fn complete_clone(folder: &Path, known: Known) -> Tree {
    let present = changed_machine(folder, known).1;
    let scene = known.scene(folder);
    let plan = scene.plan_clone("web@latest", "second").unwrap();
    carry_out_until(&scene, &plan, "journal-finish", 1);
    present
}

/// A restore that put the settings aside and did nothing more.
fn restore_before_the_first_write(folder: &Path, known: Known) -> Tree {
    let present = changed_machine(folder, known).1;
    let scene = known.scene(folder);
    let plan = scene.plan_restore("web@latest").unwrap();
    // An earlier restore was cut after it had ended its journal.
    let stale = scene
        .host
        .journals()
        .attachment(plan.intent.machine, "old-settings-0");
    fs::create_dir_all(stale.parent().unwrap()).unwrap();
    fs::write(stale, "of another time").unwrap();
    let records = match known {
        Known::ByItsFile => 2,
        Known::ToVirtualBox => 3,
    };
    carry_out_until(&scene, &plan, "journal-record", records);
    assert!(!plan.intent.settings_file.exists());
    present
}

fn owed(scene: &Scene) -> Vec<Unfinished> {
    recover::owed(&scene.host).unwrap()
}

/// What `vrs recover --undo` does.
fn undo_all(scene: &Scene, progress: &dyn Progress) -> Vec<Result<UndoPlan>> {
    let owed = owed(scene).into_iter();
    owed.map(|journal| undo::execute(&scene.host, &journal, progress))
        .collect()
}

fn assert_as_before(scene: &Scene, known: Known, present: &Tree, what: &str) {
    assert_same(&tree(&scene.machines()), present, what);
    assert!(!scene.machines().join("second").exists(), "{what}");
    assert!(owed(scene).is_empty(), "{what}");
    let journal = tree(&scene.folder.join("state"));
    assert!(
        !journal
            .keys()
            .any(|file| file.extension() != Some("lock".as_ref())),
        "{what}: {:?}",
        journal.keys()
    );
    if known == Known::ToVirtualBox {
        assert_listed(scene, &["web"], what);
    }
}

fn undo_a_clone_cut_anywhere(test: &str, known: Known) {
    let present = RefCell::new(Tree::new());
    run_at_every_step(
        test,
        |folder| *present.borrow_mut() = changed_machine(folder, known).1,
        |folder, progress| {
            let scene = known.scene(folder);
            let plan = scene.plan_clone("web@latest", "second").unwrap();
            restore::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        },
        |folder, crash| {
            let scene = known.scene(folder);
            for undone in undo_all(&scene, &NoProgress) {
                undone.unwrap();
            }
            assert_as_before(&scene, known, &present.borrow(), &format!("{crash:?}"));
        },
    );
}

fn cut_the_undoing_of_a_clone(test: &str, known: Known) {
    let present = RefCell::new(Tree::new());
    let crashes = run_at_every_step(
        test,
        |folder| *present.borrow_mut() = complete_clone(folder, known),
        |folder, progress| {
            let undone = undo_all(&known.scene(folder), progress);
            assert!(undone.iter().all(Result::is_ok), "{undone:?}");
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = known.scene(folder);
            // Either way is open still.
            if crash.number % 2 == 0 {
                recover_all(&scene);
                assert!(owed(&scene).is_empty(), "{what}");
                let clone = folder.join("machines/second/second.vbox");
                assert!(clone.is_file(), "{what}");
                if known == Known::ToVirtualBox {
                    assert_listed(&scene, &["second", "web"], &what);
                }
            } else {
                for undone in undo_all(&scene, &NoProgress) {
                    undone.unwrap();
                }
                assert_as_before(&scene, known, &present.borrow(), &what);
            }
        },
    );
    assert!(crashes.iter().any(|crash| crash.step == "file-remove"));
}

fn undo_a_restore_cut_anywhere(test: &str, known: Known) {
    let trees = RefCell::new((Tree::new(), Tree::new()));
    let outcomes = RefCell::new(Vec::new());
    run_at_every_step(
        test,
        |folder| *trees.borrow_mut() = changed_machine(folder, known),
        |folder, progress| {
            let scene = known.scene(folder);
            let plan = scene.plan_restore("web@latest").unwrap();
            restore::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = known.scene(folder);
            let (first, present) = &*trees.borrow();
            for undone in undo_all(&scene, &NoProgress) {
                outcomes.borrow_mut().push(undone.is_ok());
                if let Err(error) = undone {
                    assert!(matches!(error, Error::CannotUndo { .. }), "{what}: {error}");
                    recover_all(&scene);
                    assert_same(&tree(&scene.machines()), first, &what);
                } else {
                    assert_as_before(&scene, known, present, &what);
                }
            }
            if known == Known::ToVirtualBox {
                assert_listed(&scene, &["web"], &what);
            }
        },
    );
    let mut outcomes = outcomes.take();
    outcomes.dedup();
    assert_eq!(outcomes, [true, false]);
}

fn cut_the_undoing_of_a_restore(test: &str, known: Known) {
    let present = RefCell::new(Tree::new());
    let crashes = run_at_every_step(
        test,
        |folder| *present.borrow_mut() = restore_before_the_first_write(folder, known),
        |folder, progress| {
            let undone = undo_all(&known.scene(folder), progress);
            assert!(undone.iter().all(Result::is_ok), "{undone:?}");
        },
        |folder, crash| {
            let scene = known.scene(folder);
            for undone in undo_all(&scene, &NoProgress) {
                undone.unwrap();
            }
            assert_as_before(&scene, known, &present.borrow(), &format!("{crash:?}"));
        },
    );
    let is_put_back = |step: &str| crashes.iter().any(|crash| crash.step == step);
    assert!(is_put_back("settings-put-back"), "{crashes:?}");
    assert_eq!(is_put_back("register"), known == Known::ToVirtualBox);
}

#[test]
#[ignore = "its steps are among those of the registered machine"]
fn soak_undo_clone_cut_at_every_step() {
    undo_a_clone_cut_anywhere("soak_undo_clone_cut_at_every_step", Known::ByItsFile);
}

#[test]
fn undo_registered_clone_cut_at_every_step() {
    undo_a_clone_cut_anywhere(
        "undo_registered_clone_cut_at_every_step",
        Known::ToVirtualBox,
    );
}

#[test]
#[ignore = "its steps are among those of the registered machine"]
fn soak_clone_undone_at_every_step() {
    cut_the_undoing_of_a_clone("soak_clone_undone_at_every_step", Known::ByItsFile);
}

#[test]
fn registered_clone_undone_at_every_step() {
    cut_the_undoing_of_a_clone("registered_clone_undone_at_every_step", Known::ToVirtualBox);
}

#[test]
#[ignore = "its steps are among those of the registered machine"]
fn soak_undo_restore_cut_at_every_step() {
    undo_a_restore_cut_anywhere("soak_undo_restore_cut_at_every_step", Known::ByItsFile);
}

#[test]
fn undo_registered_restore_cut_at_every_step() {
    undo_a_restore_cut_anywhere(
        "undo_registered_restore_cut_at_every_step",
        Known::ToVirtualBox,
    );
}

#[test]
fn restore_undone_at_every_step() {
    cut_the_undoing_of_a_restore("restore_undone_at_every_step", Known::ByItsFile);
}

#[test]
fn registered_restore_undone_at_every_step() {
    cut_the_undoing_of_a_restore(
        "registered_restore_undone_at_every_step",
        Known::ToVirtualBox,
    );
}

#[test]
fn a_clone_that_was_used_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    complete_clone(folder.path(), Known::ToVirtualBox);
    let scene = Known::ToVirtualBox.scene(folder.path());
    let clone = folder.path().join("machines/second");
    let id = owed(&scene)[0].machine.uuid();
    let refused = || {
        let before = tree(&scene.machines());
        let error = undo_all(&scene, &NoProgress).remove(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsRecovery);
        assert_same(&tree(&scene.machines()), &before, "refused");
        error.to_string()
    };
    virtualbox(folder.path()).set_state(id, "running");
    insta::assert_snapshot!(refused(), @"cloning machine 'second' cannot be undone: the new machine is complete and was used since; `vrs recover` keeps it as it is");
    virtualbox(folder.path()).set_state(id, "poweroff");
    fs::create_dir(clone.join("Logs")).unwrap();
    fs::write(clone.join("Logs/VBox.log"), "started").unwrap();
    refused();
    recover_all(&scene);
    assert_listed(&scene, &["second", "web"], "kept");
    assert!(owed(&scene).is_empty());
}

#[test]
fn files_of_others_in_the_folder_of_a_clone_stay() {
    let folder = tempfile::tempdir().unwrap();
    changed_machine(folder.path(), Known::ByItsFile);
    let scene = Scene::new(folder.path());
    let plan = scene.plan_clone("web@latest", "second").unwrap();
    carry_out_until(&scene, &plan, "settings-write", 1);
    let clone = folder.path().join("machines/second");
    fs::write(clone.join("notes.txt"), "mine").unwrap();
    let planned = UndoPlan::make(&scene.host, &owed(&scene)[0]).unwrap();
    let undone = undo_all(&scene, &NoProgress).remove(0).unwrap();
    assert_eq!(undone, planned);
    assert!(!undone.remove.is_empty() && !undone.unregister);
    let left: Vec<_> = tree(&clone).into_keys().collect();
    assert_eq!(left, [clone.join("notes.txt")]);
    // The name is taken now, but nothing is owed.
    find(&scene, folder.path());
    assert!(owed(&scene).is_empty());
}

#[test]
fn a_restore_that_wrote_is_not_undone() {
    let folder = tempfile::tempdir().unwrap();
    changed_machine(folder.path(), Known::ByItsFile);
    let scene = Scene::new(folder.path());
    let plan = scene.plan_restore("web@latest").unwrap();
    carry_out_until(&scene, &plan, "folder-create", 1);
    let error = undo_all(&scene, &NoProgress).remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsRecovery);
    insta::assert_snapshot!(error, @"restoring machine 'web' cannot be undone: files of the machine were written to already; finish it with `vrs recover`, or use `vrs clone` to get a second machine");
    assert_eq!(owed(&scene).len(), 1);
}
