//! Takes that are told by the file system what did not change store just what a scan stores.
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

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{CHUNK_BYTES, MIB, Scene};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use registered::{running_machine, virtualbox};
use uuid::Uuid;
use vrs_engine::Result;
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions, Taken};
use vrs_engine::tracking::{self, SCAN_EVERY, TrackingReport};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_testkit::{FaultProgress, LoopDisk, SampleDisk, SampleMachine, StepLog, run_at_every_step};

/// What happens to a machine between two takes.
#[derive(Debug, Clone)]
enum Event {
    Write {
        disk: usize,
        at: u64,
        bytes: usize,
    },
    Zero {
        at: u64,
    },
    TakeVirtualBoxSnapshot,
    /// Merges an image into its parent.
    DeleteVirtualBoxSnapshot,
    RestoreVirtualBoxSnapshot,
    Compact,
    Grow,
    SaveState,
    /// Takes without the second disk, and with it again.
    LeaveOut,
    /// Another file with the same bytes.
    Replace,
    /// Another file with the same bytes, that shares them.
    ReplaceByClone,
    /// The file system lays the image down elsewhere.
    Rewrite,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let write = (0..2usize, 0..7 * MIB, 1..700_000usize);
    prop_oneof![
        6 => write.prop_map(|(disk, at, bytes)| Write { disk, at, bytes }),
        2 => (0..7u64).prop_map(|block| Zero { at: block * MIB }),
        2 => Just(TakeVirtualBoxSnapshot),
        2 => Just(DeleteVirtualBoxSnapshot),
        1 => Just(RestoreVirtualBoxSnapshot),
        1 => Just(Compact),
        1 => Just(Grow),
        1 => Just(SaveState),
        1 => Just(LeaveOut),
        1 => Just(Replace),
        1 => Just(ReplaceByClone),
        1 => Just(Rewrite),
    ]
}

/// A machine and what is known about it.
struct Story<'a> {
    scene: &'a Scene,
    machine: SampleMachine,
    virtualbox_snapshots: Vec<Uuid>,
    capacity_bytes: u64,
    seed: u64,
    /// Whether nothing is known by a file's times.
    touches: bool,
}

impl<'a> Story<'a> {
    fn new(scene: &'a Scene) -> Self {
        let name = format!("machine {}", Uuid::new_v4());
        let outside = scene.folder.join("outside disks");
        std::fs::create_dir_all(&outside).unwrap();
        let mut machine = SampleMachine::builder(&scene.machines(), &name)
            .disk(SampleDisk::dynamic(12 * MIB))
            .disk(SampleDisk::dynamic(8 * MIB).at(outside.join(format!("{name}.vdi"))))
            .build();
        machine.fill(0, 0, 9 * MIB as usize, 1);
        machine.fill(1, MIB, 2 * MIB as usize, 3);
        Self {
            scene,
            machine,
            virtualbox_snapshots: Vec::new(),
            capacity_bytes: 12 * MIB,
            seed: 10,
            touches: true,
        }
    }

    fn take(&self, options: TakeOptions) -> Taken {
        let options = TakeOptions {
            track: true,
            ..options
        };
        self.try_take(options, &NoProgress).unwrap()
    }

    fn try_take(&self, options: TakeOptions, progress: &dyn Progress) -> Result<Taken> {
        if self.touches {
            self.touch();
        }
        let plan = self.scene.plan_take(&self.machine, options)?;
        take::execute(&self.scene.host, self.scene.store(), &plan, progress)
    }

    fn touch(&self) {
        for image in [self.machine.chain(0), self.machine.chain(1)].concat() {
            let image = std::fs::File::options().write(true).open(image).unwrap();
            image.set_modified(std::time::SystemTime::now()).unwrap();
        }
    }

    fn record(&self) -> PathBuf {
        let name = format!("tracking/{}.record", self.machine.id());
        self.scene.host.state_folder.join(name)
    }

    fn clones(&self) -> Vec<PathBuf> {
        clones(&self.scene.folder, &self.machine)
    }

