//! What others do to the tracker, to the images and to what is known of them.

use std::path::Path;

use vrs_engine::take::{TakeOptions, Taken};
use vrs_engine::tracking::SCAN_EVERY;
use vrs_progress::NoProgress;
use vrs_testkit::{StepLog, write_unnoticed};

use crate::common::{MIB, Scene};
use crate::registered::virtualbox;
use crate::scene::{
    assert_tracked, assert_untracked, bases, delete_virtualbox_snapshot, find, guest, names,
    power_off, record, report, restore_virtualbox_snapshot, start, take, take_right,
    take_virtualbox_snapshot, tracked, tracked_machine, write,
};

#[test]
fn virtualbox_snapshots_of_the_users_are_let_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    take_virtualbox_snapshot(&scene, "mine");
    start(&scene);
    write(&scene, 0, 4 * MIB, 7);
    let taken = take_right(&scene, tracked());
    let notes = report(&taken).notes.join("\n");
    assert!(
        notes.contains("there are other VirtualBox snapshots"),
        "{notes}"
    );
    assert!(
        notes.contains("has VirtualBox snapshots of its owner's"),
        "{notes}"
    );
    assert_eq!(names(&scene), ["mine"]);
    assert!(!record(&scene).exists());
    // With it gone all begins anew.
    delete_virtualbox_snapshot(&scene, "mine");
    take_right(&scene, tracked());
    assert_tracked(&scene, "anew");
    // Deleted by the user, the tracker tells nothing.
    delete_virtualbox_snapshot(&scene, &names(&scene)[0]);
    let taken = take_right(&scene, tracked());
    let notes = report(&taken).notes.join("\n");
    assert!(notes.contains("is gone or is another"), "{notes}");
    assert_eq!(report(&taken).images, []);
    assert_tracked(&scene, "left again");
}

/// The user goes back to what was taken, which is a VirtualBox snapshot like every other.
#[test]
fn a_tracker_that_was_restored_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let written = guest(&scene, 0);
    restore_virtualbox_snapshot(&scene, &names(&scene)[0]);
    assert!(guest(&scene, 0) != written);
    let taken = take_right(&scene, tracked());
    let notes = report(&taken).notes.join("\n");
    let why = "the guest writes to another image than was left to it";
    assert!(notes.contains(why), "{notes}");
    assert_eq!(report(&taken).images, []);
    assert_tracked(&scene, "restored");
}

/// The user has two branches from it.
#[test]
fn a_tracker_on_which_several_states_are_based_stays() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let tracker = names(&scene).remove(0);
    take_virtualbox_snapshot(&scene, "mine");
    restore_virtualbox_snapshot(&scene, &tracker);
    start(&scene);
    write(&scene, 0, 4 * MIB, 20);
    write(&scene, 1, 5 * MIB, 20);
    let taken = assert_stays(&scene, &tracker, &[&tracker, "mine"], tracked());
    let notes = report(&taken).notes.join("\n");
    for why in [
        "several states are based on the VirtualBox snapshot that was left",
        "has VirtualBox snapshots of its owner's",
    ] {
        assert!(notes.contains(why), "{notes}");
    }
    power_off(&scene);
    take_virtualbox_snapshot(&scene, "other");
    for options in [tracked(), TakeOptions::default()] {
        assert_stays(&scene, &tracker, &[&tracker, "mine", "other"], options);
    }
    // The branch that is left keeps its bytes.
    let wanted = guest(&scene, 0);
    delete_virtualbox_snapshot(&scene, "mine");
    take_right(&scene, tracked());
    assert_eq!(names(&scene), ["other"]);
    assert!(guest(&scene, 0) == wanted);
    delete_virtualbox_snapshot(&scene, "other");
    take_right(&scene, tracked());
    assert_tracked(&scene, "anew");
}

