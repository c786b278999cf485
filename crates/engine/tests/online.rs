//! Running machines are captured, and let go again wherever the process ended.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;
mod registered;

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Mutex;

use common::{Scene, assert_sound};
use registered::{Known, recover_all, running_machine, virtualbox};
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::manifest::FileRole;
use vrs_engine::recover::{self, Recovered};
use vrs_engine::take::{self, TakeOptions, TakePlan, Taken};
use vrs_engine::{Error, ErrorKind, Result};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
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
    let key = driver.extra_data(machine.id, STATELESS_KEY);
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

/// What was warned of.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, warning: &str) {
        self.0.lock().unwrap().push(warning.to_owned());
    }
}

impl Warnings {
    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

const STATELESS_KEY: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";

#[test]
fn a_capture_that_lost_its_memory_is_stored_with_a_warning_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let id = find(&scene).id;
    let set_key = |value| {
        let driver = scene.host.virtualbox().unwrap();
        driver
            .set_extra_data(id, STATELESS_KEY, value, &NoProgress)
            .unwrap();
    };
    // With it VirtualBox saves no memory, and says that all went well.
    set_key(Some("1"));
    let strict = TakeOptions {
        strict: true,
        ..with(CaptureMode::Memory)
    };
    let refused = take(&scene, strict, &NoProgress).unwrap_err();
    assert!(matches!(refused, Error::MemoryLost { .. }), "{refused}");
    let warnings = Warnings::default();
    let manifest = take(&scene, with(CaptureMode::Memory), &warnings)
        .unwrap()
        .manifest;
    assert!(
        warnings.text().contains("holds no memory"),
        "{}",
        warnings.text()
    );
    assert_eq!(manifest.machine.state, "poweroff");
    assert!(!manifest.capture.unwrap().memory);
    set_key(None);
    goes_on(&scene, "let go");
}

#[test]
fn memory_that_virtualbox_saves_all_the_same_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let fake = virtualbox(folder.path());
    // A VirtualBox that keeps the key and does not know what it means: it is looked at before the
    // capture and before it is set.
    fake.inject(&Fault::once("setextradata", FaultKind::Lie));
    let kept = FaultKind::Say {
        stdout: "Value: 1\n".to_owned(),
        stderr: String::new(),
        code: 0,
    };
    fake.inject(&Fault::once("getextradata", kept).after(2));
    let warnings = Warnings::default();
    let manifest = take(&scene, with(CaptureMode::DisksOnly), &warnings)
        .unwrap()
        .manifest;
    assert!(
        warnings.text().contains("although it was told not to"),
        "{}",
        warnings.text()
    );
    assert_eq!(manifest.machine.state, "poweroff");
    let is_memory = |role| role == FileRole::SavedState;
    assert!(!manifest.files.iter().any(|file| is_memory(file.role)));
    goes_on(&scene, "let go");
}

/// The guest writes so much while its disk is read that there would be too little room to merge.
struct Flood {
    snapshots: PathBuf,
}

/// More than any host has free, and less than a file may have.
const FLOOD_BYTES: u64 = 1 << 42;

impl Flood {
    /// Gives the new images another size; nothing is written.
    fn resize(&self, change: impl Fn(u64) -> u64) {
        let files = std::fs::read_dir(&self.snapshots).unwrap().flatten();
        let is_image = |path: &PathBuf| path.extension().is_some_and(|end| end == "vdi");
        for path in files.map(|file| file.path()).filter(is_image) {
            let image = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            image
                .set_len(change(image.metadata().unwrap().len()))
                .unwrap();
        }
    }
}

impl Progress for Flood {
    fn phase(&self, phase: Phase) {
        if phase.name == "reading" {
            self.resize(|length| length % FLOOD_BYTES + FLOOD_BYTES);
            // Room is looked at twice a second.
            std::thread::sleep(std::time::Duration::from_millis(600));
        }
    }
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}
    fn step(&self, step: &'static str) {
        if step == "virtualbox-snapshot-delete" {
            self.resize(|length| length % FLOOD_BYTES);
        }
    }
}

#[test]
fn a_capture_is_given_up_before_there_is_too_little_room_to_merge() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let flood = Flood {
        snapshots: find(&scene).folder().join("Snapshots"),
    };
    let given_up = take(&scene, with(CaptureMode::DisksOnly), &flood).unwrap_err();
    assert!(matches!(given_up, Error::RoomRanOut { .. }), "{given_up}");
    goes_on(&scene, "given up");
    take(&scene, with(CaptureMode::DisksOnly), &NoProgress).unwrap();
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
