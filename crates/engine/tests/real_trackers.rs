//! The tracker on the real VirtualBox: a running guest is taken again and again, read where it wrote only, and
//! goes on; whatever kills vrs in the middle of a merge, nothing of vrs's stays.
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

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{MIB, Scene};
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::manifest::FileRole;
use vrs_engine::recover;
use vrs_engine::take::{self, TakeOptions, TakePlan, Taken};
use vrs_engine::tracking::TrackingReport;
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_testkit::{GuestRecords, Rig, RigMachine, StepLog};
use vrs_virtualbox::{LocateOptions, VBoxManage};

fn scene(rig: &Rig) -> Scene {
    let mut scene = Scene::with_repository(rig.folder());
    scene.host.virtualbox = Ok(locate(rig.program()));
    scene
}

fn locate(program: PathBuf) -> VBoxManage {
    let options = LocateOptions {
        program: Some(program),
        ..LocateOptions::default()
    };
    VBoxManage::locate(&options).unwrap()
}

fn take(
    scene: &Scene,
    machine: &RigMachine<'_>,
    mode: CaptureMode,
    progress: &dyn Progress,
) -> vrs_engine::Result<Taken> {
    let found = Machine::find(&scene.host, &machine.id().to_string()).unwrap();
    let options = TakeOptions {
        mode: Some(mode),
        track: true,
        ..TakeOptions::default()
    };
    let plan = TakePlan::make(&scene.host, scene.store(), &found, options)?;
    take::execute(&scene.host, scene.store(), &plan, progress)
}

fn report(taken: &Taken) -> &TrackingReport {
    taken.tracking.as_ref().unwrap()
}

/// The guest's records in the stored disks, of one instant.
fn stored_round(scene: &Scene, machine: &RigMachine<'_>, taken: &Taken) -> u32 {
    let records = [1, 2].map(|disk| {
        let base = machine.base_image(disk);
        let files = taken.manifest.files.iter();
        let stored = files.clone().find(|file| file.original == base).unwrap();
        let disks = files.filter(|file| file.role == FileRole::Disk);
        assert_eq!(disks.count(), 2);
        let path = TreePath::new(&stored.path).unwrap();
        let mut reader = scene.store().open_file(&taken.id, &path).unwrap();
        let mut bytes = vec![0; reader.size_bytes() as usize];
        reader.read_at(0, &mut bytes).unwrap();
        let copy = scene.folder.join(format!("stored {disk}.vdi"));
        std::fs::write(&copy, bytes).unwrap();
        GuestRecords::of_image(disk, &copy).expect("whole records")
    });
    GuestRecords::last_round(&records[0], &records[1]).unwrap()
}

fn names(scene: &Scene, machine: &RigMachine<'_>) -> Vec<String> {
    let driver = scene.host.virtualbox().unwrap();
    let listed = driver.virtualbox_snapshots(machine.id().into()).unwrap();
    listed.into_iter().map(|made| made.name).collect()
}

fn images(machine: &RigMachine<'_>) -> Vec<PathBuf> {
    let files = std::fs::read_dir(machine.folder().join("Snapshots"));
    let files = files.into_iter().flatten().flatten();
    files.map(|file| file.path()).collect()
}

