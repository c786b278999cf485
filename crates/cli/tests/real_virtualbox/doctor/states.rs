//! Saved states and nvram files.

use std::fs;
use std::path::PathBuf;

use vrs_testkit::{Rig, RigMachineKind, random_bytes};

use super::ward::{Ward, overwrite};
use crate::machines::plain;

/// A machine with a snapshot of its saved state; the file of that, and what is in it.
fn saved(rig: &Rig) -> (Ward<'_>, PathBuf, Vec<u8>) {
    let machine = plain(rig, "web");
    machine.save_state();
    let ward = Ward::of(rig, machine);
    let state = PathBuf::from(ward.machine.info("VMStateFile").unwrap());
    let whole = fs::read(&state).unwrap();
    (ward, state, whole)
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_saved_state_comes_from_the_repository() {
    let rig = Rig::start();
    let (ward, state, whole) = saved(&rig);
    fs::remove_file(&state).unwrap();
    rig.reread();
    ward.does_not_start("");
    ward.finds(&["state_missing"]);
    ward.repair(&[]);
    assert!(fs::read(&state).unwrap() == whole);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_saved_state_comes_from_the_repository() {
    let rig = Rig::start();
    let (ward, state, whole) = saved(&rig);
    fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    ward.does_not_start("");
    ward.finds(&["state_damaged"]);
    let told = ward.repair(&[]);
    assert!(told.contains(".sav.damaged-"), "{told}");
    assert!(fs::read(&state).unwrap() == whole);
    // What is wrong in the middle is found when the machine is named.
    overwrite(&state, whole.len() as u64 / 2, &random_bytes(6, 64));
    ward.finds(&[]);
    let output = ward.vrs.output(["doctor", &ward.id(), "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(fs::read(&state).unwrap() == whole);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_saved_state_that_nobody_has_is_discarded_only_with_consent() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine.save_state();
    let state = PathBuf::from(ward.machine.info("VMStateFile").unwrap());
    fs::remove_file(&state).unwrap();
    rig.reread();
    ward.does_not_start("");
    ward.finds(&["state_missing"]);
    assert_eq!(ward.unallowed(), ["state_missing"]);
    ward.repair(&[&format!("state_missing:{}", ward.id())]);
    assert_eq!(ward.machine.state(), "poweroff");
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_nvram_comes_from_the_repository() {
    let rig = Rig::start();
    let ward = Ward::of(&rig, (RigMachineKind::named("EFI nvram").create)(&rig));
    let nvram = PathBuf::from(ward.machine.info("NvramFile").unwrap());
    let folder = ward.machine.folder().join("Snapshots");
    let of_snapshot = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let of_snapshot = of_snapshot.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "nvram")
    });
    let files: Vec<_> = of_snapshot.chain([nvram]).collect();
    let whole: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let complaint = ward.refused(&["modifynvram", &ward.id(), "listvars"]);
    assert!(complaint.contains("not existing"), "{complaint}");
    ward.finds(&["nvram_missing", "nvram_missing"]);
    ward.repair(&[]);
    for (file, whole) in files.iter().zip(whole) {
        assert!(fs::read(file).unwrap() == whole, "{}", file.display());
    }
    rig.run(["modifynvram", &ward.id(), "listvars"]);
}
