//! What vrs does not do, and that nothing is changed then.

use vrs_testkit::Rig;

use crate::machines::{branched, plain};
use crate::observed::Observed;
use crate::vrs::Vrs;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_running_machine_is_not_restored_unless_told() {
    let rig = Rig::start();
    let machine = plain(&rig, "m");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let before = Observed::reread(&machine);
    vrs.take(&id, "first");
    machine.start_guest();
    let complaint = vrs.fail(5, ["restore", &format!("{id}@first"), "--yes"]);
    assert!(complaint.contains("--poweroff"), "{complaint}");
    assert_eq!(machine.state(), "running");
    vrs.run(["restore", &format!("{id}@first"), "--yes", "--poweroff"]);
    Observed::of(&machine).is(&before, "after the restore");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_base_image_of_a_linked_clone_is_not_changed_under_it() {
    let rig = Rig::start();
    let original = plain(&rig, "original");
    let vrs = Vrs::new(&rig);
    let id = original.id().to_string();
    vrs.take(&id, "first");
    original.run_guest();
    let snapshot = original.take_virtualbox_snapshot("base");
    let clone = original.linked_clone(snapshot, "linked");
    let (before, clone_before) = (Observed::reread(&original), Observed::reread(&clone));
    let complaint = vrs.fail(1, ["restore", &format!("{id}@first"), "--yes"]);
    assert!(
        complaint.contains("linked") && complaint.contains("vrs clone"),
        "{complaint}"
    );
    Observed::of(&original).is(&before, "the original");
    Observed::of(&clone).is(&clone_before, "the linked clone");
}

/// A file with a password for VirtualBox.
fn password_file(rig: &Rig) -> String {
    let file = rig.folder().join("password of VirtualBox");
    std::fs::write(&file, "correct horse").unwrap();
    file.to_str().unwrap().to_owned()
}

/// Debian's VirtualBox has encryption built in; Oracle's needs its extension pack for it.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn an_encrypted_image_is_told_of_and_comes_back() {
    let rig = Rig::start();
    let machine = plain(&rig, "secret");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let (image, password) = (machine.attached_path("SATA", 0), password_file(&rig));
    let shown = image.to_str().unwrap();
    let cipher = ["--cipher", "AES-XTS256-PLAIN64", "--newpasswordid", "disk"];
    let encrypt = ["encryptmedium", shown, "--newpassword", &password];
    rig.run(encrypt.iter().chain(&cipher));
    let planned = vrs.run(["take", &id, "--dry-run"]);
    assert!(
        planned.contains("encryption") && planned.contains("warning"),
        "{planned}"
    );
    let told = vrs.fail(3, ["take", &id, "--name", "first"]);
    assert!(told.contains("keep its password"), "{told}");
    let stored = std::fs::read(&image).unwrap();
    std::fs::write(&image, b"overwritten").unwrap();
    vrs.output(["restore", &format!("{id}@first"), "--yes"]);
    assert!(std::fs::read(&image).unwrap() == stored, "it comes back");
    assert_eq!(machine.state(), "poweroff");
    rig.run(["checkmediumpwd", shown, &password]);
}

/// What the refusal says is what helps.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn an_encrypted_machine_is_refused_until_it_is_decrypted() {
    let rig = Rig::start();
    let machine = plain(&rig, "secret");
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    let password = password_file(&rig);
    let encrypt = [
        "setencryption",
        "--cipher",
        "AES-256",
        "--new-password",
        &password,
        "--new-password-id",
        "all",
        "--force",
    ];
    machine.call("encryptvm", &encrypt);
    is_refused_as_encrypted(&vrs, &id);
    // Started anew, VirtualBox cannot read the machine until somebody tells the password.
    rig.reread();
    is_refused_as_encrypted(&vrs, &id);
    let tell = [
        "addpassword",
        "--password",
        &password,
        "--password-id",
        "all",
    ];
    machine.call("encryptvm", &tell);
    machine.call("encryptvm", &["setencryption", "--old-password", &password]);
    vrs.take(&id, "decrypted");
}

#[track_caller]
fn is_refused_as_encrypted(vrs: &Vrs<'_>, id: &str) {
    let planned = vrs.output(["take", id, "--dry-run"]);
    let table = String::from_utf8_lossy(&planned.stdout);
    assert_eq!(planned.status.code(), Some(1), "{planned:?}");
    assert!(
        table.contains("encryption") && table.contains("refused"),
        "{table}"
    );
    let complaint = vrs.fail(1, ["take", id]);
    assert!(
        complaint.contains("setencryption --old-password"),
        "{complaint}"
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_dry_run_changes_nothing() {
    let rig = Rig::start();
    let machine = branched(&rig);
    let vrs = Vrs::new(&rig);
    let id = machine.id().to_string();
    vrs.take(&id, "first");
    machine.run_guest();
    let before = Observed::reread(&machine);
    vrs.run(["take", &id, "--dry-run"]);
    vrs.run(["restore", &format!("{id}@first"), "--dry-run"]);
    vrs.run(["clone", &format!("{id}@first"), "--name", "x", "--dry-run"]);
    Observed::of(&machine).is(&before, "after the dry runs");
    assert_eq!(rig.run(["list", "vms"]).lines().count(), 1);
    assert_eq!(vrs.run(["list"]).matches("first").count(), 1);
}
