//! Running machines are taken while their guests write, and go on.

use std::fs;
use std::path::Path;

use vrs_testkit::{Rig, RigMachine};

use crate::restic::{restic, settings_in};
use crate::vrs::Vrs;

const MODES: [&str; 4] = ["--memory", "--disks-only", "--savestate", "--live"];

/// Starts a guest that has written something.
pub fn counting<'rig>(rig: &'rig Rig, name: &str) -> RigMachine<'rig> {
    let machine = RigMachine::records_guest(rig, name);
    machine.start_counting();
    machine.wait_for_rounds(40);
    machine
}

/// The machine runs on as if nothing had happened: no VirtualBox snapshot, no image and no saved
/// state is left over, and extra data is as it was.
#[track_caller]
pub fn goes_on(machine: &RigMachine<'_>, when: &str) {
    assert_eq!(machine.state(), "running", "{when}");
    assert!(machine.is_alive(), "{when}");
    is_clean(machine, when);
}

#[track_caller]
pub fn is_clean(machine: &RigMachine<'_>, when: &str) {
    let snapshots = machine.virtualbox_snapshots();
    assert!(
        snapshots.contains("does not have any"),
        "{when}: {snapshots}"
    );
    let names = files_in(&machine.folder().join("Snapshots"));
    assert_eq!(names, Vec::<String>::new(), "{when}");
    let settings = fs::read_to_string(machine.settings_path()).unwrap();
    assert!(!settings.contains("ForceTakeSnapshot"), "{when}");
}

/// The names of the files in a folder, which may be missing.
pub fn files_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_is_taken_in_every_mode_and_goes_on() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    for mode in MODES {
        let printed = vrs.run(["take", &id, mode, "--name", &mode[2..]]);
        assert!(printed.contains("the guest stood still for"), "{printed}");
        goes_on(&machine, mode);
    }
    vrs.run(["check", "--read-data"]);
    machine.power_off();
    for mode in MODES {
        vrs.restore(&id, &mode[2..]);
        let captured = machine.last_round().unwrap();
        let has_memory = mode != "--disks-only";
        let state = if has_memory { "saved" } else { "poweroff" };
        assert_eq!(machine.state(), state, "{mode}");
        machine.start_counting();
        let counts = machine.counts().unwrap();
        if has_memory {
            assert!(
                counts.go_on_from(captured),
                "{mode}: {counts:?} from {captured}"
            );
        } else {
            assert_eq!(counts.starts, 1, "{mode}");
        }
        machine.power_off();
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_paused_machine_stays_paused() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    machine.call("controlvm", &["pause"]);
    let vrs = Vrs::new(&rig);
    for mode in ["--memory", "--disks-only", "--savestate"] {
        vrs.run(["take", &machine.id().to_string(), mode]);
        assert_eq!(machine.state(), "paused", "{mode}");
        is_clean(&machine, mode);
    }
    machine.call("controlvm", &["resume"]);
    goes_on(&machine, "resumed");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_comes_back_with_stock_tools() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    vrs.run(["take", &machine.id().to_string()]);
    restic(&vrs, &["check", "--read-data"]);
    let other = Rig::start();
    let target = other.folder().join("restored");
    restic(
        &vrs,
        &["restore", "latest", "--target", target.to_str().unwrap()],
    );
    let settings = settings_in(&target);
    let text = fs::read_to_string(&settings).unwrap();
    assert!(!text.contains("vrs transient"), "{text}");
    // The file that the serial port writes to is the other test's own.
    let own = |rig: &Rig| rig.folder().to_str().unwrap().to_owned();
    fs::write(&settings, text.replace(&own(&rig), &own(&other))).unwrap();
    other.run(["registervm".as_ref(), settings.as_os_str()]);
    let restored = RigMachine::registered(&other, machine.id());
    assert_eq!(restored.state(), "saved");
    let captured = restored.last_round().unwrap();
    restored.start_counting();
    assert!(restored.counts().unwrap().go_on_from(captured));
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn own_virtualbox_snapshots_stay_as_they_are() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    machine.take_virtualbox_snapshot("mine");
    machine.wait_for_rounds(20);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let before = (machine.virtualbox_snapshots(), machine.attachments().len());
    for mode in MODES {
        vrs.run(["take", &id, mode, "--name", &mode[2..]]);
        assert!(machine.is_alive(), "{mode}");
        let after = (machine.virtualbox_snapshots(), machine.attachments().len());
        assert_eq!(after, before, "{mode}");
    }
    machine.power_off();
    for mode in MODES {
        vrs.restore(&id, &mode[2..]);
        assert_eq!(machine.virtualbox_snapshots(), before.0, "{mode}");
        let captured = machine.last_round().unwrap();
        machine.start_counting();
        let counts = machine.counts().unwrap();
        assert!(counts.starts == 1 || counts.go_on_from(captured), "{mode}");
        machine.power_off();
    }
}

