//! The process is ended before every step of take, restore and clone; the next command puts things
//! right.
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

use common::{Scene, Tree, assert_same, assert_sound, tree};
use registered::{Known, assert_listed, changed_machine, find, recover_all};
use vrs_engine::machine::Machine;
use vrs_engine::recover::{self, Recovered};
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_engine::{ErrorKind, restore};
use vrs_progress::{NoProgress, Progress};
use vrs_testkit::run_at_every_step;

fn take(scene: &Scene, progress: &dyn Progress) -> u64 {
    let plan = TakePlan::make(
        &scene.host,
        scene.store(),
        &find(scene, &scene.folder),
        TakeOptions::default(),
    )
    .unwrap();
    take::execute(&scene.host, scene.store(), &plan, progress)
        .unwrap()
        .stats
        .sent_bytes
}

fn crash_take(test: &str, known: Known) {
    let present = RefCell::new(Tree::new());
    run_at_every_step(
        test,
        |folder| *present.borrow_mut() = changed_machine(folder, known).1,
        |folder, progress| {
            take(&known.scene(folder), progress);
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = known.scene(folder);
            let moved = |tree: &Tree| tree.values().cloned().collect::<Vec<_>>();
            assert!(
                moved(&tree(&scene.machines())) == moved(&present.borrow()),
                "{what}: the machine was touched"
            );
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            if known == Known::ToVirtualBox {
                assert_listed(&scene, &["web"], &what);
            }
            take(&scene, &NoProgress);
            assert_sound(&scene, &what);
        },
    );
}

fn crash_restore(test: &str, known: Known) {
    let trees = RefCell::new((Tree::new(), Tree::new()));
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
            match recover_all(&scene).as_slice() {
                [] | [Recovered::Dropped] => assert_same(&tree(&scene.machines()), present, &what),
                [Recovered::Finished(_)] => assert_same(&tree(&scene.machines()), first, &what),
                more => panic!("{what}: {more:?}"),
            }
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            assert_sound(&scene, &what);
            if known == Known::ToVirtualBox {
                assert_listed(&scene, &["web"], &what);
            }
            // Whatever it was, the machine can be taken again.
            take(&scene, &NoProgress);
        },
    );
}

fn crash_clone(test: &str, known: Known) {
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
            let what = format!("{crash:?}");
            let scene = known.scene(folder);
            let finished = recover_all(&scene);
            let settings = folder.join("machines/second/second.vbox");
            let is_whole = finished
                .iter()
                .any(|outcome| matches!(outcome, Recovered::Finished(_)));
            assert_eq!(settings.is_file(), is_whole, "{what}");
            if is_whole {
                Machine::find(&scene.host, settings.to_str().unwrap()).unwrap();
            }
            if known == Known::ToVirtualBox {
                let names: &[&str] = if is_whole {
                    &["second", "web"]
                } else {
                    &["web"]
                };
                assert_listed(&scene, names, &what);
            }
            let mut now = tree(&scene.machines());
            now.retain(|path, _| path.starts_with(folder.join("machines/web")));
            assert_same(&now, &present.borrow(), &what);
        },
    );
}

#[test]
#[ignore = "its steps are among those of the registered machine"]
fn soak_take_at_every_step() {
    crash_take("soak_take_at_every_step", Known::ByItsFile);
}

#[test]
fn take_registered_at_every_step() {
    crash_take("take_registered_at_every_step", Known::ToVirtualBox);
}

#[test]
fn restore_at_every_step() {
    crash_restore("restore_at_every_step", Known::ByItsFile);
}

#[test]
fn restore_registered_at_every_step() {
    crash_restore("restore_registered_at_every_step", Known::ToVirtualBox);
}

#[test]
#[ignore = "its steps are among those of the registered machine"]
fn soak_clone_at_every_step() {
    crash_clone("soak_clone_at_every_step", Known::ByItsFile);
}

#[test]
fn clone_registered_at_every_step() {
    crash_clone("clone_registered_at_every_step", Known::ToVirtualBox);
}

#[test]
fn nothing_is_begun_while_something_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    changed_machine(folder.path(), Known::ByItsFile);
    let scene = Scene::new(folder.path());
    let plan = scene.plan_restore("web@latest").unwrap();
    let interrupted = vrs_testkit::FaultProgress::interrupt_at(6);
    let error = restore::execute(&scene.host, scene.store(), &plan, &interrupted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    let error = restore::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap_err();
    assert_eq!(
        error.to_string(),
        "restoring machine 'web' was interrupted; run `vrs recover` to finish it first"
    );
    assert_eq!(error.kind(), ErrorKind::NeedsRecovery);
    assert!(matches!(
        recover_all(&scene).as_slice(),
        [Recovered::Finished(_)]
    ));
}
