//! Machines move between two hosts that share a repository, wherever the process ended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod registered;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::{MIB, Scene, assert_same, assert_sound, tree};
use registered::{Known, recover_all, running_machine, small_machine, virtualbox};
use vrs_engine::delete::{self, DeletePlan};
use vrs_engine::machine::Machine;
use vrs_engine::migrate::{self, AcceptPlan, MigrateOptions, MigratePlan, Migrated};
use vrs_engine::portability::{self, Level};
use vrs_engine::recover::{self, Recovered};
use vrs_engine::restore::{self, RestoreOptions, RestorePlan, Restored};
use vrs_engine::snapshot::Snapshot;
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_engine::{Error, ErrorKind, Result, catalog};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::{ResticRepository, SnapshotStore as _};
use vrs_testkit::{SavedStateFile, run_at_every_step};
use vrs_virtualbox::MachineState;

/// The other host, without machines; its repository is the first one's.
fn other_host(folder: &Path) -> Scene {
    let folder = folder.join("other");
    std::fs::create_dir_all(&folder).unwrap();
    let mut scene = Known::ToVirtualBox.scene(&folder);
    scene.host.name = "otherhost".to_owned();
    scene
}

fn send(scene: &Scene, store: &ResticRepository, progress: &dyn Progress) -> Result<Migrated> {
    let machine = Machine::find(&scene.host, "web")?;
    let plan = MigratePlan::make(&scene.host, store, &machine, MigrateOptions::default())?;
    migrate::execute(&scene.host, store, &plan, progress)
}

fn accept_plan(
    scene: &Scene,
    store: &ResticRepository,
    snapshot: &Snapshot,
) -> Result<RestorePlan> {
    let snapshots = catalog::snapshots(store).unwrap().snapshots;
    let options = RestoreOptions {
        into: Some(scene.machines()),
        ..RestoreOptions::default()
    };
    let host = &scene.host;
    AcceptPlan::make(host, store, &snapshots, snapshot, &options, &NoProgress)
        .map(|plan| plan.restore)
}

fn accept(scene: &Scene, store: &ResticRepository, progress: &dyn Progress) -> Result<Restored> {
    let snapshot = last(store);
    let plan = accept_plan(scene, store, &snapshot)?;
    restore::execute(&scene.host, store, &plan, progress)
}

fn last(store: &ResticRepository) -> Snapshot {
    let snapshots = catalog::snapshots(store).unwrap().snapshots;
    snapshots.last().unwrap().clone()
}

fn state(scene: &Scene) -> MachineState {
    Machine::find(&scene.host, "web").unwrap().state
}

#[track_caller]
fn has_moved(scene: &Scene, what: &str) {
    let error = Machine::find(&scene.host, "web").unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{what}: {error}");
    let listed = scene.host.virtualbox().unwrap().machines().unwrap();
    assert!(listed.is_empty(), "{what}: {listed:?}");
    let settings = scene.machines().join("web/web.vbox");
    assert!(!settings.exists(), "{what}");
    assert!(settings.with_extension("vbox.moved").is_file(), "{what}");
    assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
}

/// What `vrs recover` does on a host whose repository is elsewhere.
fn recover_with(scene: &Scene, store: &ResticRepository) -> Vec<Recovered> {
    let owed = recover::owed(&scene.host).unwrap();
    let finish = |journal| recover::finish(&scene.host, store, journal, &NoProgress).unwrap();
    owed.iter().map(finish).collect()
}

