//! Tracked machines: what their owner is told.

use vrs_testkit::write_unnoticed;

use crate::environment::MIB;
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
