//! The fake `VBoxManage` says what the real one says, and goes wrong as it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, Rig, SampleDisk, SampleMachine};

const MIB: u64 = 1 << 20;

/// A machine with everything that the answers tell: two disks, one of them elsewhere, VirtualBox
/// snapshots with a branch, odd names, nvram, a saved state.
fn eventful_machine(folder: &Path) -> SampleMachine {
    let mut machine = SampleMachine::builder(folder, "ev\"ent\" fül")
        .disk(SampleDisk::dynamic(5 * MIB))
        .disk(SampleDisk::fixed(2 * MIB).at(folder.join("else where/o.vdi")))
        .nvram(540_672)
        .build();
    machine.fill(0, MIB, 3 * MIB as usize, 1);
    let first = machine.take_virtualbox_snapshot("fi\"rst\" ü");
    machine.take_virtualbox_snapshot("second");
    machine.restore_virtualbox_snapshot(first);
    machine.take_virtualbox_snapshot("branch");
    machine.save_state(b"not really a state");
    machine
}

fn plain_machine(folder: &Path, name: &str) -> SampleMachine {
    SampleMachine::builder(folder, name)
        .disk(SampleDisk::dynamic(4 * MIB))
        .build()
}

/// The calls of one run. The files lie in `folder`, where both programs see them.
fn calls(folder: &Path) -> Vec<Vec<String>> {
    let eventful = eventful_machine(folder);
    let plain = plain_machine(folder, "plain");
    let twin = folder.join("twin");
    fs::create_dir(&twin).unwrap();
    let twin_settings = twin.join("twin.vbox");
    let text = fs::read_to_string(plain.settings_path()).unwrap();
    fs::write(
        &twin_settings,
        text.replace(
            &plain.id().to_string(),
            "11111111-2222-3333-4444-555555555555",
        ),
    )
    .unwrap();
    fs::copy(&plain.chain(0)[0], twin.join("disk0.vdi")).unwrap();
    let broken = folder.join("broken.vbox");
    fs::write(&broken, "junk").unwrap();
    let show = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (eventful_file, plain_file) = (show(eventful.settings_path()), show(plain.settings_path()));
    let (eventful, plain_id, disk) = (
        eventful.id().to_string(),
        plain.id().to_string(),
        show(plain.chain(0)[0].clone()),
    );
    let unknown = "99999999-2222-3333-4444-555555555555";
    let lines: Vec<Vec<&str>> = vec![
        vec!["--version"],
        vec!["list", "vms"],
        vec!["registervm", &eventful_file],
        vec!["registervm", &eventful_file],
        vec!["list", "vms"],
        vec!["showvminfo", &eventful, "--machinereadable"],
        vec!["snapshot", &eventful, "list", "--machinereadable"],
        vec!["list", "hdds"],
        vec!["list", "hdds", "--long"],
        vec!["registervm", &plain_file],
        vec!["showvminfo", "plain", "--machinereadable"],
        vec!["snapshot", &plain_id, "list", "--machinereadable"],
        vec!["registervm", twin_settings.to_str().unwrap()],
        vec!["registervm", broken.to_str().unwrap()],
        vec!["registervm", "/no/such/machine.vbox"],
        vec!["showvminfo", unknown, "--machinereadable"],
        vec!["showvminfo", "no such", "--machinereadable"],
        vec!["snapshot", "no such", "list", "--machinereadable"],
        vec!["showmediuminfo", "disk", &disk],
        vec!["showmediuminfo", "disk", unknown],
        vec!["showmediuminfo", "disk", "/no/such.vdi"],
        vec!["closemedium", "disk", &disk],
        vec!["closemedium", "disk", unknown],
        vec!["controlvm", &plain_id, "poweroff"],
        vec!["controlvm", unknown, "poweroff"],
        vec!["startvm", unknown, "--type", "headless"],
        vec!["startvm", &plain_id, "--type", "headless"],
        vec!["startvm", &plain_id, "--type", "headless"],
        vec!["list", "runningvms"],
        vec!["showmediuminfo", "disk", &disk],
        vec!["closemedium", "disk", &disk],
        vec!["unregistervm", &plain_id],
        vec!["controlvm", &plain_id, "poweroff"],
        vec!["list", "runningvms"],
        vec!["unregistervm", &plain_id],
        vec!["unregistervm", &plain_id],
        vec!["showmediuminfo", "disk", &disk],
        vec!["list", "hdds"],
        vec!["closemedium", "disk", &disk],
        vec!["unregistervm", &eventful],
        vec!["list", "hdds"],
        vec!["list", "vms"],
        vec!["internalcommands", "sethduuid", &disk, unknown],
        vec!["showmediuminfo", "disk", &disk],
        vec!["registervm", &plain_file],
        vec!["closemedium", "disk", &disk],
        vec!["registervm", &plain_file],
        vec!["list", "hdds", "--long"],
        vec!["internalcommands", "sethduuid", "/no/such.vdi", unknown],
    ];
    lines
        .iter()
        .map(|line| line.iter().map(|word| (*word).to_owned()).collect())
        .collect()
}

