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

use std::cell::RefCell;
use std::path::Path;

use common::{MIB, Scene, Tree, assert_same, tree};
use vrs_engine::machine::Machine;
use vrs_engine::recover::{self, Recovered};
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_engine::{ErrorKind, restore};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{CheckOptions, SnapshotStore};
use vrs_testkit::run_at_every_step;

/// A machine whose first snapshot differs from its present state in every respect.
fn changed_machine(folder: &Path) -> (Tree, Tree) {
    let scene = Scene::with_repository(folder);
    let mut machine = scene.machine("web");
    machine.take_virtualbox_snapshot("early");
    let first = tree(&scene.machines());
    scene.take(&machine);
    machine.fill(0, MIB, 200_000, 5);
    machine.take_virtualbox_snapshot("later");
    machine.fill(0, 4 * MIB, 200_000, 6);
    machine.save_state(b"ram");
    (first, tree(&scene.machines()))
}

fn find(scene: &Scene, folder: &Path) -> Machine {
    let settings_file = folder.join("machines/web/web.vbox");
    Machine::find(&scene.host, settings_file.to_str().unwrap()).unwrap()
}

fn take(folder: &Path, progress: &dyn Progress) -> u64 {
    let scene = Scene::new(folder);
    let plan = TakePlan::make(
        &scene.host,
        scene.store(),
        &find(&scene, folder),
        TakeOptions::default(),
    )
    .unwrap();
    take::execute(&scene.host, scene.store(), &plan, progress)
        .unwrap()
        .stats
        .sent_bytes
}

fn assert_sound(scene: &Scene) {
    let report = scene
        .store()
        .check(&CheckOptions { read_data: true }, &NoProgress)
        .unwrap();
    assert_eq!(report.errors, Vec::<String>::new());
}

#[test]
fn take_at_every_step() {
    let present = RefCell::new(Tree::new());
    run_at_every_step(
        "take_at_every_step",
        |folder| *present.borrow_mut() = changed_machine(folder).1,
        |folder, progress| {
            take(folder, progress);
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Scene::new(folder);
            let moved = |tree: &Tree| tree.values().cloned().collect::<Vec<_>>();
            assert!(
                moved(&tree(&scene.machines())) == moved(&present.borrow()),
                "{what}: the machine was touched"
            );
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            take(folder, &NoProgress);
            assert_sound(&scene);
        },
    );
}

#[test]
fn restore_at_every_step() {
    let trees = RefCell::new((Tree::new(), Tree::new()));
    run_at_every_step(
        "restore_at_every_step",
        |folder| *trees.borrow_mut() = changed_machine(folder),
        |folder, progress| {
            let scene = Scene::new(folder);
            let plan = scene.plan_restore("web@latest").unwrap();
            restore::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Scene::new(folder);
            let (first, present) = &*trees.borrow();
            match recover_all(&scene).as_slice() {
                [] | [Recovered::Dropped] => assert_same(&tree(&scene.machines()), present, &what),
                [Recovered::Finished(_)] => assert_same(&tree(&scene.machines()), first, &what),
                more => panic!("{what}: {more:?}"),
            }
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            assert_sound(&scene);
            // Whatever it was, the machine can be taken again.
            take(folder, &NoProgress);
        },
    );
}

#[test]
fn clone_at_every_step() {
    let present = RefCell::new(Tree::new());
    run_at_every_step(
        "clone_at_every_step",
        |folder| *present.borrow_mut() = changed_machine(folder).1,
        |folder, progress| {
            let scene = Scene::new(folder);
            let plan = scene.plan_clone("web@latest", "second").unwrap();
            restore::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Scene::new(folder);
            let finished = recover_all(&scene);
            let settings = folder.join("machines/second/second.vbox");
            let is_whole = finished
                .iter()
                .any(|outcome| matches!(outcome, Recovered::Finished(_)));
            assert_eq!(settings.is_file(), is_whole, "{what}");
            if is_whole {
                Machine::find(&scene.host, settings.to_str().unwrap()).unwrap();
            }
            let mut now = tree(&scene.machines());
            now.retain(|path, _| path.starts_with(folder.join("machines/web")));
            assert_same(&now, &present.borrow(), &what);
        },
    );
}

/// What `vrs recover` does.
fn recover_all(scene: &Scene) -> Vec<Recovered> {
    let owed = recover::owed(&scene.host).unwrap();
    owed.iter()
        .map(|journal| recover::finish(&scene.host, scene.store(), journal, &NoProgress).unwrap())
        .collect()
}

#[test]
fn nothing_is_begun_while_something_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    changed_machine(folder.path());
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
