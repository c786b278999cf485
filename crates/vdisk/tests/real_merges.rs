//! Change lists of the real VirtualBox: a differencing image stays on the base image from one look to the
//! next, is merged while the guest writes, and its map told all that changed in the base.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use support::MIB;
use vrs_testkit::{GuestRecords, Rig, RigMachine};
use vrs_vdisk::{VdiHead, kept_ranges};

const DISKS: [u32; 2] = [1, 2];
const WITHOUT_STATE: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";

/// A base image at the last look.
struct Stored {
    bytes: Vec<u8>,
    head: VdiHead,
    /// What was merged into it since.
    merged: Vec<VdiHead>,
}

impl Stored {
    fn of(machine: &RigMachine<'_>, disk: u32) -> Self {
        let base = machine.base_image(disk);
        Self {
            bytes: fs::read(&base).unwrap(),
            head: VdiHead::of_image(&base).unwrap(),
            merged: Vec::new(),
        }
    }
}

fn active(machine: &RigMachine<'_>) -> [PathBuf; 2] {
    [0, 1].map(|port| machine.attached_path("IDE", port))
}

fn delete(machine: &RigMachine<'_>, name: &str) {
    machine.call("snapshot", &["delete", name]);
}

/// The only one: the VirtualBox snapshots that stay have none.
fn saved_state(machine: &RigMachine<'_>) -> PathBuf {
    let files = fs::read_dir(machine.folder().join("Snapshots")).unwrap();
    let mut states: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    states.retain(|path| path.extension().is_some_and(|found| found == "sav"));
    assert_eq!(states.len(), 1, "{states:?}");
    states.remove(0)
}

/// What stays until the next look: a VirtualBox snapshot without the RAM.
fn leave_tracker(machine: &RigMachine<'_>, name: &str) {
    machine.call("setextradata", &[WITHOUT_STATE, "1"]);
    machine.call("controlvm", &["pause"]);
    machine.take_virtualbox_snapshot(name);
    machine.call("controlvm", &["resume"]);
    machine.call("setextradata", &[WITHOUT_STATE]);
}

/// How much merges kept. All of that is checked.
fn compare(last: &Stored, merged: &[VdiHead], now: &Stored) -> u64 {
    let kept = kept_ranges(&last.head, merged, &now.head).unwrap();
    let mut kept_bytes = 0;
    for range in kept {
        let place = range.start as usize..range.end as usize;
        assert!(last.bytes[place.clone()] == now.bytes[place], "{range:?}");
        kept_bytes += range.end - range.start;
    }
    kept_bytes
}

/// Looks at the frozen base, and checks each byte that need not have been read.
fn look(machine: &RigMachine<'_>, disk: u32, last: &Stored) -> Stored {
    let now = Stored::of(machine, disk);
    let kept_bytes = compare(last, &last.merged, &now);
    // The guest writes to one block only.
    let stored_blocks = u64::from(last.head.header().allocated_blocks);
    assert_eq!(kept_bytes, (stored_blocks - 1) * MIB);
    assert!(stored_blocks > 2);
    assert!(last.bytes != now.bytes);
    now
}

/// Everything there is after the machine was taken for the last time.
struct Snapshot {
    settings: String,
    state: Vec<u8>,
    disks: Vec<Stored>,
}