#[test]
fn a_running_machine_moves_at_every_step() {
    run_at_every_step(
        "a_running_machine_moves_at_every_step",
        |folder| drop(running_machine(folder)),
        |folder, progress| {
            let scene = Known::ToVirtualBox.scene(folder);
            send(&scene, scene.store(), progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            let snapshots = catalog::snapshots(scene.store()).unwrap().snapshots;
            let is_seen = snapshots
                .iter()
                .any(|snapshot| snapshot.migration.is_some());
            if is_seen && let Ok(machine) = Machine::find(&scene.host, "web") {
                assert_eq!(machine.state, MachineState::Saved, "{what}");
            }
            match recover_all(&scene).as_slice() {
                [] if is_seen => has_moved(&scene, &what),
                [Recovered::Moved] => has_moved(&scene, &what),
                [] | [Recovered::Released] => {
                    assert!(!is_seen, "{what}");
                    assert_eq!(state(&scene), MachineState::Running, "{what}");
                    send(&scene, scene.store(), &NoProgress).unwrap();
                    has_moved(&scene, &what);
                }
                more => panic!("{what}: {more:?}"),
            }
            let other = other_host(folder);
            accept(&other, scene.store(), &NoProgress).unwrap();
            assert_eq!(state(&other), MachineState::Saved, "{what}");
            assert_sound(&scene, &what);
        },
    );
}

#[test]
fn a_machine_is_taken_over_at_every_step() {
    run_at_every_step(
        "a_machine_is_taken_over_at_every_step",
        |folder| {
            let scene = running_machine(folder);
            send(&scene, scene.store(), &NoProgress).unwrap();
        },
        |folder, progress| {
            let scene = Known::ToVirtualBox.scene(folder);
            accept(&other_host(folder), scene.store(), progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            let other = other_host(folder);
            recover_with(&other, scene.store());
            if Machine::find(&other.host, "web").is_err() {
                accept(&other, scene.store(), &NoProgress).unwrap();
            }
            assert_eq!(state(&other), MachineState::Saved, "{what}");
            let again = accept(&other, scene.store(), &NoProgress).unwrap_err();
            assert!(
                matches!(again, Error::AcceptedAlready { .. }),
                "{what}: {again}"
            );
            has_moved(&scene, &what);
        },
    );
}

/// A machine that lives on the other host, where its guest went on.
fn away(folder: &Path) -> (Scene, Scene) {
    let scene = running_machine(folder);
    send(&scene, scene.store(), &NoProgress).unwrap();
    let other = other_host(folder);
    accept(&other, scene.store(), &NoProgress).unwrap();
    let fake = virtualbox(&other.folder);
    fake.run(["startvm", "web", "--type", "headless"]);
    let machine = Machine::find(&other.host, "web").unwrap();
    fake.write_as_guest(machine.id.uuid(), 0, 2 * MIB, b"written elsewhere");
    (scene, other)
}

#[test]
fn it_comes_back_at_every_step_and_little_is_fetched() {
    run_at_every_step(
        "it_comes_back_at_every_step_and_little_is_fetched",
        |folder| {
            let (scene, other) = away(folder);
            send(&other, scene.store(), &NoProgress).unwrap();
        },
        |folder, progress| {
            let scene = Known::ToVirtualBox.scene(folder);
            accept(&scene, scene.store(), progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            recover_all(&scene);
            if migrate::moved_machines(&scene.host).unwrap().len() == 1 {
                let stats = accept(&scene, scene.store(), &NoProgress).unwrap().stats;
                assert!(
                    stats.fetched_bytes < stats.total_bytes / 2,
                    "{what}: {stats:?}"
                );
            }
            let machine = Machine::find(&scene.host, "web").unwrap();
            assert_eq!(machine.state, MachineState::Saved, "{what}");
            let folder_now = scene.machines().join("web");
            assert_eq!(machine.folder(), folder_now, "{what}");
            assert!(!folder_now.join("web.vbox.moved").exists(), "{what}");
            let guest = virtualbox(folder).guest_bytes(machine.id.uuid(), 0);
            assert!(guest[2 << 20..].starts_with(b"written elsewhere"), "{what}");
            has_moved(&other_host(folder), &what);
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
        },
    );
}

/// A plan for a host that is told no folder.
fn plan_without_folder(
    scene: &Scene,
    store: &ResticRepository,
    force: &[&str],
) -> Result<RestorePlan> {
    let snapshots = catalog::snapshots(store).unwrap().snapshots;
    let options = RestoreOptions {
        force: force.iter().map(|name| (*name).to_owned()).collect(),
        ..RestoreOptions::default()
    };
    let snapshot = last(store);
    AcceptPlan::make(
        &scene.host,
        store,
        &snapshots,
        &snapshot,
        &options,
        &NoProgress,
    )
    .map(|plan| plan.restore)
}

#[test]
fn a_machine_whose_folder_is_not_here_goes_to_the_default_one() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    send(&scene, scene.store(), &NoProgress).unwrap();
    let other = other_host(folder.path());
    std::fs::rename(scene.machines().join("web"), folder.path().join("gone")).unwrap();
    let there = plan_without_folder(&other, scene.store(), &[]).unwrap();
    assert_eq!(
        there.intent.folder,
        scene.machines().join("web"),
        "it is there"
    );
    assert_eq!(there.notes, Vec::<String>::new());

    std::fs::remove_dir(scene.machines()).unwrap();
    let plan = plan_without_folder(&other, scene.store(), &[]).unwrap();
    let default = other.folder.join("virtualbox/VirtualBox VMs");
    assert_eq!(plan.intent.folder, default.join("web"));
    assert!(
        plan.notes[0].contains("default machine folder"),
        "{:?}",
        plan.notes
    );
    restore::execute(&other.host, scene.store(), &plan, &NoProgress).unwrap();
    let machine = Machine::find(&other.host, "web").unwrap();
    assert_eq!(machine.settings_file, default.join("web/web.vbox"));
}

/// A third host, without machines; its repository is the first one's.
fn third_host(folder: &Path) -> Scene {
    let folder = folder.join("third");
    std::fs::create_dir_all(&folder).unwrap();
    let mut scene = Known::ToVirtualBox.scene(&folder);
    scene.host.name = "thirdhost".to_owned();
    scene
}

#[test]
fn the_first_of_two_hosts_takes_a_machine_over() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    send(&scene, scene.store(), &NoProgress).unwrap();
    let (other, third) = (other_host(folder.path()), third_host(folder.path()));
    // Both planned it before either began.
    let snapshot = last(scene.store());
    let late = accept_plan(&third, scene.store(), &snapshot).unwrap();
    accept(&other, scene.store(), &NoProgress).unwrap();
    let refused = restore::execute(&third.host, scene.store(), &late, &NoProgress).unwrap_err();
    assert!(
        matches!(refused, Error::AcceptedAlready { .. }),
        "{refused}"
    );
    assert!(recover::owed(&third.host).unwrap().is_empty());
    assert_eq!(tree(&third.machines()).len(), 0);

    let refused = accept_plan(&third, scene.store(), &snapshot)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("otherhost did so at 20"), "{refused}");
    assert!(refused.contains("`--force accepted`"), "{refused}");
    let listed = catalog::snapshots(scene.store()).unwrap().snapshots;
    assert_eq!(
        listed.len(),
        1,
        "what tells of it is no snapshot of a machine"
    );

    // The other one burnt down.
    let options = RestoreOptions {
        into: Some(third.machines()),
        force: vec![migrate::FORCE_ACCEPTED.to_owned()],
        ..RestoreOptions::default()
    };
    let host = &third.host;
    let plan = AcceptPlan::make(
        host,
        scene.store(),
        &listed,
        &snapshot,
        &options,
        &NoProgress,
    );
    restore::execute(host, scene.store(), &plan.unwrap().restore, &NoProgress).unwrap();
    assert_eq!(state(&third), MachineState::Saved);
    let fourth = accept_plan(&scene, scene.store(), &snapshot)
        .unwrap_err()
        .to_string();
    assert!(fourth.contains("thirdhost did so at 20"), "{fourth}");
    assert_sound(&scene, "claims");

    // What tells of it goes with the snapshot.
    let plan = DeletePlan::make(listed);
    delete::execute(scene.store(), &plan, &NoProgress).unwrap();
    assert_eq!(scene.store().snapshots().unwrap().snapshots, []);
}

