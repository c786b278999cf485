//! Tracked machines: what their owner is told.

use vrs_testkit::{LoopDisk, SampleDisk, SampleMachine, write_unnoticed};

use crate::environment::{Environment, MIB, settings};
use crate::virtualbox::Computer;

/// A computer whose machine was taken and is tracked.
fn tracked() -> Computer {
    let computer = Computer::new();
    let config = computer.environment.config_file();
    computer
        .environment
        .write(&config, "[machines.web]\ntrack = true\n");
    let taken = computer.succeeds(&["take", "web", "--name", "first"]);
    assert!(taken.contains("a VirtualBox snapshot stays"), "{taken}");
    computer
}

#[test]
fn a_tracker_that_lied_is_a_warning() {
    let mut computer = tracked();
    let base = computer.machine.chain(0).pop().unwrap();
    let record = format!("state/tracking/{}.record", computer.machine.id());
    let record = computer.environment.path().join(record);
    let before = computer.machine.guest_bytes(0);
    // In the last block.
    let at = std::fs::metadata(&base).unwrap().len() - 9000;
    write_unnoticed(&record, &base, at, b"nobody knows");
    let guest = computer.machine.guest_bytes(0);
    assert!(guest != before);
    // It is believed, until somebody looks.
    computer.succeeds(&["take", "web", "--name", "misled"]);
    let scanned = computer.run(&["take", "web", "--name", "scanned", "--force-read"]);
    assert_eq!(scanned.code, 3, "{}", scanned.stderr);
    assert!(
        scanned
            .stdout
            .contains("\n  tracking: all is read, to check"),
        "{}",
        scanned.stdout
    );
    let (told, rest) = scanned.stderr.split_once(" after ").unwrap();
    let (time, rest) = rest.split_once(' ').unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    insta::assert_snapshot!(format!("{told} after TIME {rest}"), @"warning: tracking was wrong about 524288 bytes of machine 'web': they changed without a sign of it, as when a program writes to an image behind VirtualBox's back, or by a bug of vrs; this snapshot was read in whole and is right, but those of the machine that were taken after TIME may hold older data there: delete them with `vrs delete`; tracking begins anew, and if this happens again, set `track = false`");
    assert!(!record.exists());
    for (name, wanted) in [("misled", &before), ("scanned", &guest)] {
        computer.succeeds(&["restore", &format!("web@{name}"), "--yes"]);
        assert!(computer.machine.guest_bytes(0) == *wanted, "{name}");
    }
    computer.machine.fill(0, 0, MIB, 5);
    let anew = computer.succeeds(&["take", "web"]);
    assert!(anew.contains("a VirtualBox snapshot stays"), "{anew}");
}

/// Borg has no chunks to take over: tracking ends what it finds, says so, and what is stored is right.
#[test]
fn a_borg_repository_gets_all_of_a_tracked_machine() {
    const NOTE: &str = "this kind of repository reads images in whole";
    const DELETED: &str = "which an earlier take left for tracking, is deleted";
    let computer = tracked();
    let id = computer.machine.id();
    let location = format!(
        "borg:{}",
        computer.environment.path().join("borg").display()
    );
    let borg = |arguments: &[&str]| {
        let mut command = computer.command(arguments);
        command
            .env("VRS_REPOSITORY", &location)
            .arg("--no-progress");
        let run = computer.environment.finish(command);
        let ended = (run.code, run.stderr.as_str());
        assert_eq!(ended, (0, ""), "{arguments:?}: {}", run.stdout);
        run.stdout
    };
    borg(&["init"]);
    let mut guests = Vec::new();
    let mut told = Vec::new();
    // The guest writes to a block that it has, and to a new one.
    let mut take = |name: &'static str, options: &[&str]| {
        for at in [MIB / 2, 3 * MIB] {
            computer
                .virtualbox
                .write_as_guest(id, 0, at as u64, name.as_bytes());
        }
        told.push(borg(&[&["take", "web", "--name", name], options].concat()));
        guests.push((name, computer.virtualbox.guest_bytes(id, 0)));
        let listed = computer
            .virtualbox
            .output(["snapshot", "web", "list", "--machinereadable"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(!listed.contains("vrs tracker"), "{name}: {listed}");
    };
    computer
        .virtualbox
        .run(["startvm", "web", "--type", "headless"]);
    take("running", &["--memory"]);
    computer.virtualbox.run(["controlvm", "web", "poweroff"]);
    take("at rest", &[]);
    for (told, (name, _)) in told.iter().zip(&guests) {
        assert!(told.contains(NOTE), "{name}: {told}");
        let is_first = *name == "running";
        assert_eq!(told.contains(DELETED), is_first, "{name}: {told}");
    }
    for (name, guest) in &guests {
        borg(&["restore", &format!("web@{name}"), "--yes"]);
        let restored = computer.virtualbox.guest_bytes(id, 0);
        assert!(restored == *guest, "{name}");
    }
    // The other repository begins anew.
    for is_tracked in [false, true] {
        let json = computer.run(&["take", "web", "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let tracking = &json["machines"][0]["tracking"];
        let images = tracking["images"].as_array().unwrap();
        assert_eq!(images.len(), usize::from(is_tracked), "{tracking:#}");
        assert_eq!(tracking["notes"], serde_json::json!([]));
    }
}

#[test]
#[ignore = "mounts file systems, as root"]
fn a_borg_repository_leaves_the_clones_of_another_alone() {
    let disk = LoopDisk::mount("xfs", "");
    let environment = Environment::with_repository();
    let config = environment.config_file();
    environment.write(&config, "[machines.web]\ntrack = true\n");
    let mut machine = SampleMachine::builder(disk.path(), "web")
        .disk(SampleDisk::dynamic(8 * MIB as u64))
        .build();
    machine.fill(0, 0, 6 * MIB, 7);
    environment.succeeds(&["take", &settings(&machine)]);
    let clones = || {
        let files = std::fs::read_dir(machine.folder().join(".vrs-tracking")).unwrap();
        files.map(|file| file.unwrap().path()).collect::<Vec<_>>()
    };
    let kept = clones();
    assert_eq!(kept.len(), 1);
    let location = format!("borg:{}", environment.path().join("borg").display());
    for arguments in [&["init"][..], &["take", &settings(&machine)]] {
        let mut command = environment.command(arguments);
        command.env("VRS_REPOSITORY", &location);
        let run = environment.finish(command);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    assert_eq!(clones(), kept);
    machine.fill(0, MIB as u64, 9000, 8);
    let again = environment.json(&["take", &settings(&machine)]);
    let tracking = &again["machines"][0]["tracking"];
    assert_eq!(tracking["notes"], serde_json::json!([]));
    assert_eq!(tracking["images"].as_array().unwrap().len(), 1);
}
