//! Settings that are gone, damaged, or do not know what they should.

use std::fs;

use vrs_testkit::Rig;

use super::ward::Ward;
use crate::machines::{branched, plain};

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_that_were_emptied_or_cut_come_back_from_virtualbox_s_copy() {
    let rig = Rig::start();
    let ward = Ward::of(&rig, branched(&rig));
    let (before, snapshots) = (ward.guest_sha256s(), ward.machine.virtualbox_snapshots());
    let settings = ward.machine.settings_path().to_owned();
    let whole = fs::read(&settings).unwrap();
    let states = [Some(0), Some(whole.len() / 2), None];
    for length in states {
        // The copy is that of a change which concerns no image.
        ward.machine.modify(&["--description", "changed"]);
        match length {
            Some(length) => fs::write(&settings, &whole[..length]).unwrap(),
            None => fs::remove_file(&settings).unwrap(),
        }
        rig.reread();
        assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
        ward.finds(&["settings_unreadable"]);
        let told = ward.repair(&[]);
        assert!(told.contains("-prev"), "{told}");
        assert_eq!(ward.machine.virtualbox_snapshots(), snapshots);
        assert_eq!(ward.guest_sha256s(), before);
    }
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_that_virtualbox_has_in_memory_are_written_by_it() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let _client = ward.machine.keep_in_memory();
    ward.machine.modify(&["--description", "only in memory"]);
    let settings = ward.machine.settings_path();
    let whole = fs::read_to_string(settings).unwrap();
    fs::write(settings, "").unwrap();
    ward.finds(&["settings_unreadable"]);
    let told = ward.repair(&[]);
    assert_eq!(fs::read_to_string(settings).unwrap(), whole, "{told}");
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_whose_copy_is_bad_too_come_from_the_repository() {
    let rig = Rig::start();
    let ward = Ward::of(&rig, branched(&rig));
    let (before, snapshots) = (ward.guest_sha256s(), ward.machine.virtualbox_snapshots());
    let settings = ward.machine.settings_path();
    fs::write(settings, "").unwrap();
    fs::write(settings.with_extension("vbox-prev"), "<VirtualBox").unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["settings_unreadable"]);
    let told = ward.repair(&[]);
    assert!(told.contains("'first'"), "{told}");
    assert_eq!(ward.machine.virtualbox_snapshots(), snapshots);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_that_do_not_know_an_attached_image_get_it_from_a_copy() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let before = ward.guest_sha256s();
    let settings = ward.machine.settings_path();
    let whole = fs::read_to_string(settings).unwrap();
    let (start, end) = (
        whole.find("<HardDisks>").unwrap(),
        whole.find("</HardDisks>").unwrap(),
    );
    let without = format!("{}<HardDisks>{}", &whole[..start], &whole[end..]);
    fs::write(settings, without).unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["machine_inaccessible", "medium_unknown"]);
    ward.repair(&[]);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_that_lost_their_virtualbox_snapshots_get_them_back() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let ward = Ward::of(&rig, machine);
    let (before, snapshots) = (ward.guest_sha256s(), ward.machine.virtualbox_snapshots());
    let settings = ward.machine.settings_path();
    let whole = fs::read_to_string(settings).unwrap();
    fs::write(settings, without_virtualbox_snapshots(&whole)).unwrap();
    rig.reread();
    // VirtualBox opens the machine and would start it from the base image.
    assert!(
        ward.machine
            .virtualbox_snapshots()
            .contains("does not have any")
    );
    assert_ne!(ward.guest_sha256s(), before);
    ward.finds(&["settings_lost_snapshots"]);
    ward.repair(&[]);
    assert_eq!(ward.machine.virtualbox_snapshots(), snapshots);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_ran_without_its_virtualbox_snapshots_is_not_turned_back_unasked() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let ward = Ward::of(&rig, machine);
    let settings = ward.machine.settings_path();
    let whole = fs::read_to_string(settings).unwrap();
    fs::write(settings, without_virtualbox_snapshots(&whole)).unwrap();
    rig.reread();
    ward.machine.write_vdi("SATA", 0, 3, 5);
    let base = ward.guest_sha256s();
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains(&format!(
            "only with --allow settings_lost_snapshots:{}",
            ward.id()
        )),
        "{told}"
    );
    assert_eq!(ward.guest_sha256s(), base);
    ward.repair(&[&format!("settings_lost_snapshots:{}", ward.id())]);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_s_copy_of_the_settings_is_not_used_if_it_is_from_before_a_virtualbox_snapshot() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine.take_virtualbox_snapshot("one");
    let settings = ward.machine.settings_path();
    let whole = fs::read_to_string(settings).unwrap();
    let earlier = without_virtualbox_snapshots(&whole);
    fs::write(settings.with_extension("vbox-prev"), &earlier).unwrap();
    fs::write(settings, "").unwrap();
    rig.reread();
    ward.finds(&["settings_unreadable"]);
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(fs::read(settings).unwrap(), b"");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("starting it with them spoils or loses"),
        "{told}"
    );
    // A snapshot that knows the image helps.
    fs::write(settings, &whole).unwrap();
    ward.vrs.take(&ward.id(), "second");
    fs::write(settings, "").unwrap();
    rig.reread();
    let told = ward.repair(&[]);
    assert!(told.contains("'second'"), "{told}");
}

/// The settings as an older VirtualBox left them: without VirtualBox snapshots and the images that
/// belong to them.
fn without_virtualbox_snapshots(settings: &str) -> String {
    let edit = |text: &str, from: &str, to: &str, with: &str| {
        let start = text.find(from).unwrap();
        let end = start + text[start..].find(to).unwrap() + to.len();
        format!("{}{with}{}", &text[..start], &text[end..])
    };
    let current = settings.find(" currentSnapshot=").unwrap();
    let end = current + settings[current..].find("}\"").unwrap() + 2;
    let text = format!("{}{}", &settings[..current], &settings[end..]);
    let text = edit(&text, "<Snapshot ", "</Snapshot>", "");
    let base = text.find("<HardDisk uuid=\"{").unwrap() + "<HardDisk uuid=\"{".len();
    let base = text[base..base + 36].to_owned();
    let disk = format!(
        "<HardDisk uuid=\"{{{base}}}\" location=\"disk.vdi\" format=\"VDI\" type=\"Normal\"/>"
    );
    let text = edit(
        &text,
        "<HardDisks>",
        "</HardDisks>",
        &format!("<HardDisks>{disk}</HardDisks>"),
    );
    let image = text.find("<Image uuid=\"{").unwrap() + "<Image uuid=\"{".len();
    format!("{}{base}{}", &text[..image], &text[image + 36..])
}