    fn happens(&mut self, event: &Event) {
        self.seed += 1;
        match *event {
            Event::Write { disk, at, bytes } => self.machine.fill(disk, at, bytes, self.seed),
            Event::Zero { at } => self.machine.write(0, at, &vec![0; MIB as usize]),
            Event::TakeVirtualBoxSnapshot => {
                let id = self.machine.take_virtualbox_snapshot("by the user");
                self.virtualbox_snapshots.push(id);
            }
            Event::DeleteVirtualBoxSnapshot => {
                if !self.virtualbox_snapshots.is_empty() {
                    let id = self.virtualbox_snapshots.remove(0);
                    self.machine.delete_virtualbox_snapshot(id);
                }
            }
            Event::RestoreVirtualBoxSnapshot => {
                if let Some(id) = self.virtualbox_snapshots.last() {
                    self.machine.restore_virtualbox_snapshot(*id);
                }
            }
            Event::Compact => self.machine.compact(0),
            Event::Grow => {
                self.capacity_bytes += 3 * MIB;
                self.machine.grow(0, self.capacity_bytes);
            }
            Event::SaveState => self.machine.save_state(b"ram"),
            Event::LeaveOut => {
                let skip_disks = vec![self.machine.attached(1).to_string()];
                self.take(TakeOptions {
                    skip_disks,
                    ..TakeOptions::default()
                });
            }
            Event::Replace => replace(&self.base(), "never"),
            Event::ReplaceByClone => replace(&self.base(), "always"),
            Event::Rewrite => {
                let bytes = std::fs::read(self.base()).unwrap();
                std::fs::write(self.base(), bytes).unwrap();
            }
        }
    }

    fn base(&self) -> PathBuf {
        self.machine.chain(0).pop().unwrap()
    }

    /// A snapshot that is taken now is what it has to be, whatever it was told.
    fn assert_taken_right(&self) -> Taken {
        let taken = self.take(TakeOptions::default());
        let files = taken.manifest.files.iter();
        for image in files.filter(|file| file.grid_bytes.is_some()) {
            self.scene.assert_as_scanned(&taken, image, &image.original);
        }
        self.assert_nothing_left(&taken);
        taken
    }

    /// There is one clone of each image, and no other.
    fn assert_nothing_left(&self, taken: &Taken) {
        let disks = taken
            .manifest
            .files
            .iter()
            .filter(|file| file.grid_bytes.is_some());
        assert_eq!(
            clones(&self.scene.folder, &self.machine).len(),
            disks.count()
        );
    }
}

/// Clones of a machine's images, anywhere.
fn clones(folder: &Path, machine: &SampleMachine) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let is_clone = folder.ends_with(".vrs-tracking");
            if path.is_dir() {
                folders.push(path);
            } else if is_clone
                && entry
                    .file_name()
                    .to_str()
                    .unwrap()
                    .starts_with(&machine.id().to_string())
            {
                found.push(path);
            }
        }
    }
    found
}

fn replace(image: &Path, reflink: &str) {
    let copy = image.with_extension("copy");
    let mut cp = std::process::Command::new("cp");
    let status = cp
        .arg(format!("--reflink={reflink}"))
        .args([image, &copy])
        .status();
    assert!(status.unwrap().success());
    std::fs::rename(copy, image).unwrap();
}

fn vouched_bytes(taken: &Taken, image: &Path) -> u64 {
    let mut images = report(taken).images.iter();
    images
        .find(|vouched| vouched.path == image)
        .unwrap()
        .vouched_bytes
}

const NONE: [PathBuf; 0] = [];

fn report(taken: &Taken) -> &TrackingReport {
    taken.tracking.as_ref().unwrap()
}

/// What happens between two takes, some times.
fn whatever_happens(kind: &str, mount: &str, cases: u32) {
    let disk = LoopDisk::mount(kind, mount);
    let scene = Scene::with_repository(disk.path());
    whatever_happens_in(&scene, cases);
}

