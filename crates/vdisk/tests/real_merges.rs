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

/// Looks at the frozen base, and checks each byte that need not have been read.
fn look(machine: &RigMachine<'_>, disk: u32, last: &Stored) -> Stored {
    let now = Stored::of(machine, disk);
    let kept = kept_ranges(&last.head, &last.merged, &now.head).unwrap();
    let mut kept_bytes = 0;
    for range in kept {
        let place = range.start as usize..range.end as usize;
        assert!(last.bytes[place.clone()] == now.bytes[place], "{range:?}");
        kept_bytes += range.end - range.start;
    }
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
    let machine = RigMachine::records_guest(&rig, "tracked");
    for (port, block) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        machine.write_vdi("IDE", port, block, 7);
    }
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
