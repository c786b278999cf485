//! What is kept goes in the end.

use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_testkit::{FaultProgress, LoopDisk, run_at_every_step};

use crate::common::{self, CHUNK_BYTES, MIB, Scene};
use crate::story::{Event, NONE, Story, on_each, report};

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
    let elsewhere = scene.elsewhere();
    let mut story = Story {
        elsewhere: Some(&elsewhere),
        ..Story::new(&scene)
    };
    story.take(TakeOptions::default());
    story.happens(&Event::ChangeRepository);
    story.take(TakeOptions::default());
    assert_eq!(story.clones().len(), 4);
    let ballast = std::fs::File::create(disk.path().join("ballast")).unwrap();
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    let length = free.f_bavail * free.f_frsize - 8 * MIB;
    rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
    let taken = story.take(TakeOptions::default());
    let note = &report(&taken).notes[0];
    assert!(note.contains("its volume has no room for the "), "{note}");
    // Of the smaller image only: no repository keeps what could stop the guest.
    assert_eq!(story.clones().len(), 2);
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_crash_leaves_no_clone_behind() {
    let disk = std::cell::OnceCell::new();
    // A crashed process works where its parent prepared it.
    let place =
        |folder: &Path| PathBuf::from(std::fs::read_to_string(folder.join("place")).unwrap());
    let machine_of = |place: &Path| std::fs::read_to_string(place.join("machine")).unwrap();
    let take_in = |scene: Scene, progress: &dyn Progress| {
        let place = &scene.folder;
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
        "ends::a_crash_leaves_no_clone_behind",
        |folder| {
            let disk = disk.get_or_init(|| LoopDisk::mount("xfs", ""));
            let place = disk.path().join(Uuid::new_v4().to_string());
            std::fs::create_dir(&place).unwrap();
            std::fs::write(folder.join("place"), place.to_str().unwrap()).unwrap();
            let scene = Scene::with_repository(&place);
            let mut story = Story::new(&scene);
            let settings = story.machine.settings_path();
            std::fs::write(place.join("machine"), settings.to_str().unwrap()).unwrap();
            let elsewhere = scene.elsewhere();
            story.elsewhere = Some(&elsewhere);
            story.take(TakeOptions::default());
            story.happens(&Event::ChangeRepository);
            story.take(TakeOptions::default());
            story.machine.fill(0, 2 * MIB, 9000, 8);
        },
        |folder, progress| {
            take_in(Scene::new(&place(folder)), progress);
        },
        |folder, crash| {
            let place = place(folder);
            let (scene, taken) = take_in(Scene::new(&place), &NoProgress);
            let of_disks = |path: &PathBuf| path.parent().unwrap().ends_with(".vrs-tracking");
            let files = common::tree(&scene.folder);
            let clones = files.keys().filter(|path| of_disks(path)).count();
            assert_eq!(clones, 4, "{crash:?}");
            let (_, elsewhere) = take_in(scene.elsewhere(), &NoProgress);
            for taken in [&taken, &elsewhere] {
                let read_bytes = taken.stats.read_bytes;
                assert!(read_bytes < 4 * CHUNK_BYTES, "{crash:?}: {read_bytes}");
            }
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
