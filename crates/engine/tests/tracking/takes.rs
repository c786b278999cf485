//! What changed is read, and not more.

use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions};
use vrs_progress::NoProgress;
use vrs_repository::store::SnapshotStore;
use vrs_testkit::{LoopDisk, SampleDisk, SampleMachine};

use crate::common::{self, CHUNK_BYTES, MIB, Scene};
use crate::registered::{running_machine, virtualbox};
use crate::story::{Event, NO_NOTES, SMALL_BYTES, Story, on_each, report, vouched_bytes};

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
        let plan = plan.foresee(&story.scene.host, story.scene.store());
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
