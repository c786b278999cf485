//! The clones that are kept beside the images, and when they go.

use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{SnapshotStore, TreePath};
use vrs_testkit::{FaultProgress, LoopDisk, run_at_every_step};

use crate::common::{self, CHUNK_BYTES, MIB, Scene};
use crate::story::{NO_NOTES, NONE, SMALL_BYTES, Story, on_each, report, tracked};

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
        let failed = story.try_take(tracked(), &FaultProgress::interrupt_at(3));
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
fn a_crash_leaves_no_clone_behind() {
    let disk = std::cell::OnceCell::new();
    // A crashed process works where its parent prepared it.
    let place =
        |folder: &Path| PathBuf::from(std::fs::read_to_string(folder.join("place")).unwrap());
    let machine_of = |place: &Path| std::fs::read_to_string(place.join("machine")).unwrap();
    let take_in = |place: &Path, progress: &dyn Progress| {
        let scene = Scene::new(place);
        let machine = Machine::find(&scene.host, &machine_of(place)).unwrap();
        let plan = take::TakePlan::make(&scene.host, scene.store(), &machine, tracked()).unwrap();
        let taken = take::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        (scene, taken)
    };
    let crashes = run_at_every_step(
        "clones::a_crash_leaves_no_clone_behind",
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
