//! Takes store just what a scan stores, and read what changed.

use vrs_engine::Error;
use vrs_engine::capture::CaptureMode;
use vrs_engine::machine::Machine;
use vrs_engine::take::{self, TakeOptions, TakePlan};
use vrs_progress::NoProgress;
use vrs_testkit::{Fault, FaultKind, SampleDisk, SampleMachine};
use vrs_virtualbox::MachineState;

use crate::common::{MIB, Scene};
use crate::registered::{virtualbox, with_virtualbox};
use crate::scene::{
    NO_NOTES, SMALL_BYTES, assert_stored_without, assert_tracked, assert_untracked, find,
    machine_at_rest, names, power_off, record, report, running_machine, settings, start, take,
    take_right, tracked, tracked_machine, vouched_bytes, with, write,
};

#[test]
fn a_machine_at_rest_is_read_where_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let scene = machine_at_rest(folder.path());
    let first = take_right(&scene, tracked());
    assert!(first.stats.read_bytes > 12 * MIB);
    assert_eq!(report(&first).notes, NO_NOTES);
    assert_tracked(&scene, "first");
    assert_stored_without(&scene, &first, false);

    start(&scene);
    write(&scene, 0, 3 * MIB + 9, 7);
    power_off(&scene);
    let plan = TakePlan::make(&scene.host, scene.store(), &find(&scene), tracked()).unwrap();
    let plan = plan.foresee(&scene.host, scene.store());
    let foreseen = plan.tracking.as_ref().unwrap();
    assert!(foreseen.leaves_virtualbox_snapshot);
    assert_eq!(vouched_bytes(foreseen), [3 * MIB, 8 * MIB]);
    let second = take_right(&scene, tracked());
    assert_tracked(&scene, "second");
    assert_stored_without(&scene, &second, true);
    assert_eq!(report(&second).notes, NO_NOTES);
    assert_eq!(report(&second).images, foreseen.images);
    assert!(second.stats.read_bytes < SMALL_BYTES, "{:?}", second.stats);
}

#[test]
fn a_running_machine_is_read_where_it_changed() {
    for mode in [CaptureMode::Memory, CaptureMode::DisksOnly] {
        let folder = tempfile::tempdir().unwrap();
        let scene = running_machine(folder.path());
        let first = take_right(&scene, with(mode));
        assert_eq!(report(&first).notes, NO_NOTES);
        assert_tracked(&scene, "first");
        for round in 0..2 {
            write(&scene, 0, round * MIB + 9, 7);
            write(&scene, 1, 2 * MIB + 9, 8);
            let next = take_right(&scene, with(mode));
            assert_tracked(&scene, "next");
            assert_stored_without(&scene, &next, true);
            assert_eq!(report(&next).notes, NO_NOTES);
            // The witness writes to three blocks in each take.
            let vouched = vouched_bytes(report(&next));
            assert!(
                vouched[0] == 2 * MIB && vouched[1] >= 4 * MIB,
                "{vouched:?}"
            );
            assert_eq!(find(&scene).state, MachineState::Running);
        }
    }
}

#[test]
fn each_machine_of_a_set_has_a_tracker_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let mut second = SampleMachine::builder(&scene.machines(), "db")
        .disk(SampleDisk::dynamic(8 * MIB))
        .build();
    second.fill(0, 0, 6 * MIB as usize, 3);
    virtualbox(folder.path()).register(&second.settings_path());
    virtualbox(folder.path()).run(["startvm", "db", "--type", "headless"]);
    let take_both = || {
        let plans = ["web", "db"].map(|name| {
            let machine = Machine::find(&scene.host, name).unwrap();
            TakePlan::make(&scene.host, scene.store(), &machine, tracked()).unwrap()
        });
        let taken = take::execute_together(&scene.host, scene.store(), &plans, &NoProgress);
        let taken = taken.unwrap().into_iter().map(Result::unwrap);
        let [first, second] = taken.collect::<Vec<_>>().try_into().unwrap();
        assert!(report(&first).leaves_virtualbox_snapshot);
        assert!(report(&second).leaves_virtualbox_snapshot);
        [first, second].map(|taken| vouched_bytes(report(&taken)))
    };
    let first = take_both();
    assert!(first.iter().all(Vec::is_empty), "{first:?}");
    write(&scene, 0, 4 * MIB, 9);
    assert_eq!(take_both(), [vec![3 * MIB, 8 * MIB], vec![6 * MIB]]);
    let driver = scene.host.virtualbox().unwrap();
    for name in ["web", "db"] {
        let machine = Machine::find(&scene.host, name).unwrap();
        assert_eq!(machine.state, MachineState::Running);
        assert_eq!(driver.virtualbox_snapshots(machine.id).unwrap().len(), 1);
    }
}