fn whatever_happens_in(scene: &Scene, cases: u32) {
    let config = Config {
        cases,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..Config::default()
    };
    let takes = prop::collection::vec(prop::collection::vec(event(), 0..4), 1..5);
    TestRunner::new(config)
        .run(&takes, |takes| {
            let mut story = Story {
                touches: false,
                ..Story::new(scene)
            };
            story.assert_taken_right();
            for events in takes {
                events.iter().for_each(|event| story.happens(event));
                story.assert_taken_right();
            }
            story.take_away();
            Ok(())
        })
        .unwrap();
}

impl Story<'_> {
    /// Makes room for the next one; what was kept for it goes, too.
    fn take_away(self) {
        let images = self.machine.files();
        images
            .iter()
            .for_each(|file| std::fs::remove_file(file).unwrap());
        tracking::sweep(&self.scene.host).unwrap();
        assert_eq!(
            clones(&self.scene.folder, &self.machine),
            Vec::<PathBuf>::new()
        );
        let _ = std::fs::remove_dir_all(self.machine.folder());
    }
}

#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_btrfs() {
    whatever_happens("btrfs", "", 6);
}

#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_xfs() {
    whatever_happens("xfs", "", 6);
}

/// What the cache of hashes says about chunks that were not read stays true.
#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_with_a_scan_cache() {
    let disk = LoopDisk::mount("xfs", "");
    let scene = Scene::with_repository(disk.path()).with_cache();
    whatever_happens_in(&scene, 3);
}

/// Compressed extents prove nothing.
#[test]
#[ignore = "mounts file systems, as root"]
fn tracked_is_as_scanned_on_compressed_btrfs() {
    whatever_happens("btrfs", "compress-force=zstd", 2);
}

/// Compressed extents prove nothing: all is read.
#[test]
#[ignore = "mounts file systems, as root"]
fn what_is_compressed_is_read() {
    let disk = LoopDisk::mount("btrfs", "compress-force=zstd");
    let scene = Scene::with_repository(disk.path());
    let mut story = Story::new(&scene);
    // What does not compress is not stored compressed.
    story.machine.write(0, 0, &b"text".repeat(2 << 20));
    story.take(TakeOptions::default());
    let taken = story.take(TakeOptions::default());
    let vouched_bytes = vouched_bytes(&taken, &story.base());
    assert!(vouched_bytes < 5 * MIB, "{vouched_bytes}");
}

fn on_each(test: impl Fn(&Scene, Story<'_>)) {
    for kind in ["btrfs", "xfs"] {
        let disk = LoopDisk::mount(kind, "");
        let scene = Scene::with_repository(disk.path());
        test(&scene, Story::new(&scene));
    }
}

/// Settings and the like.
const SMALL_BYTES: u64 = 64 << 10;

#[test]
#[ignore = "mounts file systems, as root"]
fn what_did_not_change_is_not_read() {
    on_each(|_, mut story| {
        let first = story.assert_taken_right();
        assert!(first.stats.read_bytes > 11 * MIB);
        assert_eq!(report(&first).images, []);

        let again = story.assert_taken_right();
        assert!(again.stats.read_bytes < SMALL_BYTES, "{:?}", again.stats);
        assert_eq!(report(&again).notes, NO_NOTES);

        // In one block of two chunks; the block exists, so that neither header nor block map change.
        story.machine.fill(0, 3 * MIB, 70_000, 7);
        let plan = TakeOptions {
            track: true,
            ..TakeOptions::default()
        };
        let plan = story.scene.plan_take(&story.machine, plan).unwrap();
        let planned_bytes = plan.read_bytes();
        assert!(
            (CHUNK_BYTES..4 * CHUNK_BYTES).contains(&planned_bytes),
            "{planned_bytes}"
        );
        let changed = story.assert_taken_right();
        let read_bytes = changed.stats.read_bytes;
        assert!(read_bytes >= 70_000, "{read_bytes}");
        assert!(read_bytes <= 3 * CHUNK_BYTES + SMALL_BYTES, "{read_bytes}");

        story.happens(&Event::Replace);
        let replaced = story.assert_taken_right();
        assert!(replaced.stats.read_bytes > 9 * MIB);
        let note = &report(&replaced).notes[0];
        assert!(
            note.ends_with("is read in whole: another file has taken its place"),
            "{note}"
        );
        // Once.
        assert_eq!(report(&story.assert_taken_right()).notes, NO_NOTES);
    });
}

/// More extents than the file system tells at once.
#[test]
#[ignore = "mounts file systems, as root"]
fn an_image_in_many_pieces_is_tracked() {
    for kind in ["btrfs", "xfs"] {
        let disk = LoopDisk::mount(kind, "");
        let scene = Scene::with_repository(disk.path());
        let mut machine = SampleMachine::builder(&scene.machines(), "pieces")
            .disk(SampleDisk::fixed(48 * MIB))
            .build();
        machine.sprinkle(0, 48 * MIB, 16 << 10);
        let mut story = Story {
            machine,
            touches: false,
            ..Story::new(&scene)
        };
        story.assert_taken_right();
        story.machine.fill(0, 40 * MIB, 9000, 9);
        let taken = story.assert_taken_right();
        assert!(
            taken.stats.read_bytes < 4 * CHUNK_BYTES,
            "{:?}",
            taken.stats
        );
    }
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_snapshot_that_is_gone_means_a_scan() {
    on_each(|scene, story| {
        let first = story.assert_taken_right();
        scene.store().delete(&[first.id], &NoProgress).unwrap();
        let notes = report(&story.assert_taken_right()).notes.clone();
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].ends_with("the snapshot that holds its former bytes is gone"),
            "{notes:?}"
        );
    });
}

