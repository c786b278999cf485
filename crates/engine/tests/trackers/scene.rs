//! Machines that are tracked, and what is true of them.

use std::path::{Path, PathBuf};

use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::manifest::FileRole;
use vrs_engine::take::{TakeOptions, TakePlan, Taken};
use vrs_engine::tracking::TrackingReport;
use vrs_engine::{Result, recover, take};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_testkit::{SampleDisk, SampleMachine};
use vrs_virtualbox::MachineSettings;

use crate::common::{MIB, Scene};
use crate::registered::{virtualbox, with_virtualbox};
use crate::witness::Witness;

pub const DISKS: usize = 2;

/// Headers and maps of two images, settings and the like.
pub const SMALL_BYTES: u64 = 6 * MIB;

/// A machine that is off.
pub fn machine_at_rest(folder: &Path) -> Scene {
    sample_at_rest(folder).0
}

pub fn sample_at_rest(folder: &Path) -> (Scene, SampleMachine) {
    let scene = Scene::with_repository(folder);
    let mut machine = SampleMachine::builder(&scene.machines(), "web")
        .disk(SampleDisk::dynamic(12 * MIB))
        .disk(SampleDisk::dynamic(6 * MIB))
        .nvram(300)
        .build();
    machine.fill(0, 0, 9 * MIB as usize, 1);
    machine.fill(1, MIB, 3 * MIB as usize, 2);
    virtualbox(folder).register(&machine.settings_path());
    (with_virtualbox(scene), machine)
}

pub fn running_machine(folder: &Path) -> Scene {
    let scene = machine_at_rest(folder);
    start(&scene);
    scene
}

pub fn start(scene: &Scene) {
    virtualbox(&scene.folder).run(["startvm", "web", "--type", "headless"]);
}

pub fn power_off(scene: &Scene) {
    virtualbox(&scene.folder).run(["controlvm", "web", "poweroff"]);
}

pub fn find(scene: &Scene) -> Machine {
    Machine::find(&scene.host, "web").unwrap()
}

pub fn settings(scene: &Scene) -> MachineSettings {
    MachineSettings::read(&find(scene).settings_file).unwrap()
}

pub fn write(scene: &Scene, disk: usize, at: u64, byte: u8) {
    let id = find(scene).id.uuid();
    virtualbox(&scene.folder).write_as_guest(id, disk, at, &[byte; 5000]);
}

pub fn tracked() -> TakeOptions {
    TakeOptions {
        track: true,
        ..TakeOptions::default()
    }
}

pub fn with(mode: CaptureMode) -> TakeOptions {
    TakeOptions {
        mode: Some(mode),
        ..tracked()
    }
}

pub fn take(scene: &Scene, options: TakeOptions, progress: &dyn Progress) -> Result<Taken> {
    let plan = TakePlan::make(&scene.host, scene.store(), &find(scene), options)?;
    take::execute(&scene.host, scene.store(), &plan, progress)
}

pub fn report(taken: &Taken) -> &TrackingReport {
    taken.tracking.as_ref().unwrap()
}

/// The smaller disk's first.
pub fn vouched_bytes(report: &TrackingReport) -> Vec<u64> {
    let images = report.images.iter();
    let mut vouched: Vec<u64> = images.map(|image| image.vouched_bytes).collect();
    vouched.sort_unstable();
    vouched
}

/// Names of the machine's VirtualBox snapshots.
pub fn names(scene: &Scene) -> Vec<String> {
    let driver = scene.host.virtualbox().unwrap();
    let listed = driver.virtualbox_snapshots(find(scene).id).unwrap();
    listed.into_iter().map(|made| made.name).collect()
}

pub fn bases(scene: &Scene) -> Vec<PathBuf> {
    let settings = settings(scene);
    let folder = find(scene).folder().to_owned();
    let bases = settings.hard_disks.iter();
    bases
        .map(|disk| settings.resolve(&folder, &disk.location))
        .collect()
}

pub fn record(scene: &Scene) -> PathBuf {
    let name = format!("tracking/{}.record", find(scene).id);
    scene.host.state_folder.join(name)
}

/// One tracker, and nothing else that vrs made.
#[track_caller]
pub fn assert_tracked(scene: &Scene, what: &str) {
    let names = names(scene);
    assert!(
        names.len() == 1 && names[0].starts_with("vrs tracker "),
        "{what}: {names:?}"
    );
    assert!(record(scene).exists(), "{what}");
    assert_clean(scene, DISKS, what);
}

