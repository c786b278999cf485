//! One machine that is taken into two repositories in turns: each keeps its own knowledge.

use vrs_engine::take::{TakeOptions, Taken};
use vrs_engine::tracking;
use vrs_progress::NoProgress;
use vrs_repository::store::SnapshotStore;

use crate::common::{CHUNK_BYTES, MIB, Scene};
use crate::story::{Event, NO_NOTES, NONE, Story, forge, known_clones, on_each, report};

/// Two rounds of takes into both.
fn in_turns(test: impl Fn(&Scene, Story<'_>)) {
    on_each(|scene, story| {
        let elsewhere = scene.elsewhere();
        let mut story = Story {
            elsewhere: Some(&elsewhere),
            ..story
        };
        for _ in 0..2 {
            story.assert_taken_right();
            story.happens(&Event::ChangeRepository);
        }
        assert_eq!(story.clones().len(), 4);
        test(scene, story);
    });
}

/// What was written since the last take into the same repository is read, and not more.
#[track_caller]
fn assert_read(taken: &Taken, written_bytes: u64) {
    assert_eq!(report(taken).notes, NO_NOTES);
    let read_bytes = taken.stats.read_bytes;
    let wanted = written_bytes..written_bytes + 3 * CHUNK_BYTES;
    assert!(wanted.contains(&read_bytes), "{read_bytes} {wanted:?}");
}

#[test]
#[ignore = "mounts file systems, as root"]
fn each_repository_knows_what_changed_since_its_own_snapshot() {
    in_turns(|_, mut story| {
        for round in 0..3 {
            story.machine.fill(0, 3 * MIB, MIB as usize, 20 + round);
            let first = story.assert_taken_right();
            // Of what came before, the other repository has the first MiB as well.
            assert_read(&first, if round == 0 { MIB } else { 2 * MIB });
            story.happens(&Event::ChangeRepository);
            story.machine.fill(0, 6 * MIB, MIB as usize, 30 + round);
            assert_read(&story.assert_taken_right(), 2 * MIB);
            assert_read(&story.assert_taken_right(), 0);
            story.happens(&Event::ChangeRepository);
        }
        assert_eq!(story.clones().len(), 4);
    });
}

#[test]
#[ignore = "mounts file systems, as root"]
fn what_is_kept_for_both_goes() {
    in_turns(|scene, mut story| {
        // With a take that does not track.
        story.try_take(TakeOptions::default(), &NoProgress).unwrap();
        assert_eq!(story.clones(), NONE);
        assert!(!story.record().exists());
        // With a restore from one of them.
        for _ in 0..2 {
            story.assert_taken_right();
            story.happens(&Event::ChangeRepository);
        }
        scene.restore(&format!("{}@latest", story.machine.name()));
        assert_eq!(story.clones(), NONE);
        // With an image that is another file now, at the other's next take.
        for _ in 0..2 {
            story.assert_taken_right();
            story.happens(&Event::ChangeRepository);
        }
        story.happens(&Event::Replace);
        story.assert_taken_right();
        assert_eq!(story.clones().len(), 3);
        story.take_away();
    });
}

#[test]
#[ignore = "mounts file systems, as root"]
fn what_is_kept_for_a_repository_that_is_not_used_goes() {
    in_turns(|scene, mut story| {
        let here = scene.store().id();
        let kept = known_clones(&story.record(), Some(here));
        let age = |days: i64| {
            let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
            forge(&story.record(), |known| {
                assert_eq!(known["repository"], here.to_string());
                known["taken"] = then.to_string().into();
            });
            tracking::sweep(&scene.host).unwrap();
        };
        age(59);
        assert_eq!(known_clones(&story.record(), Some(here)), kept);
        age(61);
        assert_eq!(known_clones(&story.record(), Some(here)), NONE);
        assert_eq!(story.clones().len(), 2);
        let again = story.assert_taken_right();
        assert_eq!(report(&again).images, []);
        story.happens(&Event::ChangeRepository);
        assert_read(&story.assert_taken_right(), 0);
    });
}
