//! Take, change, take, restore and clone, on a host without VirtualBox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use common::{MIB, Scene, Tree, assert_same, contents, let_the_clock_move_on, tree};
use vrs_engine::catalog;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan};
use vrs_engine::take::TakeOptions;
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_vdisk::{Chain, GuestDisk, VdiHeader};
use vrs_virtualbox::MachineSettings;

#[test]
fn a_machine_comes_back_exactly_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    let snapshot_in_virtualbox = machine.take_virtualbox_snapshot("s1");
    machine.fill(0, 2 * MIB, 70_000, 4);
    machine.save_state(b"ram ram ram");
    let before = present_files(&scene);
    scene.take(&machine);

    machine.discard_state();
    machine.fill(0, MIB, 300_000, 5);
    machine.grow(1, 16 * MIB);
    machine.take_virtualbox_snapshot("s2");
    machine.restore_virtualbox_snapshot(snapshot_in_virtualbox);
    machine.set_mac_address("080027ABCDEF");
    scene.take(&machine);
    let after = present_files(&scene);

    scene.restore("web@1");
    assert_same(&present_files(&scene), &before, "the first snapshot");
    scene.restore("web@latest");
    assert_same(&present_files(&scene), &after, "the second snapshot");
    assert!(scene.host.journals().unfinished().unwrap().is_empty());
}

/// Everything that any machine of the scene has, and what should not be there.
fn present_files(scene: &Scene) -> Tree {
    let mut files = tree(&scene.folder.join("machines"));
    files.extend(tree(&scene.folder.join("outside disks")));
    files
}

#[test]
fn a_deleted_machine_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    let before = contents(&machine);
    scene.take(&machine);
    std::fs::remove_dir_all(machine.folder()).unwrap();
    std::fs::remove_dir_all(scene.folder.join("outside disks")).unwrap();
    std::fs::create_dir(scene.folder.join("outside disks")).unwrap();
    scene.restore("web@latest");
    for (path, bytes) in before {
        assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
}

#[test]
fn an_unchanged_machine_reads_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    let_the_clock_move_on();
    scene.take(&machine);
    let second = scene.take(&machine);
    let settings_bytes = std::fs::metadata(machine.settings_path()).unwrap().len();
    assert!(
        second.stats.read_bytes <= settings_bytes,
        "{:?}",
        second.stats
    );
    assert_eq!(
        second.stats.new_chunks, 1,
        "the manifest differs in its time"
    );

    let plan = scene
        .plan_take(
            &machine,
            TakeOptions {
                force_read: true,
                ..TakeOptions::default()
            },
        )
        .unwrap();
    assert!(plan.files.iter().all(|file| !file.is_unchanged()));
}

#[test]
fn a_file_changed_in_the_tick_of_its_capture_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    let disk = &machine.chain(0)[0];
    // However slow the test is, this file's clock has not moved on when it is read.
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
    let file = std::fs::File::options().write(true).open(disk).unwrap();
    file.set_modified(soon).unwrap();
    let first = scene.take(&machine);
    let record = first
        .manifest
        .files
        .iter()
        .find(|file| file.original == *disk)
        .unwrap();
    assert!(!record.settled);
    let plan = scene.plan_take(&machine, TakeOptions::default()).unwrap();
    let plan = plan
        .files
        .iter()
        .find(|file| file.source.local == *disk)
        .unwrap();
    assert!(!plan.is_unchanged());
}

#[test]
fn a_small_change_sends_and_fetches_little() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    scene.take(&machine);
    machine.fill(0, 3 * MIB + 1000, 5000, 9);
    let second = scene.take(&machine);
    // One or two chunks of the disk, the manifest, and at most the settings.
    assert!(second.stats.new_chunks <= 5, "{:?}", second.stats);
    let restored = scene.restore("web@1");
    assert!(
        restored.stats.fetched_bytes <= 2 * (512 << 10) + 20_000,
        "{:?}",
        restored.stats
    );
    assert!(
        restored.stats.in_place_bytes > 9 * MIB,
        "{:?}",
        restored.stats
    );
}

#[test]
fn a_clone_shares_no_identity() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    machine.take_virtualbox_snapshot("s1");
    machine.fill(0, 4 * MIB, 10_000, 7);
    scene.take(&machine);
    let original_files = contents(&machine);
    let guest = machine.guest_bytes(0);

    let plan = scene.plan_clone("web@latest", "web 2").unwrap();
    let clone = restore::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap();
    assert_eq!(
        contents(&machine),
        original_files,
        "the first machine is untouched"
    );

    let settings = MachineSettings::read(&clone.intent.settings_file).unwrap();
    let original = MachineSettings::read(&machine.settings_path()).unwrap();
    assert_eq!(settings.name, "web 2");
    let ids = |settings: &MachineSettings| {
        let media = settings.all_hard_disks().map(|disk| disk.id.uuid());
        let snapshots = settings
            .virtualbox_snapshots()
            .map(|snapshot| snapshot.id.uuid());
        media
            .chain(snapshots)
            .chain([settings.id.uuid()])
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&settings).len(), ids(&original).len());
    assert!(ids(&settings).is_disjoint(&ids(&original)));
    for disk in settings.all_hard_disks() {
        let header =
            VdiHeader::read(&settings.resolve(&clone.intent.folder, &disk.location)).unwrap();
        assert_eq!(header.uuids.creation, disk.id.uuid());
    }
    let attached = settings.hardware.attachments[0].medium.unwrap();
    let leaf = settings
        .all_hard_disks()
        .find(|disk| disk.id == attached)
        .unwrap();
    let leaf = settings.resolve(&clone.intent.folder, &leaf.location);
    let disk = GuestDisk::open(&Chain::resolve(&leaf, &[]).unwrap()).unwrap();
    let mut bytes = vec![0; guest.len()];
    disk.read_at(0, &mut bytes).unwrap();
    assert!(bytes == guest, "the clone's guest disk differs");
    let mac = |settings: &MachineSettings| {
        settings
            .hardware
            .network_adapters
            .iter()
            .map(|adapter| adapter.mac_address.clone())
            .collect::<Vec<_>>()
    };
    assert_ne!(mac(&settings), mac(&original));
}