/// The file system moves data while it is asked where that is.
#[test]
#[ignore = "mounts file systems, as root"]
fn data_that_moves_meanwhile_is_no_lie() {
    let disk = LoopDisk::mount("btrfs", "");
    let scene = Scene::with_repository(disk.path());
    let mut story = Story::new(&scene);
    story.assert_taken_right();
    let is_done = AtomicBool::new(false);
    let moves = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                call(
                    &["btrfs", "balance", "start", "--full-balance"],
                    disk.path(),
                );
                moves.fetch_add(1, Ordering::SeqCst);
            }
        });
        let _done = SetOnDrop(&is_done);
        let mut takes = 0;
        while takes < 4 || (moves.load(Ordering::SeqCst) < 4 && !mover.is_finished()) {
            story
                .machine
                .fill(0, takes * 700_000 % (8 * MIB), 60_000, takes);
            story.assert_taken_right();
            takes += 1;
        }
    });
}

/// Or between two takes. Programs that do it have the image open for writing, so that no take begins.
#[test]
#[ignore = "mounts file systems, as root"]
fn data_that_moved_is_read() {
    let movers: [(&str, &[&str]); 2] = [
        (
            "btrfs",
            &["btrfs", "filesystem", "defragment", "-f", "-t", "1G"],
        ),
        ("xfs", &["xfs_fsr", "-v"]),
    ];
    for (kind, mover) in movers {
        let disk = LoopDisk::mount(kind, "");
        let scene = Scene::with_repository(disk.path());
        let mut story = Story::new(&scene);
        story.machine.sprinkle(0, 12 * MIB, 16 << 10);
        story.assert_taken_right();
        for seed in 0..3 {
            story.machine.fill(0, 2 * MIB, 60_000, seed);
            call(mover, &story.base());
            story.assert_taken_right();
            call(mover, &story.clones()[0]);
            story.assert_taken_right();
        }
    }
}

