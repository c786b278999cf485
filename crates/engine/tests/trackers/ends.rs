//! Takes that end somewhere.

use std::cell::RefCell;
use std::path::Path;

use rstest::rstest;
use vrs_engine::capture::CaptureMode;
use vrs_engine::recover::Recovered;
use vrs_engine::take::TakeOptions;
use vrs_engine::{ErrorKind, recover, restore};
use vrs_progress::NoProgress;
use vrs_testkit::{Fault, FaultKind, FaultProgress, StepLog, run_at_every_step};
use vrs_virtualbox::MachineState;

use crate::common::{MIB, Scene};
use crate::registered::{Known, recover_all, virtualbox};
use crate::scene::{
    NO_NOTES, assert_tracked, assert_untracked, find, guest, machine_at_rest, names, power_off,
    report, running_machine, start, take, take_right, tracked, tracked_machine, with, write,
};

/// A take that is ended at every step, of a machine with a tracker and of one without.
fn crash_take(test: &str, is_running: bool, mode: Option<CaptureMode>) {
    let options = || TakeOptions { mode, ..tracked() };
    run_at_every_step(
        test,
        |folder| {
            let scene = machine_at_rest(folder);
            take(&scene, tracked(), &NoProgress).unwrap();
            start(&scene);
            write(&scene, 0, 3 * MIB, 7);
            write(&scene, 1, 5 * MIB, 8);
            if !is_running {
                power_off(&scene);
            }
        },
        |folder, progress| {
            take(&Known::ToVirtualBox.scene(folder), options(), progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            let state = find(&scene).state;
            let wanted = [guest(&scene, 0), guest(&scene, 1)];
            let was_owed = !recover::owed(&scene.host).unwrap().is_empty();
            recover_all(&scene);
            if was_owed {
                assert_untracked(&scene, &what);
            } else {
                assert_tracked(&scene, &what);
            }
            assert!(wanted == [guest(&scene, 0), guest(&scene, 1)], "{what}");
            let is_online = state.is_online();
            assert_eq!(find(&scene).state.is_online(), is_online, "{what}");
            if !was_owed {
                // It knows all that the earlier one knew.
                let next = take_right(&scene, options());
                assert!(!report(&next).images.is_empty(), "{what}");
                assert_tracked(&scene, &what);
            }
        },
    );
}

/// A restore that is ended at every step, of a machine that has a tracker and was used since.
#[test]
fn restore_at_every_step() {
    let guests = RefCell::new([Vec::new(), Vec::new()]);
    let both = |scene: &Scene| [guest(scene, 0), guest(scene, 1)];
    run_at_every_step(
        "ends::restore_at_every_step",
        |folder| drop(guests.replace(both(&tracked_machine(folder)))),
        |folder, progress| {
            let scene = Known::ToVirtualBox.scene(folder);
            let plan = scene.plan_restore("web@latest").unwrap();
            restore::execute(&scene.host, scene.store(), &plan, progress).unwrap();
        },
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = Known::ToVirtualBox.scene(folder);
            let recovered = recover_all(&scene);
            let is_as_it_was = both(&scene) == *guests.borrow();
            if let [Recovered::Finished(_)] = recovered.as_slice() {
                assert!(!is_as_it_was, "{what}");
                assert_untracked(&scene, &what);
            } else {
                assert!(is_as_it_was, "{what}: {recovered:?}");
                assert_eq!(names(&scene).len(), 1, "{what}");
            }
            take_right(&scene, tracked());
            assert_tracked(&scene, &what);
            scene.restore("web@latest");
            assert_untracked(&scene, &what);
        },
    );
}

#[test]
fn at_rest_at_every_step() {
    crash_take("ends::at_rest_at_every_step", false, None);
}

#[test]
fn memory_at_every_step() {
    crash_take(
        "ends::memory_at_every_step",
        true,
        Some(CaptureMode::Memory),
    );
}

#[test]
#[ignore = "its steps are among those with memory"]
fn soak_disks_only_at_every_step() {
    let mode = Some(CaptureMode::DisksOnly);
    crash_take("ends::soak_disks_only_at_every_step", true, mode);
}

/// A running machine whose process dies when the next tracker is taken, and what its guest sees of its
/// disks.
fn doomed_machine(folder: &Path) -> (Scene, [Vec<u8>; 2]) {
    let scene = tracked_machine(folder);
    start(&scene);
    let disks = [guest(&scene, 0), guest(&scene, 1)];
    let take_tracker = format!("snapshot {} take vrs tracker", find(&scene).id);
    virtualbox(folder).inject(&Fault::once(&take_tracker, FaultKind::MachineDies));
    (scene, disks)
}

