//! How much is read.

use vrs_engine::take::TakeOptions;
use vrs_testkit::{LoopDisk, SampleDisk, SampleMachine};

use crate::common::{CHUNK_BYTES, MIB, Scene};
use crate::event::Event;
use crate::story::{NO_NOTES, NONE, SMALL_BYTES, Story, on_each, report, tracked, vouched_bytes};

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
        let plan = story.scene.plan_take(&story.machine, tracked()).unwrap();
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
