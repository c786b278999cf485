//! Restores, clones, migrations and the doctor.

use vrs_engine::doctor::Scope;
use vrs_engine::machine::Machine;
use vrs_engine::migrate::{MigrateOptions, MigratePlan};
use vrs_engine::{doctor, migrate, recover};
use vrs_progress::NoProgress;
use vrs_virtualbox::MachineSettings;

use crate::scene::{
    assert_stored_without, assert_tracked, assert_untracked, bases, find, names, take, tracked,
    tracked_machine,
};

#[test]
fn a_machine_that_is_restored_or_moves_away_keeps_no_tracker() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let wanted = std::fs::read(&bases(&scene)[0]).unwrap();
    scene.restore("web@latest");
    assert_untracked(&scene, "restored");
    assert!(std::fs::read(&bases(&scene)[0]).unwrap() == wanted);
    take(&scene, tracked(), &NoProgress).unwrap();
    assert_tracked(&scene, "again");
    let plan = scene.plan_clone("web@latest", "second").unwrap();
    vrs_engine::restore::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap();
    let second = Machine::find(&scene.host, "second").unwrap();
    let settings = MachineSettings::read(&second.settings_file).unwrap();
    assert_eq!(settings.virtualbox_snapshots().count(), 0);
    assert_eq!(names(&scene).len(), 1);
}

#[test]
fn nothing_is_wrong_with_a_tracked_machine_and_it_moves_without_the_tracker() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let store = scene.store();
    let findings = doctor::examine(&scene.host, Some(store), &Scope::All, &NoProgress).unwrap();
    assert!(findings.findings.is_empty(), "{:?}", findings.findings);
    let machine = find(&scene);
    let plan = MigratePlan::make(&scene.host, store, &machine, MigrateOptions::default()).unwrap();
    let moved = migrate::execute(&scene.host, store, &plan, &NoProgress).unwrap();
    assert_stored_without(&scene, &moved.taken, false);
    assert!(recover::owed(&scene.host).unwrap().is_empty());
    assert!(
        !scene
            .host
            .state_folder
            .join("tracking")
            .join(format!("{}.record", machine.id))
            .exists()
    );
}
