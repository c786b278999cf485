//! A second machine beside the first.

use std::collections::BTreeSet;

use uuid::Uuid;
use vrs_testkit::{RIG_MACHINE_KINDS, Rig, RigMachine};

use crate::machines::branched;
use crate::observed::Observed;
use crate::vrs::Vrs;

/// Every UUID that a text mentions.
fn uuids(text: &str) -> BTreeSet<Uuid> {
    let is_part = |character: char| character.is_ascii_hexdigit() || character == '-';
    text.split(|character| !is_part(character))
        .filter(|word| word.len() == 36)
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn guest_hashes(machine: &RigMachine<'_>) -> Vec<String> {
    machine
        .guest_sha256s()
        .into_iter()
        .map(|(_, hash)| hash)
        .collect()
}

fn named<'rig>(rig: &'rig Rig, name: &str) -> RigMachine<'rig> {
    let listed = rig.run(["list", "vms"]);
    let line = listed
        .lines()
        .find(|line| line.starts_with(&format!("\"{name}\" ")))
        .unwrap_or_else(|| panic!("{listed}"));
    RigMachine::registered(rig, line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_clone_of_every_kind_shares_the_guests_bytes_and_no_identity() {
    for kind in RIG_MACHINE_KINDS {
        let rig = Rig::start();
        let machine = (kind.create)(&rig);
        let vrs = Vrs::new(&rig);
        let before = Observed::reread(&machine);
        vrs.take(&machine.id().to_string(), "first");
        vrs.run([
            "clone",
            &format!("{}@first", machine.id()),
            "--name",
            "the clone",
        ]);
        Observed::of(&machine).is(&before, kind.name);
        let clone = named(&rig, "the clone");
        assert_eq!(
            guest_hashes(&clone),
            guest_hashes(&machine),
            "{}",
            kind.name
        );
        let identities =
            |machine: &RigMachine<'_>| uuids(&(machine.show() + &machine.virtualbox_snapshots()));
        let common: Vec<_> = identities(&clone)
            .intersection(&identities(&machine))
            .copied()
            .collect();
        assert!(common.is_empty(), "{}: both have {common:?}", kind.name);
        assert_ne!(
            clone.info("macaddress1"),
            machine.info("macaddress1"),
            "{}",
            kind.name
        );
        assert_eq!(clone.state(), machine.state(), "{}", kind.name);
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_clone_runs_and_leaves_the_original_alone() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    vrs.take(&machine.id().to_string(), "first");
    let before = guest_hashes(&machine);
    let folder = rig.folder().join("clones");
    let folder = folder.to_str().unwrap();
    let snapshot = format!("{}@first", machine.id());
    vrs.run([
        "clone",
        &snapshot,
        "--name=-second",
        "--dir",
        folder,
        "--keep-macs",
    ]);
    let clone = named(&rig, "-second");
    assert!(clone.settings_path().starts_with(folder));
    assert_eq!(clone.info("macaddress1"), machine.info("macaddress1"));
    let first = guest_hashes(&clone);
    let serial = rig.folder().join("clone.serial");
    clone.modify(&[
        "--uart1",
        "0x3F8",
        "4",
        "--uartmode1",
        "file",
        serial.to_str().unwrap(),
    ]);
    clone.call("startvm", &["--type", "headless"]);
    let start = std::time::Instant::now();
    while !std::fs::read(&serial).is_ok_and(|text| text.contains(&b'T')) {
        assert!(start.elapsed() < std::time::Duration::from_secs(120));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    machine.modify(&["--memory", "16"]);
    clone.call("controlvm", &["poweroff"]);
    assert_ne!(guest_hashes(&clone), first, "the clone's guest writes");
    assert_eq!(guest_hashes(&machine), before, "the original's disk stays");
}