impl Snapshot {
    /// Puts the machine back as if there had never been a VirtualBox snapshot.
    fn restore(&self, rig: &Rig, machine: &RigMachine<'_>) {
        let id = machine.id().to_string();
        rig.run(["unregistervm", &id]);
        let snapshots = machine.folder().join("Snapshots");
        fs::remove_dir_all(&snapshots).unwrap();
        fs::create_dir(&snapshots).unwrap();
        fs::write(snapshots.join("saved.sav"), &self.state).unwrap();
        for (disk, stored) in DISKS.into_iter().zip(&self.disks) {
            fs::write(machine.base_image(disk), &stored.bytes).unwrap();
        }
        let named = "<Machine stateFile=\"Snapshots/saved.sav\" ";
        let settings = self.settings.replacen("<Machine ", named, 1);
        fs::write(machine.settings_path(), settings).unwrap();
        rig.run(["registervm".as_ref(), machine.settings_path().as_os_str()]);
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_differencing_image_that_stays_lists_what_changes_in_the_base() {
    let rig = Rig::start();
    let machine = RigMachine::records_guest_beside_data(&rig, "tracked");
    let settings = fs::read_to_string(machine.settings_path()).unwrap();
    machine.start_counting();
    machine.wait_for_rounds(20);
    let mut last: Vec<Stored> = Vec::new();
    let mut state = Vec::new();
    for round in 0..4 {
        let changed = active(&machine);
        let transient = machine.take_virtualbox_snapshot("transient");
        machine.wait_for_rounds(5);
        if round > 0 {
            for (stored, image) in last.iter_mut().zip(&changed) {
                stored.merged.push(VdiHead::of_image(image).unwrap());
            }
            // Merged below the transient one, while the guest writes on top of that.
            delete(&machine, &format!("tracker {}", round - 1));
            assert!(changed.iter().all(|image| !image.exists()));
        }
        last = match round {
            0 => DISKS.map(|disk| Stored::of(&machine, disk)).into(),
            _ => {
                let looks = DISKS.into_iter().zip(&last);
                looks
                    .map(|(disk, last)| look(&machine, disk, last))
                    .collect()
            }
        };
        state = fs::read(saved_state(&machine)).unwrap();
        let grown = active(&machine);
        leave_tracker(&machine, &format!("tracker {round}"));
        for (stored, image) in last.iter_mut().zip(&grown) {
            stored.merged.push(VdiHead::of_image(image).unwrap());
        }
        delete(&machine, &transient.to_string());
        machine.wait_for_rounds(20);
        assert!(machine.is_alive());
    }
    assert_eq!(machine.counts().unwrap().starts, 1);
    machine.power_off();
    let snapshot = Snapshot {
        settings,
        state,
        disks: last,
    };
    snapshot.restore(&rig, &machine);
    let records = DISKS.map(|disk| GuestRecords::of_image(disk, &machine.base_image(disk)));
    let [first, second] = records.map(|records| records.expect("whole records"));
    let last_round = GuestRecords::last_round(&first, &second).unwrap();
    machine.start_counting();
    machine.wait_for_rounds(5);
    assert!(machine.counts().unwrap().go_on_from(last_round));
    machine.power_off();
    machine.last_round().unwrap();
}

/// What a machine's death in the middle of a merge left, told before and after the merge was repeated.
struct Interrupted {
    was_under_way: bool,
    kept_bytes: u64,
}

fn interrupt_a_merge(rig: &Rig, name: &str) -> Interrupted {
    let machine = RigMachine::storm_guest(rig, name);
    machine.start_counting();
    // Nearly all blocks are in the base, and the merged image has half of them.
    machine.wait_for_rounds(60);
    leave_tracker(&machine, "tracker");
    let last = Stored::of(&machine, 1);
    machine.wait_for_rounds(12);
    let changed = machine.attached_path("IDE", 0);
    leave_tracker(&machine, "transient");
    let merged = [VdiHead::of_image(&changed).unwrap()];
    let process = machine.process();
    let id = machine.id().to_string();
    let base = machine.base_image(1);
    let written = || fs::metadata(&base).unwrap().modified().unwrap();
    let before = written();
    let has_failed = thread::scope(|scope| {
        let deleting = scope.spawn(|| rig.output(["snapshot", &id, "delete", "tracker"]));
        while written() == before && !deleting.is_finished() {}
        let killed = Command::new("kill").args(["-KILL", &process]).status();
        assert!(killed.unwrap().success());
        !deleting.join().unwrap().status.success()
    });
    rig.reread();
    let machine = RigMachine::registered(rig, machine.id());
    machine.wait_until_rested();
    let kept_bytes = compare(&last, &merged, &Stored::of(&machine, 1));
    // VirtualBox may have had nothing left to do but to say so.
    let was_under_way = has_failed && changed.exists();
    if was_under_way {
        assert_eq!(VdiHead::of_image(&changed).unwrap(), merged[0]);
        delete(&machine, "tracker");
    }
    assert!(!changed.exists());
    assert_eq!(
        compare(&last, &merged, &Stored::of(&machine, 1)),
        kept_bytes
    );
    Interrupted {
        was_under_way,
        kept_bytes,
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_merge_that_the_machine_does_not_survive_and_its_repetition_change_listed_blocks_only() {
    let rig = Rig::start();
    let mut attempts = (0..5).map(|number| interrupt_a_merge(&rig, &format!("killed {number}")));
    let interrupted = attempts.find(|attempt| attempt.was_under_way);
    let kept_bytes = interrupted.expect("a merge that was under way").kept_bytes;
    assert!(kept_bytes > 0);
}
