//! Tracked machines, on file systems with reflinks: what VirtualBox does to an image between takes is noticed.

use std::fs;
use std::path::Path;

use vrs_testkit::{LoopDisk, Rig, RigMachine};

use crate::vrs::Vrs;

/// A tracked machine whose images are on the disk.
fn tracked<'rig>(rig: &'rig Rig, disk: &LoopDisk, vrs: &Vrs<'_>) -> RigMachine<'rig> {
    let machine = RigMachine::records_guest(rig, "web");
    for number in [1, 2] {
        let base = machine.base_image(number);
        let words = ["modifymedium", "disk"].map(AsRef::as_ref);
        let to = ["--move".as_ref(), disk.path().as_os_str()];
        rig.run([&words[..], &[base.as_os_str()], &to].concat());
    }
    let snapshots = disk.path().join("snapshots");
    machine.modify(&["--snapshotfolder", snapshots.to_str().unwrap()]);
    let config = vrs.folders().map(|(_, folder)| folder)[1].join("vrs");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[machines.web]\ntrack = true\n").unwrap();
    machine
}

struct Tracking {
    vouched_bytes: u64,
    read_bytes: u64,
}

/// Takes the machine. Nothing unexpected is found.
fn take(vrs: &Vrs<'_>, options: &[&str]) -> Tracking {
    let arguments = ["take", "web", "--json"].iter().chain(options);
    let report: serde_json::Value = serde_json::from_str(&vrs.run(arguments)).unwrap();
    let machine = &report["machines"][0];
    let tracking = &machine["tracking"];
    assert_eq!(tracking["notes"], serde_json::json!([]), "{report:#}");
    assert_eq!(tracking["wrong_bytes"], 0, "{report:#}");
    let images = tracking["images"].as_array().unwrap().iter();
    Tracking {
        vouched_bytes: images
            .map(|image| image["vouched_bytes"].as_u64().unwrap())
            .sum(),
        read_bytes: machine["read_bytes"].as_u64().unwrap(),
    }
}

/// Images change their size and their blocks, and go and come.
fn change_at_rest(rig: &Rig, machine: &RigMachine<'_>, vrs: &Vrs<'_>) {
    let image = machine.attached_path("IDE", 0);
    for change in [["--resize", "9"].as_slice(), &["--compact"]] {
        let words = ["modifymedium", "disk", image.to_str().unwrap()];
        rig.run([&words[..], change].concat());
        take(vrs, &[]);
    }
    let second = machine.attached_path("IDE", 1);
    machine.attach("IDE", 1, Path::new("none"));
    take(vrs, &[]);
    machine.attach("IDE", 1, &second);
    take(vrs, &[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_tracked_machine_is_taken_as_it_is() {
    for kind in ["btrfs", "xfs"] {
        let rig = Rig::start();
        let vrs = Vrs::new(&rig);
        let disk = rig.loop_disk(kind);
        let machine = tracked(&rig, &disk, &vrs);
        machine.start_counting();
        machine.wait_for_rounds(20);
        take(&vrs, &["--disks-only"]);
        machine.wait_for_rounds(5);
        let again = take(&vrs, &["--name", "again"]);
        assert!(again.vouched_bytes > 0);
        // VirtualBox merges into the base while the guest writes.
        machine.take_virtualbox_snapshot("by the user");
        machine.wait_for_rounds(5);
        take(&vrs, &["--disks-only"]);
        machine.call("snapshot", &["delete", "by the user"]);
        machine.wait_for_rounds(5);
        take(&vrs, &["--disks-only", "--name", "merged"]);
        machine.power_off();
        if kind == "xfs" {
            change_at_rest(&rig, &machine, &vrs);
        }
        let wanted = machine.guest_sha256s();
        take(&vrs, &["--name", "at rest"]);
        // The scan compares all that was vouched for with what is there.
        let scanned_bytes = take(&vrs, &["--force-read"]).read_bytes;
        let read_bytes = take(&vrs, &[]).read_bytes;
        assert!(
            read_bytes < scanned_bytes / 4,
            "{read_bytes} of {scanned_bytes}"
        );
        vrs.restore("web", "merged");
        machine.last_round().unwrap();
        vrs.restore("web", "at rest");
        assert_eq!(machine.guest_sha256s(), wanted);
        assert!(!disk.path().join(".vrs-tracking").exists());
    }
}
