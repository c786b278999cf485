//! How the driver deals with a `VBoxManage` that lies, hangs, fails and dies while machines run. What
//! it does when all goes well is tested with the real one in `real_running.rs`.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;
use vrs_progress::NoProgress;
use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, SampleDisk, SampleMachine};
use vrs_virtualbox::{
    DeviceType, Error, ErrorKind, Frontend, LocateOptions, MachineId, MachineState, Result,
    TakeVirtualBoxSnapshot, VBoxManage, VirtualBoxSnapshotId,
};

use common::Warnings;

const NEVER: &(dyn Fn() -> bool + Sync) = &|| false;

struct Scene {
    _folder: tempfile::TempDir,
    fake: FakeVBoxManage,
    sample: SampleMachine,
    vboxmanage: VBoxManage,
    warnings: Warnings,
}

/// A change of a running machine.
#[derive(Clone, Copy, Debug)]
enum Change {
    Pause,
    Resume,
    Save,
    Discard,
    ExtraData,
    Take,
    Delete,
}

impl Scene {
    /// A machine that runs.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeVBoxManage::new();
        let sample = SampleMachine::builder(folder.path(), "m")
            .disk(SampleDisk::dynamic(4 << 20))
            .build();
        fake.register(&sample.settings_path());
        let id = sample.id().to_string();
        fake.run(["startvm", &id, "--type", "headless"]);
        let vboxmanage = VBoxManage::locate(&LocateOptions {
            program: Some(fake.program()),
            patience: Duration::from_secs(2),
            ..LocateOptions::default()
        });
        Self {
            _folder: folder,
            fake,
            sample,
            vboxmanage: vboxmanage.unwrap(),
            warnings: Warnings::default(),
        }
    }

    /// A machine in the state that a change begins with.
    fn before(change: Change) -> Self {
        let scene = Self::new();
        let id = scene.sample.id().to_string();
        match change {
            Change::Resume => drop(scene.fake.run(["controlvm", &id, "pause"])),
            Change::Discard => drop(scene.fake.run(["controlvm", &id, "savestate"])),
            Change::Delete => drop(scene.fake.run(["snapshot", &id, "take", "t"])),
            _ => {}
        }
        scene
    }

    fn id(&self) -> MachineId {
        self.sample.id().into()
    }

    fn only_virtualbox_snapshot(&self) -> Option<VirtualBoxSnapshotId> {
        let listed = self.vboxmanage.virtualbox_snapshots(self.id()).unwrap();
        assert!(listed.len() <= 1);
        listed.first().map(|listed| listed.id)
    }

    fn make(&self, change: Change) -> Result<()> {
        let (vboxmanage, id) = (&self.vboxmanage, self.id());
        match change {
            Change::Pause => vboxmanage.pause(id, &self.warnings),
            Change::Resume => vboxmanage.resume(id, &self.warnings),
            Change::Save => vboxmanage.save_state(id, &self.warnings).map(drop),
            Change::Discard => vboxmanage.discard_state(id, &self.warnings),
            Change::ExtraData => vboxmanage.set_extra_data(id, "k", Some("v"), &self.warnings),
            Change::Take => self.take(NEVER).map(|taken| {
                assert_eq!(Some(taken), self.only_virtualbox_snapshot());
            }),
            Change::Delete => {
                let snapshot = self.only_virtualbox_snapshot();
                vboxmanage.delete_virtualbox_snapshot(
                    id,
                    snapshot.unwrap_or_else(|| vboxmanage_id(1)),
                    &self.warnings,
                )
            }
        }
    }

    fn take(&self, stop: &(dyn Fn() -> bool + Sync)) -> Result<VirtualBoxSnapshotId> {
        let options = TakeVirtualBoxSnapshot {
            name: "t".to_owned(),
            description: "d".to_owned(),
            live: false,
        };
        self.vboxmanage
            .take_virtualbox_snapshot(self.id(), &options, stop, &self.warnings)
    }

    fn is_made(&self, change: Change) -> bool {
        let status = self.vboxmanage.machine(self.id()).unwrap();
        match change {
            Change::Pause => status.state == MachineState::Paused,
            Change::Resume => status.state == MachineState::Running,
            Change::Save => status.state == MachineState::Saved,
            Change::Discard => status.state == MachineState::PoweredOff,
            Change::ExtraData => {
                self.vboxmanage
                    .extra_data(self.id(), "k")
                    .unwrap()
                    .as_deref()
                    == Some("v")
            }
            Change::Take => status.virtualbox_snapshots.len() == 1,
            Change::Delete => status.virtualbox_snapshots.is_empty(),
        }
    }

    /// The calls of the command that makes a change.
    fn commands(&self, change: Change) -> usize {
        let calls = self.fake.calls();
        calls
            .iter()
            .filter(|call| call.starts_with(verb(change)) && !call.contains(" list "))
            .count()
    }
}

fn vboxmanage_id(number: u128) -> VirtualBoxSnapshotId {
    uuid::Uuid::from_u128(number).into()
}

