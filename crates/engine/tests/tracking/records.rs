//! What is known, and when it does not count.

use vrs_engine::take::TakeOptions;
use vrs_engine::tracking::SCAN_EVERY;
use vrs_testkit::StepLog;

use crate::common::{self, CHUNK_BYTES, MIB};
use crate::story::{NO_NOTES, NONE, SMALL_BYTES, forge, on_each, report, vouched_bytes};

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