/// Lets the other host take the machine over in the moment in which this one is about to claim it.
struct Meanwhile<'a>(&'a Path);

impl Progress for Meanwhile<'_> {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}
    fn step(&self, step: &'static str) {
        if step == "claim" {
            let scene = Known::ToVirtualBox.scene(self.0);
            accept(&other_host(self.0), scene.store(), &NoProgress).unwrap();
        }
    }
}

#[test]
fn of_two_hosts_that_take_a_machine_over_at_once_at_most_one_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    send(&scene, scene.store(), &NoProgress).unwrap();
    let (other, third) = (other_host(folder.path()), third_host(folder.path()));
    let snapshot = last(scene.store());
    let late = accept_plan(&third, scene.store(), &snapshot).unwrap();
    let meanwhile = Meanwhile(folder.path());
    let refused = restore::execute(&third.host, scene.store(), &late, &meanwhile);
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, Error::AcceptedAlready { .. }),
        "{refused}"
    );
    assert_eq!(tree(&third.machines()).len(), 0);
    assert_eq!(state(&other), MachineState::Saved);
    let again = accept_plan(&third, scene.store(), &snapshot).unwrap_err();
    assert!(again.to_string().contains("otherhost"), "{again}");
}

#[test]
fn nobody_takes_a_moved_machine_or_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let moved = send(&scene, scene.store(), &NoProgress).unwrap();
    let id = moved.taken.id.short();
    for wanted in [
        "web",
        scene.machines().join("web/web.vbox").to_str().unwrap(),
    ] {
        let error = Machine::find(&scene.host, wanted).unwrap_err().to_string();
        assert!(error.starts_with("machine 'web' moved on 20"), "{error}");
        assert!(
            error.contains(&format!("`vrs migrate --accept {id}`")),
            "{error}"
        );
    }
    let error = scene.plan_restore("web@latest").unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    // The other host must not get it by accident either.
    let other = other_host(folder.path());
    let options = RestoreOptions {
        into: Some(other.machines()),
        ..RestoreOptions::default()
    };
    let snapshot = last(scene.store());
    let plan = RestorePlan::make(&other.host, scene.store(), &snapshot, &options, &NoProgress);
    insta::assert_snapshot!(
        plan.unwrap_err().to_string().replace(&id, "ID"),
        @"machine 'web' is on its way in snapshot ID; `vrs migrate --accept ID` takes it over, and `vrs clone` makes a second machine of it"
    );
}

