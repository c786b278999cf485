//! Every state of a machine in every verb.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod registered;

use common::{Scene, contents};
use registered::{small_machine, virtualbox, with_virtualbox};
use vrs_engine::delete::{self, DeletePlan};
use vrs_engine::machine::Machine;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan};
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_engine::{ErrorKind, Result, catalog, recover};
use vrs_progress::NoProgress;
use vrs_testkit::SampleMachine;

/// What a state allows: take, restore, restore with `--poweroff`.
const STATES: [(&str, bool, bool, bool); 23] = [
    ("poweroff", true, true, true),
    ("saved", true, true, true),
    ("aborted", true, true, true),
    ("aborted-saved", true, true, true),
    ("teleported", true, true, true),
    ("running", true, false, true),
    ("paused", true, false, true),
    ("gurumeditation", false, false, true),
    ("starting", false, false, false),
    ("stopping", false, false, false),
    ("saving", false, false, false),
    ("restoring", false, false, false),
    ("livesnapshotting", false, false, false),
    ("onlinesnapshotting", false, false, false),
    ("snapshotting", false, false, false),
    ("deletingsnapshot", false, false, false),
    ("deletingsnapshotlive", false, false, false),
    ("deletingsnapshotlivepaused", false, false, false),
    ("restoringsnapshot", false, false, false),
    ("settingup", false, false, false),
    ("teleporting", false, false, false),
    ("a state of the future", false, false, false),
    ("inaccessible", false, true, true),
];

fn take(scene: &Scene, machine: &SampleMachine) -> Result<()> {
    let machine = Machine::find(&scene.host, &machine.id().to_string())?;
    let plan = TakePlan::make(&scene.host, scene.store(), &machine, TakeOptions::default())?;
    take::execute(&scene.host, scene.store(), &plan, &NoProgress).map(drop)
}

fn restore(scene: &Scene, power_off: bool) -> Result<()> {
    let options = RestoreOptions {
        power_off,
        ..RestoreOptions::default()
    };
    let snapshot = scene.select("web@first");
    let plan = RestorePlan::make(&scene.host, scene.store(), &snapshot, &options, &NoProgress)?;
    restore::execute(&scene.host, scene.store(), &plan, &NoProgress).map(drop)
}

/// A machine that VirtualBox knows, with the snapshot "first".
fn registered_machine(scene: &Scene) -> SampleMachine {
    let machine = small_machine(scene, "web");
    virtualbox(&scene.folder).register(&machine.settings_path());
    let options = TakeOptions {
        name: Some("first".to_owned()),
        ..TakeOptions::default()
    };
    let plan = scene.plan_take(&machine, options).unwrap();
    take::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap();
    machine
}

#[test]
fn each_state_allows_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let scene = with_virtualbox(Scene::with_repository(folder.path()));
    let mut machine = registered_machine(&scene);
    let first = contents(&machine);
    for (state, may_take, may_restore, may_power_off) in STATES {
        machine.fill(0, 0, 1000, 99);
        let mut changed = contents(&machine);
        let guest = machine.guest_bytes(0);
        let vms = virtualbox(&scene.folder);
        let again = || vms.set_state(machine.id(), state);
        again();
        assert_eq!(take(&scene, &machine).is_ok(), may_take, "take: {state}");
        if matches!(state, "running" | "paused") {
            // The guest's bytes are what they were; VirtualBox froze and merged the image around them.
            assert!(machine.guest_bytes(0) == guest, "take: {state}");
            assert_eq!(scene_state(&scene, &machine), state);
            changed = contents(&machine);
        }
        assert!(contents(&machine) == changed, "take: {state}");
        for (power_off, allowed) in [(false, may_restore), (true, may_power_off)] {
            let outcome = restore(&scene, power_off);
            let what = format!("restore with {power_off}: {state}: {outcome:?}");
            assert_eq!(outcome.is_ok(), allowed, "{what}");
            assert!(
                contents(&machine)
                    == if allowed {
                        first.clone()
                    } else {
                        changed.clone()
                    },
                "{what}"
            );
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            let listed = vms.run(["list", "vms"]);
            assert!(listed.contains(&machine.id().to_string()), "{what}");
        }
        again();
        what_reads_no_machine_is_always_allowed(&scene, state);
        vms.set_state(machine.id(), "poweroff");
    }
}

fn scene_state(scene: &Scene, machine: &SampleMachine) -> String {
    let machine = Machine::find(&scene.host, &machine.id().to_string()).unwrap();
    machine.state.to_string()
}

fn what_reads_no_machine_is_always_allowed(scene: &Scene, state: &str) {
    let plan = scene.plan_clone("web@first", &format!("clone of {state}"));
    let plan = plan.unwrap_or_else(|error| panic!("clone: {state}: {error}"));
    restore::execute(&scene.host, scene.store(), &plan, &NoProgress)
        .unwrap_or_else(|error| panic!("clone: {state}: {error}"));
    let snapshot = scene.select("web@first");
    catalog::manifest(scene.store(), &snapshot.id).unwrap();
    let mut later = catalog::snapshots(scene.store()).unwrap().snapshots;
    later.retain(|other| other.id != snapshot.id);
    delete::execute(scene.store(), &DeletePlan::make(later), &NoProgress).unwrap();
    let left = catalog::snapshots(scene.store()).unwrap().snapshots;
    assert_eq!(left, [snapshot], "{state}");
}

#[test]
fn a_machine_that_starts_between_plan_and_restore_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scene = with_virtualbox(Scene::with_repository(folder.path()));
    let mut machine = registered_machine(&scene);
    machine.fill(0, 0, 1000, 99);
    let changed = contents(&machine);
    let plan = scene.plan_restore("web@first").unwrap();
    virtualbox(&scene.folder).set_state(machine.id(), "running");
    let error = restore::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    insta::assert_snapshot!(error, @"machine 'web' is running, so it cannot be restored now; power it off first, or allow it with --poweroff");
    assert!(contents(&machine) == changed);
    assert!(recover::owed(&scene.host).unwrap().is_empty());
}
