//! On the real VirtualBox: the guests that write records and storms, and the verifier that accepts
//! only disks and memory of one instant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vrs_testkit::{GuestCounts, GuestRecords, Rig, RigMachine, TinyDisk};

const MIB: u64 = 1 << 20;

/// The last round on the base images, while the guest writes to differencing images.
fn last_frozen_round(machine: &RigMachine<'_>) -> u32 {
    let records =
        |disk: u32| GuestRecords::of_image(disk, &machine.base_image(disk)).expect("whole records");
    GuestRecords::last_round(&records(1), &records(2)).expect("disks of one instant")
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_virtualbox_snapshot_of_a_running_guest_is_of_one_instant() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "records");
    machine.start_counting();
    machine.wait_for_rounds(40);
    let snapshot = machine.take_virtualbox_snapshot("transient");
    machine.wait_for_rounds(40);
    let captured = last_frozen_round(&machine);
    for disk in [1, 2] {
        let seen_by_virtualbox = rig.guest_bytes(machine.base_image(disk));
        assert_eq!(
            GuestRecords::of_bytes(disk, &seen_by_virtualbox),
            GuestRecords::of_image(disk, &machine.base_image(disk))
        );
    }
    machine.call("snapshot", &["delete", &snapshot.to_string()]);
    assert!(machine.is_alive(), "after the merge");
    machine.wait_for_rounds(40);
    let counted = machine.counts().unwrap();
    assert_eq!(counted.starts, 1);
    machine.power_off();
    let last = machine.last_round().unwrap();
    assert!(last >= counted.last && last > captured + 40);

    // From power-off the guest looks at all records, and goes on from those.
    machine.start_counting();
    let counts = machine.counts().unwrap();
    assert_eq!(counts.starts, 1);
    assert!([last + 1, last + 2].contains(&counts.first));
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_guest_goes_on_from_the_captured_count() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "records");
    machine.start_counting();
    machine.wait_for_rounds(1100);
    let snapshot = machine.take_virtualbox_snapshot("to go back to");
    let captured = last_frozen_round(&machine);
    machine.wait_for_rounds(100);

    machine.save_running_state();
    let saved = machine.last_round().unwrap();
    machine.start_counting();
    assert!(machine.counts().unwrap().go_on_from(saved));
    machine.wait_for_rounds(100);

    machine.power_off();
    machine.restore_virtualbox_snapshot(snapshot);
    machine.start_counting();
    assert!(machine.counts().unwrap().go_on_from(captured));
    machine.wait_for_rounds(1100);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn records_that_are_not_whole_or_not_of_one_instant_are_rejected() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "records");
    machine.start_counting();
    machine.wait_for_rounds(40);
    machine.take_virtualbox_snapshot("earlier");
    machine.wait_for_rounds(40);
    machine.power_off();
    let last = machine.last_round().unwrap();
    let image = machine.attached("IDE", 0).unwrap();
    let sound = rig.guest_bytes(image.to_string());
    let newest = GuestRecords::of_bytes(1, &sound).unwrap();
    let at = |count: u32| (2048 + (count % 1024) as usize) * 512;

    let mut corrupted = sound.clone();
    corrupted[at(last - 3) + 200] ^= 1;
    let fault = GuestRecords::of_bytes(1, &corrupted).unwrap_err();
    assert!(fault.contains("torn or damaged"), "{fault}");
    let mut missing = sound.clone();
    missing[at(last - 3)..][..512].fill(0);
    let fault = GuestRecords::of_bytes(1, &missing).unwrap_err();
    assert!(fault.contains("lacks the record"), "{fault}");

    let earlier = GuestRecords::of_image(2, &machine.base_image(2)).unwrap();
    let fault = GuestRecords::last_round(&newest, &earlier).unwrap_err();
    assert!(fault.contains("not of one instant"), "{fault}");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_guest_complains_about_a_disk_of_another_instant() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "records");
    machine.start_counting();
    machine.wait_for_rounds(40);
    machine.save_running_state();
    let earlier = fs::read(machine.base_image(2)).unwrap();
    machine.start_counting();
    machine.wait_for_rounds(40);
    machine.save_running_state();
    fs::write(machine.base_image(2), earlier).unwrap();
    assert!(machine.last_round().is_err());
    machine.call("startvm", &["--type", "headless"]);
    let complaint = || GuestCounts::parse(&machine.serial_text()).err();
    wait_until(|| complaint().is_some());
    let complaint = complaint().unwrap();
    assert!(complaint.contains("XD"), "{complaint}");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_live_saved_state_of_a_storm_never_ends() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    let folder = rig.tiny_disk(1200 * MIB);
    let path = folder.path().to_str().unwrap();
    machine.modify(&["--snapshotfolder", path]);
    machine.start_counting();
    machine.wait_for_rounds(20);

    // The plain way: memory once, then the guest goes on.
    let snapshot = machine.take_virtualbox_snapshot("plain");
    let plain_bytes = saved_state_bytes(folder.path());
    assert!(
        (100 * MIB..200 * MIB).contains(&plain_bytes),
        "{plain_bytes}"
    );
    machine.call("snapshot", &["delete", &snapshot.to_string()]);
    assert!(machine.is_alive());

    // The guest is outrun now and then, while others make it wait.
    let is_cancelled = (0..20).any(|_| grows_until_cancelled(&machine, &folder, 3 * plain_bytes));
    assert!(is_cancelled, "every live saved state of the storm ended");
    assert!(machine.is_alive());
    assert_eq!(saved_state_bytes(folder.path()), 0);
    machine.power_off();
}