#[track_caller]
fn assert_tracked(scene: &Scene, machine: &RigMachine<'_>) {
    let names = names(scene, machine);
    let is_ours = names.len() == 1 && names[0].starts_with("vrs tracker ");
    assert!(is_ours, "{names:?}");
    assert_eq!(images(machine).len(), 2);
    assert_eq!(recover::owed(&scene.host).unwrap().len(), 0);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_tracked_guest_goes_on_and_is_read_where_it_wrote() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest_beside_data(&rig, "tracked");
    let scene = scene(&rig);
    machine.start_counting();
    machine.wait_for_rounds(20);
    let mut last_round = 0;
    let modes = [
        CaptureMode::Memory,
        CaptureMode::Memory,
        CaptureMode::DisksOnly,
        CaptureMode::Live,
    ];
    for (number, mode) in modes.into_iter().enumerate() {
        let taken = take(&scene, &machine, mode, &NoProgress).unwrap();
        assert_tracked(&scene, &machine);
        let notes = &report(&taken).notes;
        assert!(notes.is_empty(), "{notes:?}");
        if number > 0 {
            let vouched = report(&taken).images.iter();
            assert!(vouched.map(|image| image.vouched_bytes).sum::<u64>() >= 4 * MIB);
        }
        let round = stored_round(&scene, &machine, &taken);
        assert!(round > last_round, "{round} {last_round}");
        last_round = round;
        machine.wait_for_rounds(10);
        assert!(machine.is_alive());
    }
    assert_eq!(machine.counts().unwrap().starts, 1);
    machine.power_off();
    // At rest: with the list of what the guest wrote, and of nothing.
    for _ in 0..2 {
        let taken = take(&scene, &machine, CaptureMode::Memory, &NoProgress).unwrap();
        assert_tracked(&scene, &machine);
        let report = report(&taken);
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        assert_eq!(report.images.len(), 2);
        assert_eq!(
            stored_round(&scene, &machine, &taken),
            machine.last_round().unwrap()
        );
    }
    // A scan finds nothing wrong.
    let found = Machine::find(&scene.host, &machine.id().to_string()).unwrap();
    let options = TakeOptions {
        track: true,
        force_read: true,
        ..TakeOptions::default()
    };
    let plan = TakePlan::make(&scene.host, scene.store(), &found, options).unwrap();
    let log = StepLog::default();
    let scanned = take::execute(&scene.host, scene.store(), &plan, &log).unwrap();
    assert_eq!((report(&scanned).wrong_bytes, log.warnings().len()), (0, 0));
    assert_eq!(report(&scanned).images.len(), 2);
    // Off again.
    let plan = TakePlan::make(&scene.host, scene.store(), &found, TakeOptions::default()).unwrap();
    take::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap();
    assert_eq!(names(&scene, &machine), [""; 0]);
    assert_eq!(images(&machine), [""; 0].map(PathBuf::from));
}

const CHILD: &str = "VRS_TRACKERS_CHILD";

/// Ends the process as soon as VirtualBox writes to the base image, which it does to merge the tracker.
struct DiesInMerge {
    base: PathBuf,
}

impl Progress for DiesInMerge {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, _warning: &str) {}
    fn step(&self, step: &'static str) {
        if step == "tracker-delete" {
            let written = |base: &PathBuf| std::fs::metadata(base).unwrap().modified().unwrap();
            let (base, before) = (self.base.clone(), written(&self.base));
            std::thread::spawn(move || {
                while written(&base) == before {}
                std::process::abort();
            });
        }
    }
}

/// What the child does, which is killed: `folder` and `base` are of the test's machine.
fn take_and_die(folder: &Path, program: PathBuf, base: PathBuf) {
    let mut scene = Scene::new(folder);
    scene.host.virtualbox = Ok(locate(program));
    let options = TakeOptions {
        mode: Some(CaptureMode::DisksOnly),
        track: true,
        ..TakeOptions::default()
    };
    let found = Machine::find(&scene.host, "killed").unwrap();
    let plan = TakePlan::make(&scene.host, scene.store(), &found, options).unwrap();
    let _ = take::execute(&scene.host, scene.store(), &plan, &DiesInMerge { base });
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_take_that_dies_in_a_merge_is_undone_and_the_guest_goes_on() {
    if let Ok(child) = std::env::var(CHILD) {
        let [folder, program, base] = [0, 1, 2].map(|at| child.split('\n').nth(at).unwrap());
        take_and_die(folder.as_ref(), program.into(), base.into());
        return;
    }
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "killed");
    let scene = scene(&rig);
    machine.start_counting();
    machine.wait_for_rounds(20);
    take(&scene, &machine, CaptureMode::DisksOnly, &NoProgress).unwrap();
    machine.wait_for_rounds(12);
    let paths = [scene.folder.clone(), rig.program(), machine.base_image(1)];
    let child = paths
        .map(|path| path.to_str().unwrap().to_owned())
        .join("\n");
    let name = "a_take_that_dies_in_a_merge_is_undone_and_the_guest_goes_on";
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(CHILD, child)
        .status();
    assert!(!status.unwrap().success());
    let owed = recover::owed(&scene.host).unwrap();
    assert_eq!(owed.len(), 1);
    recover::finish_without_repository(&scene.host, &owed[0], &NoProgress).unwrap();
    assert_eq!(names(&scene, &machine), [""; 0]);
    assert_eq!(images(&machine), [""; 0].map(PathBuf::from));
    machine.wait_for_rounds(5);
    assert_eq!(machine.counts().unwrap().starts, 1);
    let taken = take(&scene, &machine, CaptureMode::DisksOnly, &NoProgress).unwrap();
    assert!(report(&taken).images.is_empty());
    machine.wait_for_rounds(2);
    machine.power_off();
}