/// It has no tracker, and nothing of its disks is lost.
fn assert_put_right(scene: &Scene, disks: &[Vec<u8>; 2], what: &str) {
    assert_untracked(scene, what);
    assert_eq!(find(scene).state, MachineState::Aborted, "{what}");
    assert!(*disks == [guest(scene, 0), guest(scene, 1)], "{what}");
}

#[test]
fn a_machine_that_dies_while_the_tracker_is_taken_is_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, wanted) = doomed_machine(folder.path());
    let taken = take(&scene, with(CaptureMode::DisksOnly), &NoProgress);
    if let Err(error) = &taken {
        assert_eq!(error.kind(), ErrorKind::NeedsRecovery, "{error}");
        virtualbox(folder.path()).restart_service();
    }
    recover_all(&scene);
    assert_put_right(&scene, &wanted, "died");
    let taken = take_right(&scene, tracked());
    assert_eq!(report(&taken).notes, NO_NOTES);
    assert_tracked(&scene, "again");
}

/// VirtualBox may find out only in the middle of the undoing that it cannot read the machine (seen on
/// 7.2.22, on a busy computer).
#[rstest]
#[case::status("showvminfo")]
#[case::virtualbox_snapshots("snapshot")]
#[case::media("list hdds")]
fn a_machine_that_cannot_be_read_any_more_while_a_take_is_undone_is_put_right(#[case] verb: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (scene, wanted) = doomed_machine(folder.path());
    let virtualbox = virtualbox(folder.path());
    virtualbox.inject(&Fault::once(verb, FaultKind::ServiceRestarts).times(100));
    take(&scene, with(CaptureMode::DisksOnly), &NoProgress).unwrap();
    assert!(recover::owed(&scene.host).unwrap().is_empty());
    assert_put_right(&scene, &wanted, verb);
}

/// The service may still take the machine's image for attached when the machine is registered again
/// (seen on 7.2.22, on a busy computer).
#[test]
fn a_machine_that_cannot_be_registered_yet_is_registered_later() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, wanted) = doomed_machine(folder.path());
    let virtualbox = virtualbox(folder.path());
    virtualbox.inject(&Fault::once("showvminfo", FaultKind::ServiceRestarts).times(100));
    let attached = FaultKind::Say {
        stdout: String::new(),
        stderr: "VBoxManage: error: Medium 'disk0.vdi' cannot be closed because it is still attached to 1 virtual machines\n\
                 VBoxManage: error: Details: code VBOX_E_OBJECT_IN_USE (0x80bb000c), component MediumWrap, interface IMedium\n"
            .to_owned(),
        code: 1,
    };
    virtualbox.inject(&Fault::once("registervm", attached));
    let error = take(&scene, with(CaptureMode::DisksOnly), &NoProgress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsRecovery, "{error}");
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("end every program that uses it"), "{told}");
    recover_all(&scene);
    assert_put_right(&scene, &wanted, "registered");
}

/// `VBoxManage` dies, and VirtualBox goes on without it.
#[test]
fn a_merge_goes_on_without_its_vboxmanage() {
    let folder = tempfile::tempdir().unwrap();
    let scene = tracked_machine(folder.path());
    start(&scene);
    let meanwhile = FaultKind::CrashMeanwhile {
        state: "deletingsnapshotlive".to_owned(),
        milliseconds: 300,
    };
    let verb = format!("snapshot {} delete", find(&scene).id);
    virtualbox(folder.path()).inject(&Fault::once(&verb, meanwhile));
    let taken = take_right(&scene, with(CaptureMode::DisksOnly));
    assert!(!report(&taken).images.is_empty());
    assert_tracked(&scene, "went on");
}

#[test]
fn an_interrupted_take_leaves_no_tracker() {
    let folder = tempfile::tempdir().unwrap();
    let scene = running_machine(folder.path());
    let log = StepLog::default();
    take(&scene, with(CaptureMode::DisksOnly), &log).unwrap();
    for step in (4..=log.steps().len()).step_by(6) {
        let progress = FaultProgress::interrupt_at(step);
        match take(&scene, with(CaptureMode::DisksOnly), &progress) {
            Ok(taken) if report(&taken).leaves_virtualbox_snapshot => {
                assert_tracked(&scene, &format!("step {step}"));
            }
            Ok(_) => assert_untracked(&scene, &format!("step {step}")),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "step {step}: {error}");
                assert_untracked(&scene, &format!("step {step}"));
            }
        }
        assert_eq!(find(&scene).state, MachineState::Running);
    }
}