#[test]
fn other_files_are_never_overwritten_or_removed() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    scene.take(&machine);
    std::fs::write(machine.folder().join("notes.txt"), b"mine").unwrap();
    scene.restore("web@latest");
    assert_eq!(
        std::fs::read(machine.folder().join("notes.txt")).unwrap(),
        b"mine"
    );

    std::fs::remove_file(machine.settings_path()).unwrap();
    let nvram = machine.folder().join("web.nvram");
    std::fs::write(&nvram, b"of somebody else").unwrap();
    let error = scene.plan_restore("web@latest").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is in the way and does not belong to machine 'web'"),
        "{error}"
    );
    assert_eq!(std::fs::read(&nvram).unwrap(), b"of somebody else");
}

#[test]
fn the_previous_settings_may_be_all_that_is_left_of_a_machine() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    machine.set_mac_address("080027000042");
    let before = tree(machine.folder());
    let previous = machine.settings_path().with_extension("vbox-prev");
    assert!(before.contains_key(&previous));
    scene.take(&machine);
    for file in before.keys().filter(|file| **file != previous) {
        std::fs::remove_file(file).unwrap();
    }
    scene.restore("web@latest");
    assert_same(&tree(machine.folder()), &before, "restored");

    std::fs::remove_file(machine.settings_path()).unwrap();
    let own = std::fs::read_to_string(&previous).unwrap();
    let of_another = own.replace(&machine.id().to_string(), &uuid::Uuid::nil().to_string());
    std::fs::write(&previous, of_another).unwrap();
    let error = scene.plan_restore("web@latest").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "'{}' is in the way and does not belong to machine 'web'; move it away, or use `vrs clone` with another --dir",
            previous.display()
        )
    );
}

#[test]
fn odd_names_survive() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    for name in ["-rf", "two\nlines", "quo\"te's", "ünï ☃", "a,b%c", " "] {
        let mut machine = scene.machine(name);
        let before = contents(&machine);
        scene.take(&machine);
        machine.fill(0, MIB, 100, 8);
        scene.restore(&format!("{}@latest", machine.id()));
        assert!(contents(&machine) == before, "{name:?}");
        std::fs::remove_dir_all(scene.folder.join("outside disks")).unwrap();
    }
}

#[test]
fn names_of_snapshots_are_unique_per_machine() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let machine = scene.machine("web");
    let named = || TakeOptions {
        name: Some("clean".to_owned()),
        ..TakeOptions::default()
    };
    let plan = scene.plan_take(&machine, named()).unwrap();
    vrs_engine::take::execute(&scene.host, scene.store(), &plan, &NoProgress).unwrap();
    assert_eq!(scene.select("web@clean").name.as_deref(), Some("clean"));
    let error = scene.plan_take(&machine, named()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'clean' cannot be the name of a snapshot: a snapshot of this machine has it already"
    );
}

#[test]
fn what_is_as_the_last_snapshot_left_it_is_not_read_by_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_repository(folder.path());
    let mut machine = scene.machine("web");
    let first = scene.take(&machine);
    let wanted = contents(&machine);
    machine.fill(0, 20 * MIB, 4096, 9);
    let_the_clock_move_on();
    let last = scene.take(&machine);
    let snapshots = catalog::snapshots(scene.store()).unwrap().snapshots;
    let plan = |last_taken| {
        let options = RestoreOptions {
            last_taken,
            ..RestoreOptions::default()
        };
        let snapshot = scene.select(&first.id.to_string());
        RestorePlan::make(&scene.host, scene.store(), &snapshot, &options, &NoProgress).unwrap()
    };
    let here = restore::last_taken_here(&scene.host, &snapshots, scene.find(&machine).id);
    assert_eq!(here, Some(last.id));
    let scanned = |plan: &RestorePlan| {
        let read = Scanned::default();
        plan.estimate(scene.store(), &read).unwrap();
        read.0.into_inner()
    };
    assert_eq!(scanned(&plan(here)), 0);
    assert!(scanned(&plan(None)) > 8 * MIB);
    // One byte more behind the snapshot's back, and the file is read.
    let disk = &machine.chain(0)[0];
    let mut content = std::fs::read(disk).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(disk, content).unwrap();
    assert!(scanned(&plan(here)) > 4 * MIB);
    restore::execute(&scene.host, scene.store(), &plan(here), &NoProgress).unwrap();
    assert_same(&contents(&machine), &wanted, "the first snapshot");
}

#[derive(Default)]
struct Scanned(std::sync::atomic::AtomicU64);

impl Progress for Scanned {
    fn phase(&self, _: Phase) {}

    fn add(&self, counter: Counter, bytes: u64) {
        if counter == Counter::Scanned {
            self.0
                .fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn warn(&self, _: &str) {}
}