/// Nothing that vrs made.
#[track_caller]
pub fn assert_untracked(scene: &Scene, what: &str) {
    assert_eq!(names(scene), [""; 0], "{what}");
    assert!(!record(scene).exists(), "{what}");
    assert_clean(scene, 0, what);
    let kept = std::fs::read_dir(scene.host.state_folder.join("tracking"));
    let kept: Vec<_> = kept.into_iter().flatten().flatten().collect();
    assert!(kept.is_empty(), "{what}: {kept:?}");
}

#[track_caller]
pub fn assert_clean(scene: &Scene, images: usize, what: &str) {
    let driver = scene.host.virtualbox().unwrap();
    let machine = find(scene);
    let differencing = driver.media().unwrap();
    let differencing = differencing.iter().filter(|medium| medium.parent.is_some());
    assert_eq!(differencing.count(), images, "{what}");
    let files = std::fs::read_dir(machine.folder().join("Snapshots"));
    let files: Vec<_> = files
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().path())
        .collect();
    let is_image = |path: &&PathBuf| path.extension().is_some_and(|end| end == "vdi");
    assert_eq!(
        files.iter().filter(is_image).count(),
        images,
        "{what}: {files:?}"
    );
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "sav");
    assert!(!files.iter().any(is_state), "{what}: {files:?}");
    let key = driver.extra_data(machine.id, "VBoxInternal2/ForceTakeSnapshotWithoutState");
    assert_eq!(key.unwrap(), None, "{what}");
    assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
}

/// What is stored is what a scan of the frozen images would store.
#[track_caller]
pub fn take_right(scene: &Scene, options: TakeOptions) -> Taken {
    let witness = Witness::new(scene);
    let taken = take(scene, options, &witness).unwrap();
    let copies = witness.copies.into_inner().unwrap();
    let mut disks = 0;
    for file in &taken.manifest.files {
        if file.role == FileRole::Disk {
            let image = copies.get(&file.original).unwrap_or(&file.original);
            scene.assert_as_scanned(&taken, file, image);
            disks += 1;
        }
    }
    assert!(disks >= DISKS);
    taken
}

/// The stored settings know no VirtualBox snapshot of vrs's, and base images only.
#[track_caller]
pub fn assert_stored_without(scene: &Scene, taken: &Taken, is_again: bool) {
    let path = TreePath::new(&taken.manifest.settings).unwrap();
    let mut reader = scene.store().open_file(&taken.id, &path).unwrap();
    let mut text = vec![0; reader.size_bytes() as usize];
    reader.read_at(0, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        !text.contains("<Snapshot") && !text.contains("vrs t"),
        "{text}"
    );
    assert!(!text.contains("currentSnapshot"), "{text}");
    let count = |role| {
        let files = taken.manifest.files.iter();
        files.filter(|file| file.role == role).count()
    };
    assert_eq!(count(FileRole::Disk), DISKS);
    // VirtualBox's copy of the settings before knows the tracker.
    assert!(!is_again || count(FileRole::PreviousSettings) == 0);
    assert!(
        taken
            .manifest
            .media
            .iter()
            .all(|medium| medium.parent.is_none())
    );
}

pub const NO_NOTES: [String; 0] = [];

pub fn guest(scene: &Scene, disk: usize) -> Vec<u8> {
    virtualbox(&scene.folder).guest_bytes(find(scene).id.uuid(), disk)
}

/// A tracked machine at rest, whose guest has written since.
pub fn tracked_machine(folder: &Path) -> Scene {
    let scene = machine_at_rest(folder);
    take(&scene, tracked(), &NoProgress).unwrap();
    start(&scene);
    write(&scene, 0, 3 * MIB, 7);
    power_off(&scene);
    scene
}

pub fn take_virtualbox_snapshot(scene: &Scene, name: &str) {
    virtualbox(&scene.folder).run(["snapshot", "web", "take", name]);
}

pub fn delete_virtualbox_snapshot(scene: &Scene, name: &str) {
    virtualbox(&scene.folder).run(["snapshot", "web", "delete", name]);
}

pub fn restore_virtualbox_snapshot(scene: &Scene, name: &str) {
    virtualbox(&scene.folder).run(["snapshot", "web", "restore", name]);
}