/// A take reads all, says why, and changes nothing.
#[track_caller]
fn assert_stays(scene: &Scene, tracker: &str, made: &[&str], options: TakeOptions) -> Taken {
    // The witness writes to the other disk.
    let before = guest(scene, 1);
    let taken = take_right(scene, options);
    assert_eq!(names(scene), made);
    assert!(before == guest(scene, 1));
    assert!(!record(scene).exists());
    if let Some(report) = &taken.tracking {
        let note = format!(
            "the VirtualBox snapshot '{tracker}', which vrs left, stays: 2 states are based on it"
        );
        assert!(report.notes.contains(&note), "{:?}", report.notes);
        assert_eq!(report.images, []);
    }
    taken
}

/// Changes the settings of a machine that nobody runs.
fn edit_settings(scene: &Scene, edit: impl FnOnce(String) -> String) {
    let fake = virtualbox(&scene.folder);
    let file = find(scene).settings_file;
    fake.run(["unregistervm", "web"]);
    let text = edit(std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, text).unwrap();
    fake.register(&file);
}

#[test]
fn a_tracker_is_known_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let name = names(&scene).remove(0);
    edit_settings(&scene, |text| text.replace(&name, "kept by me"));
    let taken = take(&scene, tracked(), &NoProgress).unwrap();
    let notes = report(&taken).notes.join("\n");
    assert!(notes.contains("is gone or is another"), "{notes}");
    assert_eq!(names(&scene), ["kept by me"]);
    // Nor is one taken for it that only has such a name.
    edit_settings(&scene, |text| {
        let text = text.replace("kept by me", &name);
        let from = text.find("<Description>left by vrs").unwrap();
        let to = text[from..].find("</Description>").unwrap() + from;
        format!("{}<Description>mine{}", &text[..from], &text[to..])
    });
    take(&scene, tracked(), &NoProgress).unwrap();
    assert_eq!(names(&scene), [name]);
}

#[test]
fn a_tracker_of_which_nothing_is_known_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    std::fs::write(record(&scene), "damaged").unwrap();
    let old = names(&scene);
    let taken = take_right(&scene, tracked());
    let notes = report(&taken).notes.join("\n");
    assert!(notes.contains("is damaged"), "{notes}");
    assert_eq!(report(&taken).images, []);
    assert_tracked(&scene, "another");
    assert_ne!(names(&scene), old);
}

#[test]
fn a_base_image_that_somebody_wrote_to_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let base = bases(&scene).remove(0);
    let image = std::fs::File::options().write(true).open(&base).unwrap();
    let before = image.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, b"by somebody", second_block(&base)).unwrap();
    image.set_modified(before).unwrap();
    let taken = take_right(&scene, tracked());
    let notes = report(&taken).notes.join("\n");
    assert!(notes.contains("was changed"), "{notes}");
    assert_eq!(report(&taken).images, []);
    assert_tracked(&scene, "changed");
}

/// In the second block of the disk.
fn second_block(base: &Path) -> u64 {
    let header = vrs_vdisk::VdiHeader::read(base).unwrap();
    header.data_offset_bytes + MIB + 5
}

#[test]
fn a_change_that_no_list_has_is_found_by_a_scan() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    let base = bases(&scene).remove(0);
    write_unnoticed(&record(&scene), &base, second_block(&base), b"nobody knows");
    for _ in 1..SCAN_EVERY {
        let taken = take(&scene, tracked(), &NoProgress).unwrap();
        assert!(!report(&taken).is_scan && !report(&taken).images.is_empty());
    }
    let log = StepLog::default();
    let scanned = take(&scene, tracked(), &log).unwrap();
    assert!(report(&scanned).is_scan);
    assert_eq!(report(&scanned).wrong_bytes, 512 << 10);
    assert!(
        log.warnings()[0].contains("tracking was wrong"),
        "{:?}",
        log.warnings()
    );
    assert_untracked(&scene, "found");
    take_right(&scene, tracked());
    assert_tracked(&scene, "anew");
}