fn verb(change: Change) -> &'static str {
    match change {
        Change::Pause | Change::Resume | Change::Save => "controlvm",
        Change::Discard => "discardstate",
        Change::ExtraData => "setextradata",
        Change::Take | Change::Delete => "snapshot",
    }
}

#[rstest]
fn what_goes_well_is_made_once_and_not_again(
    #[values(
        Change::Pause,
        Change::Resume,
        Change::Save,
        Change::Discard,
        Change::ExtraData,
        Change::Delete
    )]
    change: Change,
) {
    let scene = Scene::before(change);
    let before = scene.commands(change);
    scene.make(change).unwrap();
    assert!(scene.is_made(change));
    assert_eq!(scene.warnings.text(), "");
    let commands = scene.commands(change);
    assert_eq!(commands, before + 1);
    scene.make(change).unwrap();
    // A resume is sent without a look at the machine, whose guest waits.
    if !matches!(change, Change::Resume) {
        assert_eq!(scene.commands(change), commands);
        assert_eq!(scene.warnings.text(), "");
    }
}

#[rstest]
fn every_fault_of_the_program_is_seen_through(
    #[values(
        Change::Pause,
        Change::Resume,
        Change::Save,
        Change::Discard,
        Change::ExtraData,
        Change::Take,
        Change::Delete
    )]
    change: Change,
) {
    let struck = |kind: FaultKind, times: usize| {
        let scene = Scene::before(change);
        let fault = Fault::once(verb(change), kind).times(times);
        scene.fake.inject(&fault);
        let outcome = scene.make(change);
        (scene, outcome)
    };

    let (scene, outcome) = struck(FaultKind::Lie, 1);
    assert!(matches!(outcome, Err(Error::NotDone { .. })), "{outcome:?}");
    assert!(!scene.is_made(change));

    for kind in [FaultKind::DoneButFails, FaultKind::CrashAfter] {
        let (scene, outcome) = struck(kind, 1);
        outcome.unwrap();
        assert!(scene.is_made(change));
        let warnings = scene.warnings.text();
        assert!(warnings.contains("it is done, although"), "{warnings}");
    }

    let (scene, outcome) = struck(FaultKind::Locked, 2);
    outcome.unwrap();
    assert!(scene.is_made(change));
    assert_eq!(scene.warnings.text().matches("trying again").count(), 2);

    let (scene, outcome) = struck(FaultKind::CrashBefore, 1);
    assert!(matches!(outcome, Err(Error::Signal { .. })), "{outcome:?}");
    assert!(!scene.is_made(change));

    let (scene, outcome) = struck(FaultKind::Hang, 1);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(!scene.is_made(change));
}

/// The answer of a service that is killed in the middle of it: `VBoxManage` ends well, and need not
/// say a word.
fn cut_answer(scene: &Scene) -> FaultKind {
    let id = scene.sample.id().to_string();
    let mut answer = scene.fake.run(["showvminfo", &id, "--machinereadable"]);
    let snapshots = answer.find("SnapshotName=");
    let end = snapshots.or_else(|| answer.find("GuestMemoryBalloon="));
    answer.truncate(end.unwrap());
    FaultKind::Say {
        stdout: answer,
        stderr: String::new(),
        code: 0,
    }
}

#[test]
fn an_answer_without_its_end_is_asked_for_again() {
    let scene = Scene::before(Change::Take);
    let cut = cut_answer(&scene);
    scene.fake.inject(&Fault::once("showvminfo", cut));
    scene.make(Change::Take).unwrap();
    assert!(scene.is_made(Change::Take));

    let scene = Scene::before(Change::Delete);
    let cut = cut_answer(&scene);
    // The list is looked at first, and the machine's state twice.
    let after_delete = Fault::once("showvminfo", cut).after(3).times(2);
    scene.fake.inject(&after_delete);
    scene
        .fake
        .inject(&Fault::once(verb(Change::Delete), FaultKind::Lie));
    let outcome = scene.make(Change::Delete);
    assert!(matches!(outcome, Err(Error::Output { .. })), "{outcome:?}");
    assert!(!scene.is_made(Change::Delete));
}

#[test]
fn what_virtualbox_goes_on_with_is_waited_for() {
    for (change, state) in [
        (Change::Save, "saving"),
        (Change::Take, "onlinesnapshotting"),
        (Change::Delete, "deletingsnapshotlive"),
    ] {
        let scene = Scene::before(change);
        let meanwhile = FaultKind::CrashMeanwhile {
            state: state.to_owned(),
            milliseconds: 1500,
        };
        scene.fake.inject(&Fault::once(verb(change), meanwhile));
        scene.make(change).unwrap();
        assert!(scene.is_made(change), "{change:?}");
        let warnings = scene.warnings.text();
        let explanation = format!("is {state}; waiting until that is over");
        assert!(warnings.contains(&explanation), "{warnings}");
    }
}