fn said(output: &Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let stdout: String = stdout
        .lines()
        .map(|line| comparable(line).to_owned() + "\n")
        .collect();
    format!(
        "exit {}\n{stdout}--- stderr\n{stderr}",
        output.status.code().unwrap()
    )
}

/// Without the time of a change, what the guest's screen shows, and where the registry is.
fn comparable(line: &str) -> &str {
    let ends = [
        "VMStateChangeTime=",
        "VideoMode=",
        "stored in the media registry",
    ];
    let end = ends
        .iter()
        .find_map(|end| Some(line.find(end)? + end.len()));
    end.map_or(line, |end| &line[..end])
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn the_fake_says_what_the_real_one_says() {
    let rig = Rig::start();
    let fake = FakeVBoxManage::new();
    let differences: Vec<String> = calls(rig.folder())
        .iter()
        .filter_map(|call| {
            let (real, fake) = (said(&rig.output(call)), said(&fake.output(call)));
            wait_until_unlocked(&rig, call);
            (real != fake).then(|| format!("{call:?}\nREAL: {real}\nFAKE: {fake}"))
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// After a power-off the real one keeps the machine locked for a moment.
fn wait_until_unlocked(rig: &Rig, call: &[String]) {
    if call[0] == "controlvm" {
        let show = || rig.output(["showvminfo", &call[1], "--machinereadable"]);
        while String::from_utf8_lossy(&show().stdout).contains("SessionName=") {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn every_call_of_the_script_is_known_to_the_fake() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeVBoxManage::new();
    let script = calls(folder.path());
    for call in &script {
        assert_ne!(fake.output(call).status.code(), Some(99), "{call:?}");
    }
    assert_eq!(fake.calls().len(), script.len());
}

fn registered(fake: &FakeVBoxManage, folder: &Path) -> String {
    let machine = plain_machine(folder, "m");
    fake.register(&machine.settings_path());
    machine.id().to_string()
}

#[test]
fn faults_strike_the_calls_that_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeVBoxManage::new();
    let id = registered(&fake, folder.path());
    fake.inject(&Fault::once("list", FaultKind::Locked).after(1).times(2));
    let codes: Vec<_> = (0..4)
        .map(|_| fake.output(["list", "vms"]).status.code())
        .collect();
    assert_eq!(codes, [Some(0), Some(1), Some(1), Some(0)]);
    fake.inject(&Fault::once("unregistervm", FaultKind::Lie));
    fake.run(["unregistervm", &id]);
    assert!(fake.run(["list", "vms"]).contains(&id));
    fake.inject(&Fault::once("unregistervm", FaultKind::DoneButFails));
    assert_eq!(fake.output(["unregistervm", &id]).status.code(), Some(1));
    assert_eq!(fake.run(["list", "vms"]), "");
}

#[test]
fn crashes_come_before_or_after_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeVBoxManage::new();
    let id = registered(&fake, folder.path());
    fake.inject(&Fault::once("unregistervm", FaultKind::CrashBefore));
    assert_eq!(fake.output(["unregistervm", &id]).status.code(), None);
    assert!(fake.run(["list", "vms"]).contains(&id));
    fake.inject(&Fault::once("unregistervm", FaultKind::CrashAfter));
    assert_eq!(fake.output(["unregistervm", &id]).status.code(), None);
    assert_eq!(fake.run(["list", "vms"]), "");
}

#[test]
fn answers_can_be_replaced_delayed_and_never_come() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeVBoxManage::new();
    let id = registered(&fake, folder.path());
    let say = FaultKind::Say {
        stdout: "6.1.0r1\n".to_owned(),
        stderr: String::new(),
        code: 0,
    };
    fake.inject(&Fault::once("--version", say));
    assert_eq!(fake.run(["--version"]), "6.1.0r1\n");
    let wrong = FaultKind::Replace {
        from: id.clone(),
        to: "wrong".to_owned(),
    };
    fake.inject(&Fault::once("list vms", wrong));
    assert_eq!(fake.run(["list", "vms"]), "\"m\" {wrong}\n");
    fake.inject(&Fault::once("list", FaultKind::DelayMillis(200)));
    let start = Instant::now();
    assert!(fake.run(["list", "vms"]).contains(&id));
    assert!(start.elapsed() >= Duration::from_millis(200));
    fake.inject(&Fault::once("list", FaultKind::Hang));
    let mut hanging = Command::new(fake.program())
        .args(["list", "vms"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_struck = || {
        fake.calls()
            .iter()
            .filter(|call| *call == "list vms")
            .count()
            == 3
    };
    while !is_struck() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(hanging.try_wait().unwrap().is_none());
    assert!(
        fake.run(["list", "vms"]).contains(&id),
        "a hanging call keeps nobody else out"
    );
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}

#[test]
fn settings_are_as_they_were_when_registered() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeVBoxManage::new();
    let mut machine = plain_machine(folder.path(), "m");
    fake.register(&machine.settings_path());
    machine.take_virtualbox_snapshot("later");
    let id = machine.id().to_string();
    assert!(
        !fake
            .run(["showvminfo", &id, "--machinereadable"])
            .contains("later")
    );
    fake.set_state(machine.id(), "running");
    assert!(fake.run(["list", "runningvms"]).contains(&id));
}
