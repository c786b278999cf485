//! A restore over files that are known by their stamps is ended before every step, the power of the whole host
//! included. Whatever was written by then, no stamp vouches for anything else than what a snapshot read.
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
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{
    CHUNK_BYTES, MIB, Scene, Tree, assert_same, assert_sound, let_the_clock_move_on, tree,
};
use registered::{Known, assert_listed, find, recover_all, small_machine, virtualbox};
use tempfile::TempDir;
use vrs_engine::catalog;
use vrs_engine::manifest::FileRole;
use vrs_engine::recover::Recovered;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan};
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{FileStamp, SnapshotStore, TreePath, read_to_vec};
use vrs_testkit::{CrashPoint, Device, LoopDisk, run_at_every_step};

/// Made at once, so that the clock has to move on but once.
const MACHINES: usize = 32;
/// What is about to be done when these are announced changes a file.
const WRITES: [&str; 3] = [
    "write target",
    "set length of target",
    "punch hole in target",
];

/// When this is announced, a file still has the stamp that a snapshot knows.
const RENEWAL: &str = "renew stamp of target";

/// A machine as it was, and as it is.
struct States {
    folder: TempDir,
}

impl States {
    fn make() -> Self {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let scene = Scene::new(folder.path());
        let mut machine = small_machine(&scene, "web");
        machine.fill(0, MIB, 100_000, 7);
        let (present, was) = (scene.machines(), folder.path().join("was"));
        let copied = Command::new("cp").arg("-a").args([&present, &was]).status();
        assert!(copied.unwrap().success());
        machine.fill(0, MIB, 200_000, 5);
        // Where the snapshot has a chunk of zeros.
        machine.fill(0, MIB + CHUNK_BYTES, 100_000, 5);
        machine.fill(0, 2 * MIB, 100_000, 7);
        machine.take_virtualbox_snapshot("later");
        machine.fill(0, 3 * MIB, 100_000, 6);
        Self { folder }
    }

    fn move_to(&self, state: &str, scene: &Scene) {
        let machines = scene.machines();
        fs::remove_dir_all(&machines).unwrap();
        fs::rename(self.folder.path().join(state), machines).unwrap();
    }
}

fn take(scene: &Scene) -> SnapshotId {
    let machine = find(scene, &scene.folder);
    let options = TakeOptions::default();
    let plan = TakePlan::make(&scene.host, scene.store(), &machine, options).unwrap();
    let taken = take::execute(&scene.host, scene.store(), &plan, &NoProgress);
    taken.unwrap().id
}

/// A machine with a snapshot of each of its states, whose files are as the second left them.
fn prepare(folder: &Path, known: Known, states: &States) -> (Tree, Tree) {
    let scene = Scene::with_repository(folder);
    states.move_to("was", &scene);
    let first = tree(&scene.machines());
    take(&scene);
    states.move_to("machines", &scene);
    take(&scene);
    if known == Known::ToVirtualBox {
        virtualbox(folder).register(&find(&scene, folder).settings_file);
    }
    (first, tree(&scene.machines()))
}

fn snapshots(scene: &Scene) -> Vec<SnapshotId> {
    let listed = catalog::snapshots(scene.store()).unwrap().snapshots;
    listed.iter().map(|snapshot| snapshot.id).collect()
}

/// As the command does it.
fn restore(scene: &Scene, snapshot: SnapshotId, progress: &dyn Progress) {
    let snapshots = catalog::snapshots(scene.store()).unwrap().snapshots;
    let wanted = snapshots.iter().find(|present| present.id == snapshot);
    let wanted = wanted.unwrap();
    let last_taken = restore::last_taken_here(&scene.host, &snapshots, wanted.machine);
    assert!(last_taken.is_some());
    let options = RestoreOptions {
        last_taken,
        ..RestoreOptions::default()
    };
    let (host, store) = (&scene.host, scene.store());
    let plan = RestorePlan::make(host, store, wanted, &options, progress).unwrap();
    restore::execute(host, store, &plan, progress).unwrap();
}

/// Files that the last snapshot's stamps vouch for.
fn known(scene: &Scene, snapshot: SnapshotId) -> Vec<PathBuf> {
    let manifest = catalog::manifest(scene.store(), &snapshot).unwrap();
    let files = manifest.files.into_iter();
    let vouched = files.filter(|file| {
        let same = |stamp| FileStamp::from(file.stamp) == stamp;
        file.settled && FileStamp::of(&file.original).is_ok_and(same)
    });
    vouched.map(|file| file.original).collect()
}

/// What a snapshot stores of the machine's files is what they hold.
fn assert_stored(scene: &Scene, snapshot: SnapshotId, what: &str) {
    let manifest = catalog::manifest(scene.store(), &snapshot).unwrap();
    let disks = manifest.files.iter();
    let disks: Vec<_> = disks.filter(|file| file.role == FileRole::Disk).collect();
    assert!(!disks.is_empty());
    for disk in disks {
        let path = TreePath::new(disk.path.as_str()).unwrap();
        let mut reader = scene.store().open_file(&snapshot, &path).unwrap();
        let stored = read_to_vec(reader.as_mut(), 1 << 30).unwrap();
        assert!(stored == fs::read(&disk.original).unwrap(), "{what}");
    }
}