#[test]
fn a_machine_that_lives_elsewhere_is_not_accepted_again() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, other) = away(folder.path());
    let moved_into = last(scene.store());
    let machine = Machine::find(&other.host, "web").unwrap();
    let plan = TakePlan::make(&other.host, scene.store(), &machine, TakeOptions::default());
    let plan = plan.unwrap();
    assert!(
        plan.advice()
            .unwrap()
            .contains("--cpuid-portability-level 1")
    );
    take::execute(&other.host, scene.store(), &plan, &NoProgress).unwrap();
    // It was said once.
    let next = TakePlan::make(&other.host, scene.store(), &machine, TakeOptions::default());
    assert_eq!(next.unwrap().advice(), None);
    let error = accept_plan(&scene, scene.store(), &moved_into).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("was taken of it since, on otherhost"),
        "{error}"
    );
    let ordinary = accept_plan(&scene, scene.store(), &last(scene.store())).unwrap_err();
    assert_eq!(ordinary.kind(), ErrorKind::Usage, "{ordinary}");
}

/// Stops dead before a step, and hears warnings.
struct StopBefore(&'static str, Mutex<Vec<String>>);

impl Progress for StopBefore {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, warning: &str) {
        self.1.lock().unwrap().push(warning.to_owned());
    }
    fn step(&self, step: &'static str) {
        assert!(step != self.0, "stopped on purpose");
    }
}

