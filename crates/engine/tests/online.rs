//! Running machines are captured, and let go again wherever the process ended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod registered;

use std::io::Read as _;

use common::{Scene, assert_sound};
use registered::{Known, recover_all, running_machine, virtualbox};
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::manifest::FileRole;
use vrs_engine::recover::{self, Recovered};
use vrs_engine::take::{self, TakeOptions, TakePlan, Taken};
use vrs_engine::{Error, ErrorKind, Result};
use vrs_progress::{NoProgress, Progress};
use vrs_testkit::{Fault, FaultKind, StepLog, run_at_every_step};
use vrs_virtualbox::MachineState;

fn find(scene: &Scene) -> Machine {
    Machine::find(&scene.host, "web").unwrap()
}

fn take(scene: &Scene, options: TakeOptions, progress: &dyn Progress) -> Result<Taken> {
    let plan = TakePlan::make(&scene.host, scene.store(), &find(scene), options)?;
    take::execute(&scene.host, scene.store(), &plan, progress)
}

fn with(mode: CaptureMode) -> TakeOptions {
    TakeOptions {
        mode: Some(mode),
        ..TakeOptions::default()
    }
}

/// The machine is as if nothing had been done to it.
#[track_caller]
fn goes_on(scene: &Scene, what: &str) {
    let machine = find(scene);
    let driver = scene.host.virtualbox().unwrap();
    assert_eq!(machine.state, MachineState::Running, "{what}");
    assert_eq!(
        driver.virtualbox_snapshots(machine.id).unwrap(),
        [],
        "{what}"
    );
    let media = driver.media().unwrap();
    assert!(
        media.iter().all(|medium| medium.parent.is_none()),
        "{what}: {media:?}"
    );
    let left: Vec<_> = std::fs::read_dir(machine.folder().join("Snapshots"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    let key = driver.extra_data(machine.id, "VBoxInternal2/ForceTakeSnapshotWithoutState");
    assert_eq!(key.unwrap(), None, "{what}");
    let guest = virtualbox(&scene.folder).guest_bytes(machine.id.uuid(), 0);
    assert!(
        guest[1 << 20..].starts_with(b"written by the guest"),
        "{what}"
    );
    assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
}

fn crash_take(test: &str, mode: CaptureMode) {
    run_at_every_step(
        test,
        |folder| drop(running_machine(folder)),
        |folder, progress| {
            let scene = Known::ToVirtualBox.scene(folder);
            take(&scene, with(mode), progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            let recovered = recover_all(&scene);
            assert!(
                matches!(recovered.as_slice(), [] | [Recovered::Released]),
                "{what}"
            );
            goes_on(&scene, &what);
            take(&scene, with(mode), &NoProgress).unwrap();
            goes_on(&scene, &what);
            assert_sound(&scene, &what);
        },
    );
}

#[test]
fn memory_at_every_step() {
    crash_take("memory_at_every_step", CaptureMode::Memory);
}

#[test]
fn disks_only_at_every_step() {
    crash_take("disks_only_at_every_step", CaptureMode::DisksOnly);
}

#[test]
fn savestate_at_every_step() {
    crash_take("savestate_at_every_step", CaptureMode::SaveState);
}

#[test]
fn what_is_stored_is_a_machine_at_rest() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    for (mode, state) in [
        (CaptureMode::Memory, "saved"),
        (CaptureMode::Live, "saved"),
        (CaptureMode::DisksOnly, "poweroff"),
        (CaptureMode::SaveState, "saved"),
    ] {
        let manifest = take(&scene, with(mode), &NoProgress).unwrap().manifest;
        let what = format!("{mode:?}");
        assert_eq!(manifest.machine.state, state, "{what}");
        assert_eq!(manifest.media.len(), 1, "{what}");
        let states = manifest
            .files
            .iter()
            .filter(|file| file.role == FileRole::SavedState);
        assert_eq!(states.count(), usize::from(state == "saved"), "{what}");
        let capture = manifest.capture.unwrap();
        assert_eq!((capture.mode, capture.was.as_str()), (mode, "running"));
        assert_eq!(capture.memory, state == "saved");
        goes_on(&scene, &what);
    }
}

#[test]
fn a_capture_that_was_left_is_undone_before_the_next_take() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let merge = format!("snapshot {} delete", find(&scene).id);
    virtualbox(folder.path()).inject(&Fault::once(&merge, FaultKind::Fail).times(7));
    let error = take(&scene, TakeOptions::default(), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsRecovery, "{error}");
    assert!(matches!(error, Error::ThawOwed { .. }), "{error}");
    assert_eq!(recover::owed(&scene.host).unwrap().len(), 1);
    // The snapshot was complete all the same.
    scene.select("web@latest");
    assert!(recover::release_before_take(&scene.host, &find(&scene), &NoProgress).unwrap());
    take(&scene, TakeOptions::default(), &NoProgress).unwrap();
    goes_on(&scene, "after the next take");
}

#[test]
fn an_interrupted_take_lets_the_machine_go() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let log = StepLog::default();
    take(&scene, with(CaptureMode::DisksOnly), &log).unwrap();
    let steps = log.steps().len();
    for step in (1..=steps).step_by(3) {
        let progress = vrs_testkit::FaultProgress::interrupt_at(step);
        let outcome = take(&scene, with(CaptureMode::DisksOnly), &progress);
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "step {step}: {error}");
        }
        goes_on(&scene, &format!("step {step}"));
    }
}

#[test]
fn images_that_somebody_still_writes_to_are_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let merge = format!("snapshot {} delete", find(&scene).id);
    virtualbox(folder.path()).inject(&Fault::once(&merge, FaultKind::Fail).times(6));
    take(&scene, TakeOptions::default(), &NoProgress).unwrap_err();
    // A daemon that was started anew takes the machine for an aborted one.
    virtualbox(folder.path()).set_state(find(&scene).id.uuid(), "aborted");
    let snapshots = find(&scene).folder().join("Snapshots");
    let images = std::fs::read_dir(snapshots)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let image = images
        .filter(|path| path.extension().is_some_and(|end| end == "vdi"))
        .last()
        .unwrap();
    let mut orphan = std::process::Command::new("sh")
        .args(["-c", "exec 3>> \"$0\"; echo open; exec sleep 600"])
        .arg(&image)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut is_open = [0; 5];
    let mut said = orphan.stdout.take().unwrap();
    said.read_exact(&mut is_open).unwrap();
    let owed = recover::owed(&scene.host).unwrap();
    let refused = recover::finish(&scene.host, scene.store(), &owed[0], &NoProgress);
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
    assert!(image.is_file());
    assert_eq!(recover_all(&scene), [Recovered::Released]);
    assert_eq!(find(&scene).state, MachineState::Aborted);
    assert!(!image.exists());
}