/// Whatever was written when the restore of the first snapshot ended.
fn assert_nothing_is_lost(
    scene: &Scene,
    known_to: Known,
    crash: &CrashPoint,
    (first, last): &(Tree, Tree),
) {
    let what = format!("{crash:?}");
    let [of_first, of_last] = snapshots(scene)[..] else {
        panic!("{what}");
    };
    let known = known(scene, of_last);
    for path in &known {
        assert!(fs::read(path).unwrap() == last[path], "{what}");
    }
    let differs = |path: &PathBuf| first.get(path).is_some_and(|was| *was != last[path]);
    if crash.step == RENEWAL {
        assert!(known.iter().any(differs), "{what}");
    }
    if WRITES.contains(&crash.step.as_str()) {
        // From before the first write on.
        assert!(!known.iter().any(differs), "{what}");
    }
    let present = match recover_all(scene).as_slice() {
        [] | [Recovered::Dropped] => tree(&scene.machines()),
        [Recovered::Finished(_)] => {
            assert_same(&tree(&scene.machines()), first, &what);
            first.clone()
        }
        more => panic!("{what}: {more:?}"),
    };
    if present != *first {
        assert_same(&present, last, &what);
    }
    if known_to == Known::ToVirtualBox {
        assert_listed(scene, &["web"], &what);
    }
    // Asking VirtualBox would take most of the time, and it has no part in what follows.
    let scene = Scene::new(&scene.folder);
    assert_stored(&scene, take(&scene), &what);
    assert_same(&tree(&scene.machines()), &present, &what);
    for (snapshot, wanted) in [(of_last, last), (of_first, first)] {
        restore(&scene, snapshot, &NoProgress);
        assert_same(&tree(&scene.machines()), wanted, &what);
    }
    assert_sound(&scene, &what);
}

fn assert_looked_at(crashes: &[CrashPoint]) {
    let at = |step: &str| crashes.iter().any(|crash| crash.step == step);
    let mut steps = WRITES.into_iter().chain([RENEWAL]);
    assert!(steps.all(at), "{crashes:?}");
}

fn crash_restore(test: &str, known: Known) {
    let states = RefCell::new(Vec::new());
    let trees = RefCell::new((Tree::new(), Tree::new()));
    let crashes = run_at_every_step(
        test,
        |folder| {
            let mut states = states.borrow_mut();
            if states.is_empty() {
                states.extend((0..MACHINES).map(|_| States::make()));
                let_the_clock_move_on();
            }
            *trees.borrow_mut() = prepare(folder, known, &states.pop().unwrap());
        },
        |folder, progress| {
            let scene = known.scene(folder);
            restore(&scene, snapshots(&scene)[0], progress);
        },
        |folder, crash| {
            assert_nothing_is_lost(&known.scene(folder), known, crash, &trees.borrow());
        },
    );
    assert_looked_at(&crashes);
}

#[test]
fn restore_of_known_files_at_every_step() {
    crash_restore("restore_of_known_files_at_every_step", Known::ByItsFile);
}

#[test]
fn restore_of_known_files_of_a_registered_machine_at_every_step() {
    let test = "restore_of_known_files_of_a_registered_machine_at_every_step";
    crash_restore(test, Known::ToVirtualBox);
}

/// A machine on a disk whose power can be cut.
struct Powered {
    disk: LoopDisk,
    prepared: Device,
    trees: (Tree, Tree),
}

impl Powered {
    fn prepare() -> Self {
        // Nothing is flushed but what is asked for.
        let disk = LoopDisk::mount("ext4", "commit=3600");
        let states = States::make_in(disk.path());
        let_the_clock_move_on();
        let trees = prepare(disk.path(), Known::ByItsFile, &states);
        drop(states);
        let sync = Command::new("sync").arg("-f").arg(disk.path()).status();
        assert!(sync.unwrap().success());
        Self {
            prepared: disk.device(),
            disk,
            trees,
        }
    }
}

/// Where the child finds the disk.
const DISK: &str = "disk";

#[test]
#[ignore = "mounts file systems, as root"]
fn restore_of_known_files_until_the_power_fails() {
    let powered = RefCell::new(None);
    let crashes = run_at_every_step(
        "restore_of_known_files_until_the_power_fails",
        |folder| {
            let mut powered = powered.borrow_mut();
            let Powered { disk, prepared, .. } = powered.get_or_insert_with(Powered::prepare);
            disk.exchange(prepared);
            symlink(disk.path(), folder.join(DISK)).unwrap();
        },
        |folder, progress| {
            let scene = Scene::new(&folder.join(DISK).read_link().unwrap());
            restore(&scene, snapshots(&scene)[0], progress);
        },
        |_, crash| {
            let mut powered = powered.borrow_mut();
            let Powered { disk, trees, .. } = powered.as_mut().unwrap();
            disk.cut_power();
            assert_nothing_is_lost(&Scene::new(disk.path()), Known::ByItsFile, crash, trees);
        },
    );
    assert_looked_at(&crashes);
}