#[test]
fn a_machine_that_was_started_between_two_steps_stays() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let progress = StopBefore("moved-mark", Mutex::default());
    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        send(&scene, scene.store(), &progress)
    }));
    assert!(sent.is_err());
    virtualbox(folder.path()).run(["startvm", "web", "--type", "headless"]);
    let owed = recover::owed(&scene.host).unwrap();
    let recovered = recover::finish(&scene.host, scene.store(), &owed[0], &progress).unwrap();
    assert_eq!(recovered, Recovered::Released);
    assert_eq!(state(&scene), MachineState::Running);
    let warnings = progress.1.into_inner().unwrap();
    assert!(
        warnings[0].contains("do not accept that snapshot"),
        "{warnings:?}"
    );
}

#[test]
fn a_state_that_cannot_be_resumed_here_is_refused_before_any_data_moves() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    virtualbox(folder.path()).run(["controlvm", "web", "savestate"]);
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "sav");
    let state_file = tree(&scene.machines()).into_keys().find(is_state).unwrap();
    let newer = SavedStateFile {
        version: (9, 0, 0),
        ..SavedStateFile::default()
    };
    std::fs::write(&state_file, newer.to_bytes()).unwrap();
    let machine = Machine::find(&scene.host, "web").unwrap();
    let plan = TakePlan::make(&scene.host, scene.store(), &machine, TakeOptions::default());
    take::execute(&scene.host, scene.store(), &plan.unwrap(), &NoProgress).unwrap();
    let before = tree(&scene.machines());
    let plan = |options: &RestoreOptions| {
        let snapshot = scene.select("web@latest");
        RestorePlan::make(&scene.host, scene.store(), &snapshot, options, &NoProgress).unwrap()
    };
    let plain = plan(&RestoreOptions::default());
    assert_eq!(portability::level(&plain.portability), Level::ColdBootOnly);
    let error = restore::execute(&scene.host, scene.store(), &plain, &NoProgress).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("it was saved by VirtualBox 9.0.0r175245, here is 7.2.22"),
        "{error}"
    );
    assert_same(&tree(&scene.machines()), &before, "refused");
    assert_eq!(state(&scene), MachineState::Saved);
    let forced = plan(&RestoreOptions {
        force: vec!["saved-state".to_owned()],
        ..RestoreOptions::default()
    });
    assert_eq!(portability::level(&forced.portability), Level::Risky);
    restore::execute(&scene.host, scene.store(), &forced, &NoProgress).unwrap();
    let cold = plan(&RestoreOptions {
        cold: true,
        ..RestoreOptions::default()
    });
    assert_eq!(cold.portability, []);
    restore::execute(&scene.host, scene.store(), &cold, &NoProgress).unwrap();
    assert_eq!(state(&scene), MachineState::PoweredOff);
}

#[test]
fn the_base_of_a_linked_clone_does_not_move() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = small_machine(&scene, "web");
    let fake = virtualbox(folder.path());
    fake.register(&machine.settings_path());
    let scene = Known::ToVirtualBox.scene(folder.path());
    let clone: PathBuf = scene.machines().join("clone/clone.vbox");
    let text = std::fs::read_to_string(machine.settings_path()).unwrap();
    let text = text
        .replace(
            &machine.id().to_string(),
            "00000000-0000-4000-8000-000000000001",
        )
        .replace("name=\"web\"", "name=\"clone\"")
        .replace(
            "location=\"",
            &format!(
                "location=\"{}/",
                machine.settings_path().parent().unwrap().display()
            ),
        );
    std::fs::create_dir_all(clone.parent().unwrap()).unwrap();
    std::fs::write(&clone, text).unwrap();
    fake.register(&clone);
    let error = send(&scene, scene.store(), &NoProgress).unwrap_err();
    insta::assert_snapshot!(error, @"machine 'web' cannot move, because clone uses its images; move or detach what depends on it first, or use `vrs take` and `vrs clone`");
}
