//! What the preflight says is what VirtualBox does: each test asks it first, and then does on the
//! real VirtualBox, with a running guest, what the verdict is about.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vrs_engine::Host;
use vrs_engine::capture::CaptureMode;
use vrs_engine::inventory::{Inventory, Missing};
use vrs_engine::machine::Machine;
use vrs_engine::preflight::{self, Level, PreflightRequest, Verdict, VerdictName};
use vrs_testkit::{GuestRecords, Rig, RigMachine};
use vrs_virtualbox::{LocateOptions, VBoxManage};

fn examine(machine: &RigMachine<'_>, mode: CaptureMode) -> Vec<Verdict> {
    let options = LocateOptions {
        program: Some(machine.rig().program()),
        ..LocateOptions::default()
    };
    let host = Host {
        virtualbox: Ok(VBoxManage::locate(&options).unwrap()),
        state_folder: machine.rig().folder().join("state"),
        name: "testhost".to_owned(),
    };
    let machine = Machine::find(&host, &machine.id().to_string()).unwrap();
    let inventory = Inventory::of(&host, &machine, Missing::Refuse).unwrap();
    let request = PreflightRequest {
        mode,
        skip_disks: Vec::new(),
        force: Vec::new(),
    };
    preflight::examine(&host, &machine, &inventory, &request).unwrap()
}

/// The worst verdict of a name.
#[track_caller]
fn level(verdicts: &[Verdict], name: VerdictName) -> Level {
    let named = verdicts.iter().filter(|verdict| verdict.name == name);
    named.map(|verdict| verdict.level).max().expect("a verdict")
}

fn refusals(verdicts: &[Verdict]) -> Vec<VerdictName> {
    let refused = verdicts
        .iter()
        .filter(|verdict| verdict.level == Level::Refused);
    refused.map(|verdict| verdict.name).collect()
}

/// A running machine whose second disk is of a type.
fn counting_with<'rig>(rig: &'rig Rig, kind: &str) -> RigMachine<'rig> {
    let machine = RigMachine::records_guest(rig, kind);
    machine.attach_as(kind, "IDE", 1, &machine.base_image(2));
    machine.start_counting();
    machine.wait_for_rounds(40);
    machine
}