/// Two machines that are in one group.
fn lab(rig: &Rig) -> [RigMachine<'_>; 2] {
    ["one", "two"].map(|name| {
        let machine = RigMachine::records_guest(rig, name);
        machine.modify(&["--groups", "/lab"]);
        // VirtualBox moved its folder.
        let machine = RigMachine::registered(rig, machine.id());
        machine.start_counting();
        machine.wait_for_rounds(40);
        machine
    })
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_group_is_taken_at_one_instant_and_restored_together() {
    let rig = Rig::start();
    let machines = lab(&rig);
    let outside = counting(&rig, "not in the lab");
    let vrs = Vrs::new(&rig);
    vrs.run(["take", "--group", "/lab"]);
    for machine in &machines {
        goes_on(machine, "after the take");
        machine.wait_for_rounds(40);
        machine.power_off();
    }
    let listed = vrs.run(["list", "--json"]);
    assert_eq!(listed.matches("\"machine_name\"").count(), 2, "{listed}");
    vrs.run([
        "restore",
        "one@latest",
        "--set",
        "--yes",
        "--start=headless",
    ]);
    for machine in &machines {
        assert_eq!(machine.state(), "running");
        assert!(machine.is_alive());
        assert_eq!(machine.counts().unwrap().starts, 0, "it was resumed");
        machine.power_off();
        machine.last_round().unwrap();
    }
    goes_on(&outside, "whoever is not in the group");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn memory_can_be_left_out_of_a_restore() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    vrs.run(["take", &id, "--name", "first"]);
    machine.power_off();
    vrs.run(["restore", &format!("{id}@first"), "--cold", "--yes"]);
    assert_eq!(machine.state(), "poweroff");
    assert_eq!(
        files_in(&machine.folder().join("Snapshots")),
        Vec::<String>::new()
    );
    machine.last_round().unwrap();
    machine.start_counting();
    assert_eq!(machine.counts().unwrap().starts, 1);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_disk_can_be_left_out() {
    let rig = Rig::start();
    let machine = counting(&rig, "web");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let extra = machine.create_disk("scratch.vdi", "VDI", "Standard", 4);
    machine.power_off();
    machine.attach_as("writethrough", "SATA", 2, &extra);
    machine.start_counting();
    let refused = vrs.fail(1, ["take", &id]);
    assert!(refused.contains("SATA-2-0"), "{refused}");
    let taken = vrs.output([
        "take",
        &id,
        "--disks-only",
        "--skip-disk",
        "SATA-2-0",
        "--name",
        "two",
    ]);
    assert!(
        [Some(0), Some(3)].contains(&taken.status.code()),
        "{taken:?}"
    );
    goes_on(&machine, "after the take");
    machine.power_off();
    vrs.restore(&id, "two");
    assert_eq!(machine.attachments().len(), 2);
    assert!(extra.is_file(), "what was left out is left alone");
    machine.last_round().unwrap();
}
