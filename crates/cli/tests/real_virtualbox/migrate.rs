//! A running machine moves to another VirtualBox, goes on there, and comes back.

use std::fs;
use std::path::Path;

use vrs_testkit::{Rig, RigMachine};

use crate::vrs::Vrs;

/// Runs what vrs restored on the other host. Its serial port writes to a file of the host before it,
/// which stands for a device that every host has: here each gets its own.
fn go_on<'rig>(rig: &'rig Rig, machine: &RigMachine<'_>) -> (RigMachine<'rig>, u32) {
    let here = RigMachine::registered(rig, machine.id());
    assert_eq!(here.state(), "saved");
    let captured = here.last_round().unwrap();
    point_serial_port_here(rig, &here, machine.rig());
    here.start_counting();
    let counts = here.counts().unwrap();
    assert!(counts.go_on_from(captured), "{counts:?} from {captured}");
    (here, captured)
}

fn point_serial_port_here(rig: &Rig, machine: &RigMachine<'_>, before: &Rig) {
    let id = machine.id().to_string();
    let settings = machine.settings_path();
    rig.run(["unregistervm", &id]);
    let text = fs::read_to_string(settings).unwrap();
    let serial = |of: &Rig| of.folder().join(format!("{id}.serial"));
    let (old, new) = (serial(before), serial(rig));
    let text = text.replace(old.to_str().unwrap(), new.to_str().unwrap());
    fs::write(settings, text).unwrap();
    rig.run(["registervm".as_ref(), settings.as_os_str()]);
}

/// Nothing can be started: VirtualBox lists no machine, and there is no settings file for it.
fn is_gone(rig: &Rig, settings: &Path, name: &str) {
    assert_eq!(rig.run(["list", "vms"]), "");
    assert!(!settings.exists());
    let started = rig.output(["startvm", name, "--type", "headless"]);
    assert!(!started.status.success());
}

fn accept(vrs: &Vrs<'_>, name: &str, options: &[&str]) -> serde_json::Value {
    let arguments = ["migrate", "--accept", name, "--yes", "--json"];
    let printed = vrs.run(arguments.iter().chain(options));
    serde_json::from_str(&printed).unwrap()
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_moves_goes_on_and_comes_back() {
    let (rig, other) = (Rig::start(), Rig::start());
    let machine = RigMachine::records_guest(&rig, "web");
    machine.start_counting();
    machine.wait_for_rounds(40);
    let here = Vrs::new(&rig);
    let there = Vrs::beside(&other, &here);

    let printed = here.run(["migrate", "web", "--yes"]);
    assert!(printed.contains("vrs migrate --accept"), "{printed}");
    is_gone(&rig, machine.settings_path(), "web");
    let listed = here.run(["vms"]);
    assert!(listed.contains("machine 'web' moved on"), "{listed}");
    let complaint = here.fail(1, ["take", "web"]);
    assert!(complaint.contains("machine 'web' moved on"), "{complaint}");

    let folder = other.folder().join("machines");
    let first = accept(&there, "web", &["--into", folder.to_str().unwrap()]);
    assert_eq!(first["portability"], serde_json::json!([]), "same computer");
    let (away, captured) = go_on(&other, &machine);
    assert!(away.folder().starts_with(other.folder()));
    away.wait_for_rounds(40);
    is_gone(&rig, machine.settings_path(), "web");

    there.run(["migrate", "--return", "web", "--yes"]);
    is_gone(&other, away.settings_path(), "web");
    let back = accept(&here, "web", &[]);
    let bytes = |stats: &serde_json::Value, key: &str| stats["stats"][key].as_u64().unwrap();
    let fetched = bytes(&back, "fetched_bytes");
    assert!(fetched < bytes(&back, "total_bytes") / 2, "{back}");
    assert!(fetched < bytes(&first, "fetched_bytes"), "{first} {back}");
    let (home, captured_away) = go_on(&rig, &away);
    assert!(captured_away > captured);
    assert_eq!(home.folder(), machine.folder());
    here.run(["check", "--read-data"]);
}