fn delete(machine: &RigMachine<'_>, snapshot: uuid::Uuid) {
    machine.call("snapshot", &["delete", &snapshot.to_string()]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn nothing_is_held_against_a_running_machine() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "web");
    machine.start_counting();
    for mode in [
        CaptureMode::Memory,
        CaptureMode::Live,
        CaptureMode::DisksOnly,
        CaptureMode::SaveState,
    ] {
        let verdicts = examine(&machine, mode);
        let all_well = verdicts.iter().all(|verdict| verdict.level == Level::Ok);
        assert!(all_well, "{mode:?}: {verdicts:#?}");
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_writethrough_disk_goes_on_under_a_virtualbox_snapshot() {
    let rig = Rig::start();
    let machine = counting_with(&rig, "writethrough");
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(refusals(&verdicts), [VerdictName::DiskKind]);
    assert_eq!(refusals(&examine(&machine, CaptureMode::SaveState)), []);

    let snapshot = machine.take_virtualbox_snapshot("refused for a reason");
    machine.wait_for_rounds(40);
    // The guest may be writing to the second image just now.
    let frozen = GuestRecords::of_image(1, &machine.base_image(1)).unwrap();
    machine.wait_for_rounds(40);
    machine.save_running_state();
    let went_on = GuestRecords::of_image(2, &machine.base_image(2)).unwrap();
    let fault = GuestRecords::last_round(&frozen, &went_on).unwrap_err();
    assert!(fault.contains("not of one instant"), "{fault}");
    delete(&machine, snapshot);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn immutable_and_multiattach_disks_are_frozen_and_merged() {
    let rig = Rig::start();
    for kind in ["immutable", "multiattach"] {
        let machine = counting_with(&rig, kind);
        let image = machine.attached_path("IDE", 1);
        let verdicts = examine(&machine, CaptureMode::Memory);
        assert_eq!(refusals(&verdicts), [], "{verdicts:#?}");
        assert_eq!(level(&verdicts, VerdictName::DiskKind), Level::Ok);

        let snapshot = machine.take_virtualbox_snapshot("transient");
        machine.wait_for_rounds(40);
        let first = GuestRecords::of_image(1, &machine.base_image(1)).unwrap();
        let second = GuestRecords::of_image(2, &image).unwrap();
        GuestRecords::last_round(&first, &second).unwrap();
        delete(&machine, snapshot);
        machine.wait_for_rounds(40);

        // What an immutable disk has is kept as long as memory relies on it ...
        machine.save_running_state();
        let saved = machine.last_round().unwrap();
        machine.start_counting();
        assert!(machine.counts().unwrap().go_on_from(saved), "{kind}");
        let cold = level(
            &examine(&machine, CaptureMode::DisksOnly),
            VerdictName::DiskKind,
        );
        machine.power_off();
        // ... and dropped when the machine starts without.
        let is_dropped = loses_the_second_disk(&machine);
        assert_eq!(is_dropped, kind == "immutable");
        assert_eq!(cold == Level::Warning, is_dropped);
    }
}

/// Starts the machine from power-off; the guest complains if a disk is not as it left it.
fn loses_the_second_disk(machine: &RigMachine<'_>) -> bool {
    machine.call("startvm", &["--type", "headless"]);
    wait_until(|| machine.serial_text().lines().any(|line| line.len() == 8));
    let text = machine.serial_text();
    machine.power_off();
    text.contains("XS")
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn linked_clones_do_not_stop_a_merge() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "original");
    let base = machine.take_virtualbox_snapshot("base of the clone");
    let _clone = machine.linked_clone(base, "clone");
    machine.start_counting();
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(refusals(&verdicts), [], "{verdicts:#?}");
    let snapshot = machine.take_virtualbox_snapshot("transient");
    delete(&machine, snapshot);
    assert!(
        machine.is_alive(),
        "{}\n{}",
        machine.state(),
        machine.serial_text()
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn an_image_left_by_a_crash_stops_a_merge() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    let snapshots = rig.tiny_disk(1200 << 20);
    let path = snapshots.path().to_str().unwrap();
    machine.modify(&["--snapshotfolder", path]);
    // VirtualBox cleans up now and then, and some live takes end before the crash.
    let is_left = (0..8).any(|_| {
        crash_during_live_take(&machine, snapshots.path());
        let images = fs::read_dir(snapshots.path()).unwrap().flatten();
        images.count() == 1
    });
    assert!(is_left, "no crash left an image");

    machine.start_counting();
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(refusals(&verdicts), [VerdictName::OtherChildren]);
    let snapshot = machine.take_virtualbox_snapshot("refused for a reason");
    let id = machine.id().to_string();
    let merge = rig.output(["snapshot", &id, "delete", &snapshot.to_string()]);
    let complaint = String::from_utf8_lossy(&merge.stderr).into_owned();
    assert!(complaint.contains("more than one child"), "{complaint}");
    machine.power_off();
}

/// The machine's process dies during a live take. One that came to be before that is deleted.
fn crash_during_live_take(machine: &RigMachine<'_>, snapshot_folder: &Path) {
    machine.start_counting();
    let mut live = take_live(machine);
    wait_until(|| has_saved_state(snapshot_folder));
    machine.call("startvm", &["--type", "emergencystop"]);
    let is_taken = live.wait().unwrap().success();
    wait_until(|| machine.state() == "aborted");
    if is_taken {
        machine.call("snapshot", &["delete", "live"]);
    }
}

fn take_live(machine: &RigMachine<'_>) -> Child {
    Command::new(machine.rig().vboxmanage())
        .args(["snapshot", &machine.id().to_string(), "take", "live"])
        .arg("--live")
        .envs(machine.rig().environment())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn has_saved_state(folder: &Path) -> bool {
    let mut files = fs::read_dir(folder).unwrap().flatten();
    files.any(|file| file.path().extension().is_some_and(|kind| kind == "sav"))
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_whose_state_may_not_be_saved_has_only_disks() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "web");
    machine.start_counting();
    machine.call("setextradata", &["VBoxInternal2/DisableSaveState", "1"]);
    for mode in [
        CaptureMode::Memory,
        CaptureMode::Live,
        CaptureMode::SaveState,
    ] {
        let verdicts = examine(&machine, mode);
        assert_eq!(refusals(&verdicts), [VerdictName::SaveStateDisabled]);
    }
    assert_eq!(refusals(&examine(&machine, CaptureMode::DisksOnly)), []);
    let id = machine.id().to_string();
    let taken = rig.output(["snapshot", &id, "take", "refused for a reason"]);
    let complaint = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(
        complaint.contains("Saving the execution state is disabled"),
        "{complaint}"
    );
    assert!(machine.is_alive());
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn where_memory_does_not_fit_it_is_refused() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "web");
    let snapshots = rig.tiny_disk(24 << 20);
    let path = snapshots.path().to_str().unwrap();
    machine.modify(&["--snapshotfolder", path]);
    machine.start_counting();
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(refusals(&verdicts), [VerdictName::FreeSpace]);
    assert_eq!(refusals(&examine(&machine, CaptureMode::DisksOnly)), []);
    machine.power_off();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn firmware_variables_that_are_nowhere_are_noticed() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "efi");
    machine.modify(&["--firmware", "efi", "--tpm-type", "2.0"]);
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(level(&verdicts, VerdictName::Nvram), Level::Warning);
    machine.call("modifynvram", &["inituefivarstore"]);
    let verdicts = examine(&machine, CaptureMode::Memory);
    assert_eq!(level(&verdicts, VerdictName::Nvram), Level::Ok);
}

fn wait_until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
}
