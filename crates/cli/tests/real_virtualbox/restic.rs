//! Stock restic and VBoxManage bring a machine back without vrs, on another computer's VirtualBox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vrs_testkit::{RIG_MACHINE_KINDS, Rig, RigMachine};

use crate::vrs::Vrs;

pub fn restic(vrs: &Vrs<'_>, arguments: &[&str]) -> String {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--quiet"]).args(arguments);
    command
        .env("RESTIC_REPOSITORY", vrs.repository())
        .env("RESTIC_PASSWORD_FILE", vrs.password_file());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "restic {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one machine's settings file in a folder of machines.
pub fn settings_in(machines: &Path) -> PathBuf {
    let folders = fs::read_dir(machines)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = folders
        .filter(|folder| !folder.ends_with(".vrs"))
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut files = files.map(|entry| entry.unwrap().path());
    files
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "vbox")
        })
        .unwrap()
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_of_every_kind_comes_back_with_stock_tools() {
    for kind in RIG_MACHINE_KINDS {
        let rig = Rig::start();
        let machine = (kind.create)(&rig);
        let vrs = Vrs::new(&rig);
        let (hashes, snapshots) = (machine.guest_sha256s(), machine.virtualbox_snapshots());
        let state = machine.state();
        vrs.take(&machine.id().to_string(), "first");
        restic(&vrs, &["check", "--read-data"]);
        let other = Rig::start();
        let target = other.folder().join("restored");
        restic(
            &vrs,
            &["restore", "latest", "--target", target.to_str().unwrap()],
        );
        other.run(["registervm".as_ref(), settings_in(&target).as_os_str()]);
        let restored = RigMachine::registered(&other, machine.id());
        assert_eq!(restored.guest_sha256s(), hashes, "{}", kind.name);
        assert_eq!(restored.virtualbox_snapshots(), snapshots, "{}", kind.name);
        assert_eq!(restored.state(), state, "{}", kind.name);
    }
}