/// Cancels a live VirtualBox snapshot once its saved state has grown past `limit_bytes`. One that came
/// to be all the same is deleted.
fn grows_until_cancelled(machine: &RigMachine<'_>, folder: &TinyDisk, limit_bytes: u64) -> bool {
    let rig = machine.rig();
    let id = machine.id().to_string();
    let before = threads(&id);
    let mut live = Command::new(rig.vboxmanage())
        .args(["snapshot", &id, "take", "live", "--live"])
        .envs(rig.environment())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let live_process = live.id().to_string();
    let mut is_grown = false;
    wait_until(|| {
        // Who saves gives way to the guest, also where others want the processor.
        for thread in threads(&id).difference(&before) {
            renice(thread);
        }
        is_grown = saved_state_bytes(folder.path()) > limit_bytes;
        is_grown || live.try_wait().unwrap().is_some()
    });
    if is_grown {
        Command::new("kill")
            .args(["-INT", &live_process])
            .status()
            .unwrap();
    }
    let is_taken = live.wait().unwrap().success();
    if is_taken {
        machine.call("snapshot", &["delete", "live"]);
    } else {
        assert!(is_grown, "it failed by itself");
    }
    !is_taken
}

/// The threads of the machine's process.
fn threads(machine: &str) -> BTreeSet<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let processes = entries(Path::new("/proc")).map(|process| process.path());
    let runs_it = |process: &PathBuf| {
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        line.contains("VBoxHeadless") && line.contains(machine)
    };
    let threads = processes
        .filter(runs_it)
        .flat_map(|process| entries(&process.join("task")));
    threads.map(|thread| thread.path()).collect()
}

/// Lets a thread come after others. One that has ended meanwhile is left.
fn renice(thread: &Path) {
    let mut renice = Command::new("renice");
    renice
        .args(["-n", "10", "-p"])
        .arg(thread.file_name().unwrap());
    renice
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

/// What the largest saved state in a folder has grown to.
fn saved_state_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|kind| kind == "sav"))
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .max()
        .unwrap_or_default()
}

fn wait_until(mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(120));
        thread::sleep(Duration::from_millis(20));
    }
}
