//! A real Linux with ext4 on two disks, and a guest that writes as fast as it can, are taken while
//! they run.

use vrs_testkit::{LinuxGuest, Rig, RigMachine};

use crate::vrs::Vrs;

const MODES: [&str; 4] = ["--memory", "--live", "--disks-only", "--savestate"];

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_linux_is_taken_in_every_mode_and_every_record_is_there() {
    let rig = Rig::start();
    let guest = LinuxGuest::saved(&rig);
    guest.resume();
    let vrs = Vrs::new(&rig);
    let id = guest.machine().id().to_string();
    let mut told = Vec::new();
    for mode in MODES {
        let before = guest.counter();
        vrs.run(["take", &id, mode, "--name", &mode[2..]]);
        assert_eq!(guest.machine().state(), "running", "{mode}");
        // What it finds wrong with its disks or its memory it tells, and this fails.
        guest.wait_for_records(16);
        told.push((mode, before));
    }
    guest.machine().power_off();
    for (mode, before) in told {
        vrs.restore(&id, &mode[2..]);
        let records = guest.records();
        assert!(
            records.iter().all(|disk| disk.last >= before),
            "{mode}: {records:?} {before}"
        );
        if mode != "--disks-only" {
            let resumed = guest.resume();
            let captured = records[0].last.max(records[1].last);
            assert!(
                resumed + 16 > captured && resumed < captured + 32,
                "{mode}: {resumed} {captured}"
            );
            guest.wait_for_records(16);
            guest.machine().power_off();
        }
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_storm_is_taken_although_a_live_take_of_it_never_ends() {
    let rig = Rig::start();
    let machine = RigMachine::storm_guest(&rig, "storm");
    machine.start_counting();
    machine.wait_for_rounds(5);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let told = never_ending_take(&vrs, &id);
    assert!(
        told.contains("changes its memory faster than it can be written"),
        "{told}"
    );
    assert!(machine.is_alive());
    let snapshots = machine.virtualbox_snapshots();
    assert!(snapshots.contains("does not have any"), "{snapshots}");
    machine.power_off();
    vrs.run(["restore", &format!("{id}@latest"), "--yes"]);
    assert_eq!(machine.state(), "saved");
    machine.start_counting();
    assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");
}

/// The warnings of a live take that did not end. One that falls into a moment in which the host's
/// disk makes the guest wait does end, and so there are several attempts.
fn never_ending_take(vrs: &Vrs, id: &str) -> String {
    for _ in 0..8 {
        let taken = vrs.output(["take", id, "--live"]);
        let told = String::from_utf8_lossy(&taken.stderr).into_owned();
        match taken.status.code() {
            Some(0) => {}
            Some(3) => return told,
            other => panic!("{other:?}: {told}"),
        }
    }
    panic!("every live take of the storm ended");
}