fn call(words: &[&str], path: &Path) {
    let mut command = std::process::Command::new(words[0]);
    let folders = std::env::var("PATH").unwrap() + ":/usr/sbin:/sbin";
    let output = command
        .args(&words[1..])
        .arg(path)
        .env("PATH", folders)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Ends a thread however the test ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A machine that runs is cloned while VirtualBox writes to another image.
#[test]
#[ignore = "mounts file systems, as root"]
fn a_running_machine_is_tracked() {
    for kind in ["btrfs", "xfs"] {
        let disk = LoopDisk::mount(kind, "");
        let scene = running_machine(disk.path());
        let fake = virtualbox(disk.path());
        let take = |mode| {
            let machine = Machine::find(&scene.host, "web").unwrap();
            let options = TakeOptions {
                track: true,
                mode: Some(mode),
                ..TakeOptions::default()
            };
            let plan = take::TakePlan::make(&scene.host, scene.store(), &machine, options);
            take::execute(&scene.host, scene.store(), &plan.unwrap(), &NoProgress).unwrap()
        };
        let id = Machine::find(&scene.host, "web").unwrap().id.uuid();
        for (number, mode) in [
            CaptureMode::Memory,
            CaptureMode::DisksOnly,
            CaptureMode::SaveState,
            CaptureMode::Memory,
        ]
        .into_iter()
        .enumerate()
        {
            let text = format!("written before take {number}");
            fake.write_as_guest(id, 0, 2 * MIB, text.as_bytes());
            let guest = fake.guest_bytes(id, 0);
            let taken = take(mode);
            let tracking = report(&taken);
            assert_eq!(tracking.notes, NO_NOTES);
            assert_eq!(tracking.images.len(), number.min(1));
            assert_eq!(fake.guest_bytes(id, 0), guest);
            // The guest's disk as the snapshot has it.
            let clone = scene
                .plan_clone("web@latest", &format!("copy {number}"))
                .unwrap();
            vrs_engine::restore::execute(&scene.host, scene.store(), &clone, &NoProgress).unwrap();
            let copy = Machine::find(&scene.host, &format!("copy {number}")).unwrap();
            assert_eq!(
                fake.guest_bytes(copy.id.uuid(), 0),
                guest,
                "{kind} {mode:?}"
            );
            let machines = scene.folder.join("machines");
            let files = common::tree(&machines);
            let clones = files
                .keys()
                .filter(|path| path.parent().unwrap().ends_with(".vrs-tracking"));
            assert_eq!(clones.count(), 1);
        }
    }
}

const NO_NOTES: [&str; 0] = [];

#[test]
#[ignore = "mounts file systems, as root"]
fn a_damaged_record_or_clone_means_a_scan() {
    on_each(|_, story| {
        story.assert_taken_right();
        for place in [0, 70, 300] {
            let mut record = std::fs::read(story.record()).unwrap();
            record[place] ^= 4;
            std::fs::write(story.record(), record).unwrap();
            let taken = story.assert_taken_right();
            assert!(taken.stats.read_bytes > 11 * MIB);
            assert_eq!(
                report(&taken).notes,
                ["all is read: what was known about it is damaged"]
            );
        }
        let mut clone = std::fs::OpenOptions::new();
        let clone = clone.write(true).open(&story.clones()[0]).unwrap();
        std::os::unix::fs::FileExt::write_at(&clone, b"x", 5 << 20).unwrap();
        let taken = story.assert_taken_right();
        let notes = &report(&taken).notes;
        assert_eq!(notes.len(), 1);
        assert!(notes[0].ends_with("the clone of it is gone or was touched"));
        std::fs::remove_file(&story.clones()[0]).unwrap();
        assert_eq!(report(&story.assert_taken_right()).notes.len(), 1);
    });
}

/// An image that is known by its times keeps its clone, which still tells of it later.
#[test]
#[ignore = "mounts file systems, as root"]
fn an_unchanged_image_keeps_its_clone() {
    on_each(|_, mut story| {
        story.touches = false;
        common::let_the_clock_move_on();
        story.assert_taken_right();
        let held = story.clones();
        let again = story.assert_taken_right();
        assert!(again.stats.read_bytes < SMALL_BYTES);
        assert_eq!(report(&again).images, []);
        assert_eq!(story.clones(), held);
        story.machine.fill(0, 3 * MIB, 9000, 8);
        let changed = story.assert_taken_right();
        assert!(changed.stats.read_bytes < 4 * CHUNK_BYTES);
        assert_eq!(report(&changed).notes, NO_NOTES);
        assert_ne!(story.clones(), held);
    });
}

/// Changes a record as somebody would who knows its checksum.
fn forge(record: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let content = std::fs::read_to_string(record).unwrap();
    let mut value = serde_json::from_str(content.split_once('\n').unwrap().1).unwrap();
    change(&mut value);
    let text = serde_json::to_string(&value).unwrap();
    let sum = blake3::hash(text.as_bytes());
    std::fs::write(record, format!("{}\n{text}", sum.to_hex())).unwrap();
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_scan_finds_out_a_record_that_lies() {
    on_each(|_, mut story| {
        let first = story.assert_taken_right();
        story.machine.fill(0, 3 * MIB, 2 * MIB as usize, 8);
        story.assert_taken_right();
        // The clone is that of the second snapshot.
        forge(&story.record(), |record| {
            record["takes_since_scan"] = (SCAN_EVERY - 1).into();
            let mut images = record["images"].as_array_mut().unwrap().iter_mut();
            let base = story.base();
            let image = images.find(|image| image["path"].as_str() == base.to_str());
            image.unwrap()["snapshot"] = first.id.to_string().into();
        });
        let log = StepLog::default();
        let options = TakeOptions {
            track: true,
            ..TakeOptions::default()
        };
        let taken = story.try_take(options, &log).unwrap();
        assert!(report(&taken).is_scan);
        // The header changes with each write.
        let wrong_bytes = report(&taken).wrong_bytes;
        assert_eq!(wrong_bytes, 2 * MIB + CHUNK_BYTES);
        assert_eq!(log.warnings().len(), 1);
        assert!(log.warnings()[0].starts_with("tracking was wrong about 2621440 bytes of machine"));
        assert!(!story.record().exists());
        assert_eq!(story.clones(), NONE);
        story.assert_taken_right();
    });
}

#[test]
#[ignore = "mounts file systems, as root"]
fn every_so_many_takes_all_is_read() {
    on_each(|_, mut story| {
        story.assert_taken_right();
        forge(&story.record(), |record| {
            record["takes_since_scan"] = (SCAN_EVERY - 2).into();
        });
        story.machine.fill(0, 3 * MIB, 9000, 8);
        assert!(!report(&story.assert_taken_right()).is_scan);
        story.machine.fill(0, 4 * MIB, 9000, 9);
        let scan = story.assert_taken_right();
        assert!(report(&scan).is_scan);
        assert!(vouched_bytes(&scan, &story.base()) > 8 * MIB);
        assert_eq!(report(&scan).wrong_bytes, 0);
        assert!(scan.stats.read_bytes > 11 * MIB);
        let after = story.assert_taken_right();
        assert!(!report(&after).is_scan);
        assert!(after.stats.read_bytes < SMALL_BYTES);
    });
}

#[test]
#[ignore = "mounts file systems, as root"]
fn what_is_kept_goes() {
    on_each(|scene, story| {
        story.take(TakeOptions::default());
        let held = story.clones();
        assert_eq!(held.len(), 2);
        for clone in &held {
            let mode = std::fs::metadata(clone).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        // With a failed take, but for what the last one left.
        let options = TakeOptions {
            track: true,
            ..TakeOptions::default()
        };
        let failed = story.try_take(options.clone(), &FaultProgress::interrupt_at(3));
        assert!(failed.is_err());
        assert_eq!(story.clones(), held);
        // What nobody knows of any more.
        let stray = held[0].with_file_name(format!("{}-stray", story.machine.id()));
        std::fs::write(&stray, b"old").unwrap();
        let of_another = held[0].with_file_name(format!("{}-a", Uuid::new_v4()));
        std::fs::write(&of_another, b"other").unwrap();
        story.take(TakeOptions::default());
        assert!(!stray.exists() && of_another.exists());
        std::fs::remove_file(of_another).unwrap();
        // With a take that does not track.
        story.try_take(TakeOptions::default(), &NoProgress).unwrap();
        assert_eq!(story.clones(), NONE);
        assert!(!story.record().exists());
        // With a restore.
        story.take(TakeOptions::default());
        scene.restore(&format!("{}@latest", story.machine.name()));
        assert_eq!(story.clones(), NONE);
        assert!(!story.record().exists());
        story.assert_taken_right();
        story.take_away();
    });
}

#[test]
#[ignore = "mounts file systems, as root"]
fn without_reflinks_or_room_all_is_read_as_ever() {
    let disk = LoopDisk::mount("ext4", "");
    let scene = Scene::with_repository(disk.path());
    let story = Story::new(&scene);
    for _ in 0..2 {
        let taken = story.take(TakeOptions::default());
        assert!(taken.stats.read_bytes > 11 * MIB);
        let notes = &report(&taken).notes;
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].starts_with("tracking does nothing for '"),
            "{notes:?}"
        );
        assert!(!story.record().exists());
        assert_eq!(story.clones(), NONE);
    }

    let disk = LoopDisk::mount("xfs", "");
    let scene = Scene::with_repository(disk.path());
    let story = Story::new(&scene);
    story.take(TakeOptions::default());
    let ballast = std::fs::File::create(disk.path().join("ballast")).unwrap();
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    let length = free.f_bavail * free.f_frsize - 8 * MIB;
    rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
    let taken = story.take(TakeOptions::default());
    let note = &report(&taken).notes[0];
    assert!(note.contains("its volume has no room for the "), "{note}");
    assert_eq!(story.clones().len(), 1);
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_crash_leaves_no_clone_behind() {
    let disk = std::cell::OnceCell::new();
    // A crashed process works where its parent prepared it.
    let place =
        |folder: &Path| PathBuf::from(std::fs::read_to_string(folder.join("place")).unwrap());
    let machine_of = |place: &Path| std::fs::read_to_string(place.join("machine")).unwrap();
    let take_in = |place: &Path, progress: &dyn Progress| {
        let scene = Scene::new(place);
        let machine = Machine::find(&scene.host, &machine_of(place)).unwrap();
        let options = TakeOptions {
            track: true,
            ..TakeOptions::default()
        };
        let plan = take::TakePlan::make(&scene.host, scene.store(), &machine, options).unwrap();
        let taken = take::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        (scene, taken)
    };
    let crashes = run_at_every_step(
        "a_crash_leaves_no_clone_behind",
        |folder| {
            let disk = disk.get_or_init(|| LoopDisk::mount("xfs", ""));
            let place = disk.path().join(Uuid::new_v4().to_string());
            std::fs::create_dir(&place).unwrap();
            std::fs::write(folder.join("place"), place.to_str().unwrap()).unwrap();
            let scene = Scene::with_repository(&place);
            let mut story = Story::new(&scene);
            let settings = story.machine.settings_path();
            std::fs::write(place.join("machine"), settings.to_str().unwrap()).unwrap();
            story.take(TakeOptions::default());
            story.machine.fill(0, 2 * MIB, 9000, 8);
        },
        |folder, progress| {
            take_in(&place(folder), progress);
        },
        |folder, crash| {
            let place = place(folder);
            let (scene, taken) = take_in(&place, &NoProgress);
            let of_disks = |path: &PathBuf| path.parent().unwrap().ends_with(".vrs-tracking");
            let files = common::tree(&scene.folder);
            let clones = files.keys().filter(|path| of_disks(path)).count();
            assert_eq!(clones, 2, "{crash:?}");
            let read_bytes = taken.stats.read_bytes;
            assert!(read_bytes < 4 * CHUNK_BYTES, "{crash:?}: {read_bytes}");
            let path = &taken
                .manifest
                .files
                .iter()
                .find(|file| file.grid_bytes.is_some())
                .unwrap();
            let mut stored = vec![0; usize::try_from(path.stamp.size).unwrap()];
            let stored_path = TreePath::new(&path.path).unwrap();
            let mut reader = scene.store().open_file(&taken.id, &stored_path).unwrap();
            reader.read_at(0, &mut stored).unwrap();
            assert!(
                stored == std::fs::read(&path.original).unwrap(),
                "{crash:?}"
            );
            std::fs::remove_dir_all(place).unwrap();
        },
    );
    assert!(crashes.iter().any(|crash| crash.step == "clone-remove"));
}
