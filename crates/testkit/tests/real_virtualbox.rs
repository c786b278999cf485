//! On the real VirtualBox: sample machines are accepted as its own, and machines of every kind can
//! be made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::ffi::OsStr;

use vrs_testkit::{LinuxGuest, RIG_MACHINE_KINDS, Rig, RigMachine, SampleDisk, SampleMachine};

const MIB: u64 = 1 << 20;

fn register<'rig>(rig: &'rig Rig, sample: &SampleMachine) -> RigMachine<'rig> {
    rig.run([OsStr::new("registervm"), sample.settings_path().as_os_str()]);
    RigMachine::registered(rig, sample.id())
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_reads_sample_machines_as_their_model_does() {
    let rig = Rig::start();
    let mut sample = SampleMachine::builder(rig.folder(), "sämple \"quoted\"")
        .disk(SampleDisk::dynamic(5 * MIB))
        .disk(SampleDisk::fixed(2 * MIB).at(rig.folder().join("outside/fixed.vdi")))
        .nvram(540_672)
        .build();
    sample.fill(0, MIB / 2, 2 * MIB as usize, 1);
    sample.fill(1, 100, 1000, 2);
    let first = sample.take_virtualbox_snapshot("first");
    sample.fill(0, 3 * MIB, 5000, 3);
    sample.take_virtualbox_snapshot("second");
    sample.restore_virtualbox_snapshot(first);
    sample.fill(0, 4 * MIB, 5000, 4);
    let machine = register(&rig, &sample);
    assert_eq!(machine.state(), "poweroff");
    for disk in 0..2 {
        assert_eq!(machine.attached("SATA", disk), Some(sample.attached(disk)));
        assert_eq!(
            rig.guest_bytes(sample.attached(disk).to_string()),
            sample.guest_bytes(disk)
        );
    }
    assert!(
        machine
            .virtualbox_snapshots()
            .contains("SnapshotName-1=\"second\"")
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_reads_grown_compacted_and_merged_samples() {
    let rig = Rig::start();
    let mut sample = SampleMachine::builder(rig.folder(), "changed")
        .disk(SampleDisk::dynamic(4 * MIB))
        .build();
    sample.fill(0, 0, 4 * MIB as usize, 1);
    sample.write(0, MIB, &vec![0; MIB as usize]);
    sample.compact(0);
    sample.grow(0, 6 * MIB);
    let snapshot = sample.take_virtualbox_snapshot("merged");
    sample.fill(0, 5 * MIB, 100, 2);
    sample.delete_virtualbox_snapshot(snapshot);
    let machine = register(&rig, &sample);
    assert_eq!(machine.attached("SATA", 0), Some(sample.attached(0)));
    assert_eq!(
        rig.guest_bytes(sample.attached(0).to_string()),
        sample.guest_bytes(0)
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn every_kind_of_machine_can_be_made_and_run() {
    let rig = Rig::start();
    for kind in RIG_MACHINE_KINDS {
        let machine = (kind.create)(&rig);
        let hashes = machine.guest_sha256s();
        let runs = !["EFI nvram", "no disk"].contains(&kind.name);
        assert_eq!(hashes.is_empty(), kind.name == "no disk", "{}", kind.name);
        if runs {
            machine.run_guest();
            assert_ne!(
                machine.guest_sha256s(),
                hashes,
                "{}: the guest writes",
                kind.name
            );
        }
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn the_linux_guest_goes_on_where_it_was_saved_and_its_disks_hold_every_record() {
    let rig = Rig::start();
    let guest = LinuxGuest::saved(&rig);
    let first = guest.resume();
    guest.wait_for_records(64);
    guest.machine().save_running_state();
    let saved = guest.counter();
    assert!(saved >= first + 64);
    // What was being written when the state was saved is on the disks, or in the memory only.
    for records in guest.records() {
        assert!(
            records.last >= saved && records.last < saved + 16,
            "{records:?} {saved}"
        );
    }
    // One number may have been cut in two.
    let resumed = guest.resume();
    assert!(
        [saved + 8, saved + 16].contains(&resumed),
        "{saved}, {resumed}"
    );
}