/// There is one chain of images: who takes it tells the others nothing.
#[test]
fn two_repositories_in_turns_are_scanned_and_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let here = tracked_machine(folder.path());
    let elsewhere = with_virtualbox(here.elsewhere());
    for scene in [&elsewhere, &here, &elsewhere] {
        let taken = take_right(scene, tracked());
        let notes = report(&taken).notes.join("\n");
        assert!(
            notes.contains(
                "since a snapshot in another repository: there can be one for one repository only"
            ),
            "{notes}"
        );
        assert_eq!(report(&taken).images, []);
        assert_tracked(scene, "in turns");
    }
    // One that stays with a repository is tracked there.
    let taken = take_right(&elsewhere, tracked());
    assert_eq!(report(&taken).notes, NO_NOTES);
    assert_eq!(report(&taken).images.len(), 2);
    let heads = std::fs::read_dir(here.host.state_folder.join("tracking")).unwrap();
    let is_head = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "head");
    let heads = heads.map(|file| file.unwrap().path()).filter(is_head);
    assert_eq!(heads.count(), 2);
}

#[test]
fn a_take_with_tracking_off_deletes_the_tracker() {
    for is_running in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let scene = tracked_machine(folder.path());
        if is_running {
            start(&scene);
        }
        let options = TakeOptions::default();
        let plan = TakePlan::make(&scene.host, scene.store(), &find(&scene), options).unwrap();
        let plan = plan.foresee(&scene.host, scene.store());
        let [note] = plan.tracking.as_ref().unwrap().notes.as_slice() else {
            panic!("{:?}", plan.tracking);
        };
        assert!(note.ends_with("left for tracking, is deleted"), "{note}");
        let taken = take_right(&scene, TakeOptions::default());
        assert_eq!(taken.tracking, None);
        assert_stored_without(&scene, &taken, true);
        assert_untracked(&scene, "off");
    }
}

#[test]
fn a_machine_whose_state_is_saved_is_scanned() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    start(&scene);
    virtualbox(folder.path()).run(["controlvm", "web", "savestate"]);
    let taken = take(&scene, tracked(), &NoProgress).unwrap();
    let notes = report(&taken).notes.join("\n");
    assert!(notes.contains("the machine's state is saved"), "{notes}");
    assert_eq!(names(&scene), [""; 0]);
    assert!(!record(&scene).exists());
    assert_eq!(find(&scene).state, MachineState::Saved);
    start(&scene);
    take_right(&scene, with(CaptureMode::Memory));
    assert_tracked(&scene, "again");
    let saved = take(&scene, with(CaptureMode::SaveState), &NoProgress).unwrap();
    assert_eq!(report(&saved).images, []);
    assert_untracked(&scene, "saved and started again");
}

#[test]
fn what_cannot_be_left_fails_no_take() {
    for is_running in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let scene = tracked_machine(folder.path());
        if is_running {
            start(&scene);
        }
        let id = find(&scene).id;
        let fault = Fault::once(&format!("snapshot {id} take vrs tracker"), FaultKind::Fail);
        virtualbox(folder.path()).inject(&fault.times(9));
        let taken = take(&scene, with(CaptureMode::DisksOnly), &NoProgress).unwrap();
        let notes = report(&taken).notes.join("\n");
        assert!(notes.contains("no VirtualBox snapshot is left"), "{notes}");
        assert!(!report(&taken).images.is_empty());
        assert_untracked(&scene, "not left");
        assert_eq!(find(&scene).state.is_online(), is_running);
    }
}

/// Gives the image that the guest writes to another size; nothing is written.
fn resize_active(scene: &Scene, change: impl Fn(u64) -> u64) {
    let settings = settings(scene);
    let active = settings
        .hardware
        .attachments
        .iter()
        .find_map(|disk| disk.medium);
    let mut disks = settings.all_hard_disks();
    let active = disks.find(|disk| Some(disk.id) == active).unwrap();
    let path = settings.resolve(find(scene).folder(), &active.location);
    let image = std::fs::File::options().write(true).open(path).unwrap();
    image
        .set_len(change(image.metadata().unwrap().len()))
        .unwrap();
}

#[test]
fn a_tracker_that_cannot_be_merged_for_want_of_room_is_not_touched() {
    /// More than any host has free, and less than a file may have.
    const LARGE_BYTES: u64 = 1 << 42;
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    resize_active(&scene, |length| length + LARGE_BYTES);
    let error = take(&scene, tracked(), &NoProgress).unwrap_err();
    assert!(matches!(error, Error::NoRoomToMerge { .. }), "{error}");
    assert_tracked(&scene, "at rest");
    start(&scene);
    let error = take(&scene, with(CaptureMode::DisksOnly), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("free-space"), "{error}");
    assert_tracked(&scene, "running");
    resize_active(&scene, |length| length - LARGE_BYTES);
    let taken = take_right(&scene, with(CaptureMode::DisksOnly));
    assert!(!report(&taken).images.is_empty());
}
