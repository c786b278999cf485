//! Each breakage is produced on a real machine, hurts VirtualBox, is repaired, and VirtualBox opens
//! the machine again.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vrs_testkit::{Rig, RigMachine, RigMachineKind, random_bytes, sha256};
use vrs_vdisk::VdiHeader;

use crate::machines::{branched, plain};
use crate::vrs::Vrs;

/// A machine with a snapshot in the repository.
struct Ward<'rig> {
    rig: &'rig Rig,
    machine: RigMachine<'rig>,
    vrs: Vrs<'rig>,
}

impl<'rig> Ward<'rig> {
    fn of(rig: &'rig Rig, machine: RigMachine<'rig>) -> Self {
        let vrs = Vrs::new(rig);
        vrs.take(&machine.id().to_string(), "first");
        Self { rig, machine, vrs }
    }

    fn plain(rig: &'rig Rig) -> Self {
        Self::of(rig, plain(rig, "web"))
    }

    fn disk(&self) -> PathBuf {
        self.machine.folder().join("disk.vdi")
    }

    /// What doctor finds, by the names that programs see.
    fn found(&self) -> Vec<String> {
        let output = self.vrs.output(["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let code = if findings.is_empty() { 0 } else { 4 };
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        let kinds = findings.iter().map(|finding| finding["problem"].as_str());
        let mut kinds: Vec<_> = kinds.map(|kind| kind.unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }

    #[track_caller]
    fn finds(&self, expected: &[&str]) {
        assert_eq!(self.found(), expected);
    }

    /// Repairs, with these consents, and finds everything in order.
    #[track_caller]
    fn repair(&self, allowed: &[&str]) -> String {
        let allowed = allowed.iter().flat_map(|key| ["--allow", key]);
        let told = self
            .vrs
            .run(["doctor", "--repair", "--yes"].into_iter().chain(allowed));
        self.finds(&[]);
        assert!(told.contains("0 left"), "{told}");
        told
    }

    /// What is left after the repairs that need no consent.
    fn unallowed(&self) -> Vec<String> {
        let output = self.vrs.output(["doctor", "--repair", "--yes"]);
        assert_eq!(output.status.code(), Some(4));
        self.found()
    }

    /// VirtualBox's complaint about a call that it must refuse.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.rig.output(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {complaint}");
        complaint
    }

    /// The machine is started and its guest writes to its disk.
    fn runs(&self) {
        self.machine.run_guest();
    }

    fn guest_sha256s(&self) -> Vec<(String, String)> {
        self.machine.guest_sha256s()
    }

    fn id(&self) -> String {
        self.machine.id().to_string()
    }
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Where the block map of VirtualBox's images begins.
const MAP_OFFSET: u64 = 1 << 20;

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_header_comes_from_the_repository_and_costs_nothing() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    // The disk grows after the snapshot.
    ward.machine.write_vdi("SATA", 0, 3, 5);
    let before = ward.guest_sha256s();
    overwrite(&ward.disk(), 0, &random_bytes(1, 512));
    let complaint = ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    assert!(
        complaint.contains("VERR_VD_VDI_INVALID_HEADER"),
        "{complaint}"
    );
    ward.finds(&["image_damaged"]);
    let told = ward.repair(&[]);
    assert!(told.contains("nothing is lost"), "{told}");
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_block_map_comes_from_the_repository() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let before = ward.guest_sha256s();
    for (garbage, what) in [(random_bytes(2, 512), "noise"), (vec![0; 16], "zeros")] {
        overwrite(&ward.disk(), MAP_OFFSET, &garbage);
        // VirtualBox does not look at the map; reading the disk fails or gives other bytes.
        let raw = rig.folder().join(format!("{what}.raw"));
        let disk = ward.disk();
        let arguments = [
            "clonemedium",
            "disk",
            disk.to_str().unwrap(),
            raw.to_str().unwrap(),
            "--format",
            "RAW",
        ];
        let read = rig.output(arguments);
        let bytes = fs::read(&raw).unwrap_or_default();
        assert!(
            !read.status.success() || sha256(&bytes) != before[0].1,
            "{what}"
        );
        if read.status.success() {
            rig.run(["closemedium", "disk", raw.to_str().unwrap(), "--delete"]);
        }
        ward.finds(&["image_damaged"]);
        ward.repair(&[]);
        assert_eq!(ward.guest_sha256s(), before, "{what}");
    }
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn blocks_that_cannot_be_placed_are_given_up_only_with_consent() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let first = ward.guest_sha256s();
    ward.machine.write_vdi("SATA", 0, 3, 5);
    overwrite(&ward.disk(), MAP_OFFSET, &random_bytes(3, 512));
    let damaged = fs::read(ward.disk()).unwrap();
    let complaint = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(complaint.status.code(), Some(4));
    let told = String::from_utf8(complaint.stdout).unwrap();
    assert!(
        told.contains("1 block that the guest wrote since cannot be placed"),
        "{told}"
    );
    assert!(
        fs::read(ward.disk()).unwrap() == damaged,
        "nothing was done"
    );
    let medium = ward.machine.attached("SATA", 0).unwrap();
    ward.repair(&[&format!("image_damaged:{medium}")]);
    assert_eq!(ward.guest_sha256s(), first);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_count_of_blocks_that_is_too_low_needs_no_repository() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let (before, whole) = (ward.guest_sha256s(), fs::read(ward.disk()).unwrap());
    // VirtualBox would put the next new block over an old one.
    overwrite(&ward.disk(), 388, &[0; 4]);
    let mut command = ward.vrs.command(["doctor", "--repair", "--yes"]);
    let output = command.env_remove("VRS_REPOSITORY").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("only the count of stored blocks is wrong"),
        "{told}"
    );
    assert!(fs::read(ward.disk()).unwrap() == whole);
    assert_eq!(ward.guest_sha256s(), before);
    ward.finds(&[]);
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
fn a_file_that_virtualbox_does_not_open_is_shown() {
    let rig = Rig::start();
    let ward = Ward::of(&rig, {
        let machine = plain(&rig, "web");
        machine.add_disk(1, "data.vmdk", "VMDK", "Standard");
        machine
    });
    overwrite(
        &ward.machine.folder().join("data.vmdk"),
        0,
        &random_bytes(5, 512),
    );
    ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    assert_eq!(ward.unallowed(), ["image_inaccessible"]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_a_cut_restore_left_is_shown() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine.write_vdi("SATA", 0, 3, 5);
    let restore = ["restore", &format!("{}@first", ward.id()), "--yes"];
    let journal = ward
        .vrs
        .state()
        .join(format!("journal/{}.journal", ward.id()));
    let is_set_aside =
        || fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"set-aside\""));
    // A restore may be over before it is seen at this step.
    let is_cut = (0..8).any(|_| {
        let mut child = ward.vrs.command(restore).spawn().unwrap();
        while !is_set_aside() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let _ = child.kill();
        child.wait().unwrap();
        !rig.run(["list", "vms"]).contains(&ward.id())
    });
    assert!(is_cut, "every restore ended before it could be killed");
    ward.finds(&["unfinished"]);
    ward.vrs.run(["recover"]);
    ward.finds(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_link_of_a_chain_comes_from_the_repository() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    machine.take_virtualbox_snapshot("two");
    let link = machine.attached_path("SATA", 0);
    let ward = Ward::of(&rig, machine);
    let middle = fs::read_dir(ward.machine.folder().join("Snapshots")).unwrap();
    let mut middle = middle
        .map(|entry| entry.unwrap().path())
        .filter(|path| *path != link);
    let middle = middle.next().unwrap();
    ward.runs();
    let before = ward.guest_sha256s();
    fs::remove_file(&middle).unwrap();
    let complaint = ward.refused(&["snapshot", &ward.id(), "take", "three"]);
    assert!(complaint.contains("VERR_FILE_NOT_FOUND"), "{complaint}");
    ward.finds(&["image_missing"]);
    let told = ward.repair(&[]);
    assert!(told.contains("nothing is lost"), "{told}");
    assert_eq!(ward.guest_sha256s(), before);
    ward.machine.take_virtualbox_snapshot("three");
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_image_that_was_written_to_comes_back_as_it_was_stored() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let ward = Ward::of(&rig, machine);
    let stored = ward.guest_sha256s();
    let leaf = ward.machine.attached_path("SATA", 0);
    ward.machine.write_vdi("SATA", 0, 3, 5);
    fs::remove_file(&leaf).unwrap();
    ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    let told = ward.repair(&[]);
    assert!(
        told.contains("what the guest wrote to it later is lost"),
        "{told}"
    );
    assert_eq!(ward.guest_sha256s(), stored);
    // One that others are based on by now fits them no more, so it is not put there unasked.
    ward.machine.take_virtualbox_snapshot("two");
    ward.runs();
    fs::remove_file(&leaf).unwrap();
    let told = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(told.status.code(), Some(4));
    assert!(!leaf.exists());
    let medium = leaf.file_stem().unwrap().to_str().unwrap();
    ward.repair(&[&format!(
        "image_missing:{}",
        medium.trim_matches(['{', '}'])
    )]);
    ward.runs();
}

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
    ward.machine.modify(&["--description", "only in memory"]);
    let settings = ward.machine.settings_path();
    let whole = fs::read(settings).unwrap();
    fs::write(settings, "").unwrap();
    ward.finds(&["settings_unreadable"]);
    ward.repair(&[]);
    assert!(fs::read(settings).unwrap() == whole);
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

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_wrong_parent_in_a_header_is_put_right_by_the_registry() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    let vrs = Vrs::new(&rig);
    let ward = Ward {
        rig: &rig,
        machine,
        vrs,
    };
    let before = ward.guest_sha256s();
    overwrite(
        &ward.machine.attached_path("SATA", 0),
        424,
        &random_bytes(4, 16),
    );
    // As soon as anybody looks at the images, VirtualBox refuses the machine.
    assert!(rig.run(["list", "hdds", "--long"]).contains("inaccessible"));
    let complaint = ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    assert!(complaint.contains("Parent UUID"), "{complaint}");
    ward.finds(&["parent_mismatch"]);
    ward.repair(&[]);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_missing_saved_state_comes_from_the_repository() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.save_state();
    let ward = Ward::of(&rig, machine);
    let state = PathBuf::from(ward.machine.info("VMStateFile").unwrap());
    let whole = fs::read(&state).unwrap();
    fs::remove_file(&state).unwrap();
    rig.reread();
    ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    ward.finds(&["state_missing"]);
    ward.repair(&[]);
    assert!(fs::read(&state).unwrap() == whole);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_damaged_saved_state_comes_from_the_repository() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    machine.save_state();
    let ward = Ward::of(&rig, machine);
    let state = PathBuf::from(ward.machine.info("VMStateFile").unwrap());
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
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

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn registry_entries_without_a_file_are_closed() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let folder = rig.folder().join("loose disks");
    fs::create_dir(&folder).unwrap();
    let create = |name: &str, more: &[&str]| {
        let path = folder.join(name);
        let file = path.to_str().unwrap();
        let create = ["createmedium", "disk", "--filename", file];
        rig.run(create.iter().chain(more));
        path
    };
    let base = create("base.vdi", &["--size", "4"]);
    let child = create("child.vdi", &["--diffparent", base.to_str().unwrap()]);
    ward.finds(&[]);
    fs::remove_file(&child).unwrap();
    fs::remove_file(&base).unwrap();
    assert_eq!(
        rig.run(["list", "hdds", "--long"])
            .matches("inaccessible")
            .count(),
        2
    );
    ward.finds(&["entry_without_file", "entry_without_file"]);
    // Perhaps the disk that it is on is not mounted.
    fs::remove_dir(&folder).unwrap();
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    fs::create_dir(&folder).unwrap();
    ward.repair(&[]);
    assert!(!rig.run(["list", "hdds"]).contains("loose disks"));
    rig.reread();
    assert!(!rig.run(["list", "hdds"]).contains("loose disks"));
}

/// Settings as VirtualBox leaves them when the machine's process dies with new images.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_machine_that_virtualbox_left_with_new_images_is_opened_again() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let before = ward.guest_sha256s();
    let settings = fs::read_to_string(ward.machine.settings_path()).unwrap();
    let left_over = ward.machine.folder().join("Snapshots/left over.vdi");
    let attach = [
        "storageattach",
        &ward.id(),
        "--storagectl",
        "SATA",
        "--port",
        "0",
    ];
    rig.run(attach.iter().chain(&["--medium", "none"]));
    let (file, disk) = (left_over.to_str().unwrap(), ward.disk());
    let create = ["createmedium", "disk", "--filename", file, "--diffparent"];
    rig.run(create.iter().chain(&[disk.to_str().unwrap()]));
    let id = VdiHeader::read(&left_over).unwrap().uuids.creation;
    let base = r#"location="disk.vdi" format="VDI" type="Normal""#;
    let child = format!(r#"<HardDisk uuid="{{{id}}}" location="{file}" format="VDI"/>"#);
    let broken = settings.replace(&format!("{base}/>"), &format!("{base}>{child}</HardDisk>"));
    assert_ne!(broken, settings);
    fs::write(ward.machine.settings_path(), broken).unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["images_left_over"]);
    ward.repair(&[]);
    assert!(!left_over.exists());
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
    rig.reread();
    ward.finds(&[]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_stray_differencing_image_is_taken_out_of_the_way_only_with_consent() {
    let rig = Rig::start();
    let machine = plain(&rig, "web");
    let snapshot = machine.take_virtualbox_snapshot("one").to_string();
    let ward = Ward::of(&rig, machine);
    let before = ward.guest_sha256s();
    let (stray, base) = (
        ward.machine.folder().join("Snapshots/stray.vdi"),
        ward.disk(),
    );
    rig.run([
        "createmedium",
        "disk",
        "--filename",
        stray.to_str().unwrap(),
        "--diffparent",
        base.to_str().unwrap(),
    ]);
    let complaint = ward.refused(&["snapshot", &ward.id(), "delete", &snapshot]);
    assert!(complaint.contains("more than one child"), "{complaint}");
    ward.finds(&["stray_image"]);
    assert_eq!(
        ward.vrs
            .output(["doctor", "--repair", "--yes"])
            .status
            .code(),
        Some(4)
    );
    ward.finds(&["stray_image"]);
    let listed = rig.run(["list", "hdds"]);
    let entry = listed
        .split("\n\n")
        .find(|entry| entry.contains("stray.vdi"))
        .unwrap();
    let id = &entry[entry.find("UUID:").unwrap() + 16..][..36];
    ward.vrs
        .fail(2, ["doctor", "--repair", "--yes", "--allow", &ward.id()]);
    ward.vrs.output([
        "doctor",
        "--repair",
        "--yes",
        "--allow",
        &format!("stray_image:{id}"),
    ]);
    let files = fs::read_dir(stray.parent().unwrap()).unwrap();
    let mut names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names.any(|name| name.starts_with("stray.vdi.stray-")),
        "the file is the user's to remove"
    );
    ward.finds(&[]);
    rig.run(["snapshot", &ward.id(), "delete", &snapshot]);
    assert_eq!(ward.guest_sha256s(), before);
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn two_machines_with_one_image_are_shown() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    let other = plain(&rig, "copy");
    let id_of = |machine: &RigMachine<'_>| machine.attached("SATA", 0).unwrap().to_string();
    let settings = fs::read_to_string(other.settings_path()).unwrap();
    let settings = settings.replace(&id_of(&other), &id_of(&ward.machine));
    fs::write(other.settings_path(), settings).unwrap();
    rig.reread();
    assert!(rig.run(["list", "vms"]).contains("<inaccessible>"));
    ward.finds(&["entries_conflict", "image_replaced", "machine_inaccessible"]);
    let output = ward.vrs.output(["doctor", "--repair", "--yes"]);
    assert_eq!(output.status.code(), Some(4));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("web.vbox") && told.contains("copy.vbox"),
        "{told}"
    );
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
    ward.refused(&["startvm", &ward.id(), "--type", "headless"]);
    ward.finds(&["state_missing"]);
    assert_eq!(ward.unallowed(), ["state_missing"]);
    ward.repair(&[&format!("state_missing:{}", ward.id())]);
    assert_eq!(ward.machine.state(), "poweroff");
    ward.runs();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn the_key_of_stateless_snapshots_is_removed_only_with_consent() {
    const KEY: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    rig.run(["setextradata", &ward.id(), KEY, "1"]);
    // VirtualBox snapshots of the running machine are silently without its memory.
    ward.machine.start_guest();
    ward.machine.call("controlvm", &["pause"]);
    ward.machine.take_virtualbox_snapshot("no memory");
    ward.machine.call("controlvm", &["poweroff"]);
    let settings = fs::read_to_string(ward.machine.settings_path()).unwrap();
    assert!(!settings.contains("stateFile"), "{settings}");
    assert_eq!(ward.unallowed(), ["stateless_snapshots"]);
    ward.repair(&[&format!("stateless_snapshots:{}", ward.id())]);
    assert!(
        rig.run(["getextradata", &ward.id(), KEY])
            .contains("No value set")
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_virtualbox_snapshot_that_only_looks_like_ours_is_shown_and_left() {
    let rig = Rig::start();
    let ward = Ward::plain(&rig);
    ward.machine
        .take_virtualbox_snapshot("vrs transient 1c2b5be6-7f0e-4a7a-8d3c-3f6c5b1f2a10");
    let snapshots = ward.machine.virtualbox_snapshots();
    assert_eq!(ward.unallowed(), ["transient_snapshot"]);
    assert_eq!(ward.machine.virtualbox_snapshots(), snapshots);
}

/// The table in the documentation lists every problem and every test here.
#[test]
fn the_table_is_complete() {
    let table = include_str!("../../../../docs/doctor.md");
    let own = include_str!("doctor.rs");
    let lines: Vec<&str> = own.lines().collect();
    let tests = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("#[ignore"));
    for test in tests {
        let name = &test[1]["fn ".len()..test[1].find('(').unwrap()];
        assert!(
            table.contains(&format!("`{name}`")),
            "{name} is not in docs/doctor.md"
        );
    }
    let problems = include_str!("../../../engine/src/doctor/finding.rs");
    let kinds = problems
        .split("=> \"")
        .skip(1)
        .filter_map(|text| text.split('"').next());
    for kind in kinds {
        assert!(
            table.contains(&format!("`{kind}`")),
            "{kind} is not in docs/doctor.md"
        );
    }
}