/// Its patience is two seconds; the command is silent for five.
#[test]
fn a_silent_command_is_left_alone_while_virtualbox_works_on_it() {
    for (change, state) in [
        (Change::Save, "saving"),
        (Change::Take, "onlinesnapshotting"),
        (Change::Delete, "deletingsnapshotlive"),
    ] {
        let scene = Scene::before(change);
        let slow = FaultKind::Slow {
            state: state.to_owned(),
            milliseconds: 5000,
        };
        scene.fake.inject(&Fault::once(verb(change), slow));
        scene.make(change).unwrap();
        assert!(scene.is_made(change), "{change:?}");
        assert_eq!(scene.warnings.text(), "");
    }
}

/// Images stay locked after a merge that died, until VirtualBox's service has ended.
#[test]
fn a_start_that_fails_without_a_reason_is_made_when_the_service_has_ended() {
    let scene = Scene::before(Change::Discard);
    let unexplained = FaultKind::Say {
        stdout: "Waiting for VM \"m\" to power on...\n".to_owned(),
        stderr: include_str!("recorded/7.2.22/error-start-lock.txt").to_owned(),
        code: 1,
    };
    scene.fake.inject(&Fault::once("startvm", unexplained));
    let started = scene
        .vboxmanage
        .start(scene.id(), Frontend::Headless, &scene.warnings);
    started.unwrap();
    assert_eq!(scene.fake.state(scene.sample.id()), "running");
    let told = scene.warnings.text();
    assert!(told.contains("No error info"), "{told}");
    assert!(
        told.contains("waiting until VirtualBox's service has ended"),
        "{told}"
    );
}

#[test]
fn a_take_is_cancelled() {
    let scene = Scene::new();
    let slow = FaultKind::Slow {
        state: "livesnapshotting".to_owned(),
        milliseconds: 60_000,
    };
    scene.fake.inject(&Fault::once("snapshot", slow));
    let start = Instant::now();
    let stop = || start.elapsed() > Duration::from_millis(500);
    let error = scene.take(&stop).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(50));
    assert_eq!(scene.only_virtualbox_snapshot(), None);
    assert_eq!(scene.fake.state(scene.sample.id()), "running");
}

#[test]
fn a_hanging_command_is_stopped_on_request() {
    let scene = Scene::new();
    scene.fake.inject(&Fault::once("snapshot", FaultKind::Hang));
    let error = scene.take(&|| true).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
}

#[test]
fn nothing_is_sent_to_a_machine_on_its_way_to_another_state() {
    let scene = Scene::new();
    let before = scene.fake.calls().len();
    for state in ["livesnapshotting", "onlinesnapshotting", "saving"] {
        scene.fake.set_state(scene.sample.id(), state);
        for refused in [
            scene.make(Change::Pause),
            scene.make(Change::Save),
            scene.vboxmanage.power_off(scene.id(), &scene.warnings),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::WrongState { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Busy);
        }
        let settled = scene
            .vboxmanage
            .settled_machine(scene.id(), Duration::ZERO, &NoProgress);
        assert!(matches!(settled, Err(Error::Unsettled { .. })));
    }
    let calls = scene.fake.calls().split_off(before);
    assert!(calls.iter().all(|call| call.starts_with("showvminfo")));
    assert!(!scene.fake.is_frozen(scene.sample.id()));
}

#[test]
fn a_machine_is_waited_for_with_one_explanation() {
    let scene = Scene::new();
    scene.fake.set_state(scene.sample.id(), "saving");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(1800));
            scene.fake.set_state(scene.sample.id(), "saved");
            is_over.store(true, Ordering::Relaxed);
        });
        let patience = Duration::from_secs(60);
        let settled = scene
            .vboxmanage
            .settled_machine(scene.id(), patience, &scene.warnings)
            .unwrap();
        assert!(is_over.load(Ordering::Relaxed));
        assert_eq!(settled.state, MachineState::Saved);
    });
    assert_eq!(scene.warnings.text().matches("waiting").count(), 1);
}

#[test]
fn a_medium_is_deleted_with_its_file() {
    let scene = Scene::before(Change::Delete);
    let media = scene.vboxmanage.media().unwrap();
    let delete = |id| {
        scene
            .vboxmanage
            .delete_medium(DeviceType::Disk, id, &scene.warnings)
    };
    for medium in &media {
        assert_eq!(delete(medium.id).unwrap_err().kind(), ErrorKind::Busy);
        assert!(medium.location.exists());
    }
    scene.fake.run(["controlvm", &id_of(&scene), "poweroff"]);
    scene.fake.run(["unregistervm", &id_of(&scene)]);
    let image = scene.sample.chain(0).pop().unwrap();
    scene
        .fake
        .run(["showmediuminfo", "disk", image.to_str().unwrap()]);
    let base = scene.vboxmanage.media().unwrap()[0].clone();
    for kind in [FaultKind::Lie, FaultKind::DoneButFails] {
        scene.fake.inject(&Fault::once("closemedium", kind));
    }
    let lie = delete(base.id).unwrap_err();
    assert!(matches!(lie, Error::NotDone { .. }), "{lie:?}");
    delete(base.id).unwrap();
    assert!(!base.location.exists());
    delete(base.id).unwrap();
}

fn id_of(scene: &Scene) -> String {
    scene.sample.id().to_string()
}
