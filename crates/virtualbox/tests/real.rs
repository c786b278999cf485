//! The driver and the settings on the real VirtualBox.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use uuid::Uuid;
use vrs_progress::NoProgress;
use vrs_testkit::{RIG_MACHINE_KINDS, Rig, RigMachine};
use vrs_virtualbox::{
    DeviceType, Error, ErrorKind, Frontend, HardDisk, MachineId, MachineSettings, MachineState,
    MediumId, MediumKind, SettingsEdit, VBoxManage,
};

use common::{driver, id_of};

fn settings_of(machine: &RigMachine<'_>) -> MachineSettings {
    MachineSettings::read(machine.settings_path()).unwrap()
}

fn restart_daemon(rig: &Rig) {
    for action in ["stop", "start"] {
        let svc = rig.vboxmanage().with_file_name("svc");
        assert!(
            Command::new(svc)
                .arg(action)
                .envs(rig.environment())
                .status()
                .unwrap()
                .success()
        );
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn every_kind_of_machine_is_what_its_settings_say_and_comes_back_as_it_was() {
    for kind in RIG_MACHINE_KINDS {
        eprintln!("{}", kind.name);
        let rig = Rig::start();
        let vboxmanage = driver(&rig);
        let machine = (kind.create)(&rig);
        same_status(&vboxmanage, &machine);
        same_virtualbox_snapshots(&vboxmanage, &settings_of(&machine));
        same_media(&vboxmanage, &settings_of(&machine), machine.folder());
        // VirtualBox takes the image of a linked clone from the settings of the first machine.
        if kind.name != "linked clone" {
            comes_back(&vboxmanage, &machine);
        }
    }
}

fn same_status(vboxmanage: &VBoxManage, machine: &RigMachine<'_>) {
    let settings = settings_of(machine);
    let status = vboxmanage.machine(id_of(machine)).unwrap();
    let place = |location: &str| settings.resolve(machine.folder(), location);
    assert_eq!((status.id, &status.name), (settings.id, &settings.name));
    assert_eq!(
        (&status.state, status.session),
        (&settings.resting_state(), None)
    );
    assert_eq!(status.settings_file, machine.settings_path());
    assert_eq!(
        status.current_virtualbox_snapshot,
        settings.current_virtualbox_snapshot
    );
    assert_eq!(status.state_file, settings.state_file.as_deref().map(place));
    assert_eq!(status.nvram_file, Some(place(&settings.nvram_location())));
    assert_eq!(
        status.snapshot_folder,
        Some(place(&settings.snapshot_folder))
    );
}

fn comes_back(vboxmanage: &VBoxManage, machine: &RigMachine<'_>) {
    let id = id_of(machine);
    let all = || {
        let mut status = vboxmanage.machine(id).unwrap();
        // The settings file has whole seconds only.
        status.state_changed = None;
        let mut media = vboxmanage.media().unwrap();
        media.sort_by_key(|medium| medium.id);
        (status, media, vboxmanage.virtualbox_snapshots(id).unwrap())
    };
    let before = all();
    vboxmanage.unregister(id, &NoProgress).unwrap();
    assert!(matches!(
        vboxmanage.machine(id),
        Err(Error::NoSuchMachine { .. })
    ));
    assert_eq!(
        vboxmanage
            .register(machine.settings_path(), &NoProgress)
            .unwrap(),
        id
    );
    assert_eq!(all(), before);
    assert!(
        vboxmanage
            .register(machine.settings_path(), &NoProgress)
            .is_err()
    );
}

fn same_virtualbox_snapshots(vboxmanage: &VBoxManage, settings: &MachineSettings) {
    let listed = vboxmanage.virtualbox_snapshots(settings.id).unwrap();
    let listed: Vec<_> = listed
        .into_iter()
        .map(|snapshot| (snapshot.id, snapshot.name, snapshot.description))
        .collect();
    let written = settings.virtualbox_snapshots().cloned();
    let written: Vec<_> = written
        .map(|snapshot| (snapshot.id, snapshot.name, snapshot.description))
        .collect();
    assert_eq!(listed, written);
}

fn same_media(vboxmanage: &VBoxManage, settings: &MachineSettings, folder: &Path) {
    let media = vboxmanage.media().unwrap();
    for disk in settings.all_hard_disks() {
        let medium = media.iter().find(|medium| medium.id == disk.id).unwrap();
        assert_eq!(medium.location, settings.resolve(folder, &disk.location));
        assert_eq!(
            (&medium.format, medium.access_error.as_ref()),
            (&disk.format, None)
        );
        let children: Vec<_> = disk.children.iter().map(|child| child.id).collect();
        assert_eq!(medium.children, children);
        if medium.parent.is_none() {
            assert_eq!(Some(medium.kind.settings_name()), disk.kind.as_deref());
        }
        let ids = vboxmanage.image_ids(&medium.location).unwrap();
        assert_eq!((ids.id, ids.parent), (medium.id, medium.parent));
    }
    for attachment in settings
        .all_attachments()
        .filter_map(|attachment| attachment.medium)
    {
        let medium = media.iter().find(|medium| medium.id == attachment).unwrap();
        assert!(medium.used_by.contains(&settings.id));
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn start_and_power_off() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "-power \"x\"");
    let id = id_of(&machine);
    vboxmanage.power_off(id, &NoProgress).unwrap();
    vboxmanage
        .start(id, Frontend::Headless, &NoProgress)
        .unwrap();
    let running = vboxmanage.machine(id).unwrap();
    assert_eq!(
        (running.state, running.session.as_deref()),
        (MachineState::Running, Some("headless"))
    );
    for error in [
        vboxmanage
            .start(id, Frontend::Headless, &NoProgress)
            .unwrap_err(),
        vboxmanage.unregister(id, &NoProgress).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    machine.call("controlvm", &["pause"]);
    assert_eq!(vboxmanage.machine(id).unwrap().state, MachineState::Paused);
    for _ in 0..3 {
        vboxmanage.power_off(id, &NoProgress).unwrap();
        let off = vboxmanage.machine(id).unwrap();
        assert_eq!((off.state, off.session), (MachineState::PoweredOff, None));
        vboxmanage
            .start(id, Frontend::Headless, &NoProgress)
            .unwrap();
    }
    machine.call("startvm", &["--type", "emergencystop"]);
    assert_eq!(vboxmanage.machine(id).unwrap().state, MachineState::Aborted);
    assert_eq!(settings_of(&machine).resting_state(), MachineState::Aborted);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn odd_names_are_read() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let names = [
        "a\\b\"c",
        "new\nVMState=\"running\"",
        "{11111111-2222-3333-4444-555555555500}",
        " leading ",
        "ünï-日本",
        "$x'",
    ];
    for name in names {
        let machine = RigMachine::create(&rig, name);
        machine.modify(&["--description", "a\nVMState=\"saved\"\n\"\\"]);
        machine.call(
            "snapshot",
            &["take", name, "--description", "x\"\nUUID=\"y\"\n\nz"],
        );
        let settings = settings_of(&machine);
        let status = vboxmanage.machine(id_of(&machine)).unwrap();
        assert_eq!(
            (status.name.as_str(), settings.name.as_str(), status.state),
            (name, name, MachineState::PoweredOff)
        );
        same_virtualbox_snapshots(&vboxmanage, &settings);
    }
    let listed = vboxmanage.machines().unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|machine| machine.name.as_deref().unwrap())
            .collect::<Vec<_>>(),
        names
    );
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn inaccessible_machines_are_found() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "damaged");
    let id = id_of(&machine);
    std::fs::write(machine.settings_path(), "<junk").unwrap();
    restart_daemon(&rig);
    assert_eq!(vboxmanage.machines().unwrap()[0].name, None);
    let status = vboxmanage.machine(id).unwrap();
    assert_eq!(
        (status.state, status.settings_file.as_path()),
        (MachineState::Inaccessible, machine.settings_path())
    );
    vboxmanage.unregister(id, &NoProgress).unwrap();
    let error = vboxmanage
        .register(machine.settings_path(), &NoProgress)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn what_does_not_exist_is_said_so() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let nobody = MachineId::from(Uuid::from_u128(1));
    assert_eq!(
        vboxmanage.machine(nobody).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        vboxmanage
            .unregister(nobody, &NoProgress)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        vboxmanage
            .start(nobody, Frontend::Headless, &NoProgress)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        vboxmanage
            .power_off(nobody, &NoProgress)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        vboxmanage
            .register(&rig.folder().join("none.vbox"), &NoProgress)
            .unwrap_err()
            .kind(),
        ErrorKind::Io
    );
    assert_eq!(
        vboxmanage
            .image_ids(&rig.folder().join("-none.vdi"))
            .unwrap_err()
            .kind(),
        ErrorKind::Refused
    );
    vboxmanage
        .close_medium(
            DeviceType::Disk,
            MediumId::from(Uuid::from_u128(1)),
            &NoProgress,
        )
        .unwrap();
    assert!(vboxmanage.media().unwrap().is_empty());
    let host = vboxmanage.host_info().unwrap();
    assert!(host.processor.is_some() && host.memory_mib.is_some() && host.os.is_some());
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn media_in_use_stay_and_others_are_closed() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "media");
    machine.add_disk(0, "disk.vdi", "VDI", "Standard");
    let disk = settings_of(&machine).hard_disks[0].id;
    let error = vboxmanage
        .close_medium(DeviceType::Disk, disk, &NoProgress)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code().unwrap().name()),
        (ErrorKind::Busy, "VBOX_E_OBJECT_IN_USE")
    );
    machine.attach("SATA", 0, Path::new("none"));
    vboxmanage
        .close_medium(DeviceType::Disk, disk, &NoProgress)
        .unwrap();
    assert!(vboxmanage.media().unwrap().is_empty());
    for (device, file) in [(DeviceType::Dvd, "a.iso"), (DeviceType::Floppy, "a.img")] {
        std::fs::write(rig.folder().join(file), vec![0; 1_474_560]).unwrap();
        vboxmanage
            .close_medium(device, MediumId::default(), &NoProgress)
            .unwrap();
    }
}

/// A second machine made of the first one's files: the ids in settings and images and the names of
/// differencing images change, nothing else.
#[rstest]
#[case("VDI", "Standard")]
#[case("VDI", "Fixed")]
#[case("VMDK", "Standard")]
#[case("VMDK", "Split2G")]
#[case("VHD", "Standard")]
#[case("VHD", "Fixed")]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_copy_with_other_ids_lives_beside_the_first(#[case] format: &str, #[case] variant: &str) {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "first");
    machine.add_disk(
        0,
        format!("disk.{}", format.to_lowercase()),
        format,
        variant,
    );
    machine.take_virtualbox_snapshot("one");
    machine.run_guest();
    machine.take_virtualbox_snapshot("two");
    machine.run_guest();
    let settings = settings_of(&machine);
    let seen = machine.guest_sha256s();

    let folder = rig.folder().join("machines/second");
    copy_folder(machine.folder(), &folder);
    let file = folder.join("first.vbox");
    let text = std::fs::read_to_string(&file).unwrap();
    let disks = settings.all_hard_disks().map(|disk| disk.id.uuid());
    let snapshots = settings
        .virtualbox_snapshots()
        .map(|snapshot| snapshot.id.uuid());
    let new_of: BTreeMap<Uuid, Uuid> = disks
        .chain(snapshots)
        .chain([machine.id()])
        .enumerate()
        .map(|(n, old)| (old, Uuid::from_u128(n as u128 + 1)))
        .collect();
    let mut edit = SettingsEdit::new(&text).unwrap();
    edit.replace_ids(&new_of).unwrap();
    edit.set_machine_name("second").unwrap();
    edit.set_mac_addresses(|_, _| Some("0800270000AA".to_owned()))
        .unwrap();
    let text = edit.finish();
    std::fs::write(&file, &text).unwrap();
    let new = MachineSettings::parse(&text, &file).unwrap();
    for (old, disk) in settings.all_hard_disks().zip(new.all_hard_disks()) {
        let image = new.resolve(&folder, &disk.location);
        std::fs::rename(settings.resolve(&folder, &old.location), &image).unwrap();
        vboxmanage.set_image_uuid(&image, disk.id).unwrap();
        let parent = new
            .all_hard_disks()
            .find(|other| other.children.contains(disk));
        if let Some(parent) = parent {
            vboxmanage.set_image_parent_uuid(&image, parent.id).unwrap();
        }
    }

    let id = vboxmanage.register(&file, &NoProgress).unwrap();
    assert_eq!(id.uuid(), new_of[&machine.id()]);
    same_media(&vboxmanage, &new, &folder);
    same_media(&vboxmanage, &settings, machine.folder());
    let copy = RigMachine::registered(&rig, id.uuid());
    let hashes =
        |seen: Vec<(String, String)>| seen.into_iter().map(|(_, hash)| hash).collect::<Vec<_>>();
    assert_eq!(hashes(copy.guest_sha256s()), hashes(seen.clone()));
    assert_eq!(machine.guest_sha256s(), seen);
    copy.run_guest();
    assert_eq!(machine.guest_sha256s(), seen);
}

/// A linked clone whose base is made its own by a registry that names all images.
#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_linked_clone_with_its_own_registry_stands_alone() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let original = RigMachine::create(&rig, "original");
    original.add_disk(0, "base.vdi", "VDI", "Standard");
    let snapshot = original.take_virtualbox_snapshot("base");
    let clone = original.linked_clone(snapshot, "clone");
    let media = vboxmanage.media().unwrap();
    let attached = settings_of(&clone).hardware.attachments[0].medium.unwrap();
    let image = media.iter().find(|medium| medium.id == attached).unwrap();
    let base = media
        .iter()
        .find(|medium| Some(medium.id) == image.parent)
        .unwrap();
    assert_eq!(
        (base.used_by.as_slice(), image.used_by.as_slice()),
        ([id_of(&original)].as_slice(), [id_of(&clone)].as_slice())
    );
    let seen = clone.guest_sha256s();

    vboxmanage.unregister(id_of(&clone), &NoProgress).unwrap();
    vboxmanage
        .unregister(id_of(&original), &NoProgress)
        .unwrap();
    let alone = vboxmanage
        .register(clone.settings_path(), &NoProgress)
        .unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::NotFound, "{alone}");
    let text = std::fs::read_to_string(clone.settings_path()).unwrap();
    let disk = |medium: &vrs_virtualbox::Medium, children| HardDisk {
        id: medium.id,
        location: medium.location.to_str().unwrap().to_owned(),
        format: medium.format.clone(),
        kind: medium
            .parent
            .is_none()
            .then(|| medium.kind.settings_name().to_owned()),
        children,
        ..HardDisk::default()
    };
    let mut edit = SettingsEdit::new(&text).unwrap();
    edit.set_media_registry_hard_disks(&[disk(base, vec![disk(image, Vec::new())])])
        .unwrap();
    std::fs::write(clone.settings_path(), edit.finish()).unwrap();
    vboxmanage
        .register(clone.settings_path(), &NoProgress)
        .unwrap();
    assert_eq!(clone.guest_sha256s(), seen);
    clone.run_guest();
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn settings_are_saved_without_being_changed() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "saved");
    machine.add_disk(0, "disk.vdi", "VDI", "Standard");
    let _client = machine.keep_in_memory();
    machine.take_virtualbox_snapshot("one");
    let before = std::fs::read_to_string(machine.settings_path()).unwrap();
    std::fs::write(machine.settings_path(), "lost").unwrap();
    vboxmanage
        .save_settings(id_of(&machine), &NoProgress)
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(machine.settings_path()).unwrap(),
        before
    );
}

/// Settings of version 1.20 have the nvram elsewhere than those of 1.19.
#[rstest]
#[case("1.19-linux", "default")]
#[case("1.20-linux", "recompiler")]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn the_nvram_is_where_the_settings_say(#[case] version: &str, #[case] engine: &str) {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "efi");
    machine.modify(&["--firmware", "efi", "--vm-execution-engine", engine]);
    machine.call("modifynvram", &["inituefivarstore"]);
    machine.take_virtualbox_snapshot("one");
    let settings = settings_of(&machine);
    assert_eq!(settings.settings_version, version);
    assert_eq!(settings.nvram_files().count(), 1);
    let id = id_of(&machine);
    vboxmanage.unregister(id, &NoProgress).unwrap();
    let moved: PathBuf = machine.folder().join("moved \"ü\".nvram");
    std::fs::rename(
        settings.resolve(machine.folder(), &settings.nvram_location()),
        &moved,
    )
    .unwrap();
    let text = std::fs::read_to_string(machine.settings_path()).unwrap();
    let mut edit = SettingsEdit::new(&text).unwrap();
    edit.set_nvram_path("moved \"ü\".nvram").unwrap();
    edit.replace_nvram_path(settings.nvram_files().next().unwrap(), "moved \"ü\".nvram")
        .unwrap();
    std::fs::write(machine.settings_path(), edit.finish()).unwrap();
    vboxmanage
        .register(machine.settings_path(), &NoProgress)
        .unwrap();
    assert_eq!(vboxmanage.machine(id).unwrap().nvram_file, Some(moved));
    machine.call("modifynvram", &["enrollmssignatures"]);
    vboxmanage.save_settings(id, &NoProgress).unwrap();
    assert_eq!(settings_of(&machine).nvram_files().count(), 2);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn types_of_media_are_known() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let machine = RigMachine::create(&rig, "types");
    let kinds = ["immutable", "writethrough", "multiattach", "shareable"];
    for (port, kind) in kinds.into_iter().enumerate() {
        let variant = if kind == "shareable" {
            "Fixed"
        } else {
            "Standard"
        };
        let disk = machine.create_disk(format!("{kind}.vdi"), "VDI", variant, 2);
        machine.attach_as(kind, "SATA", port, &disk);
    }
    let media = vboxmanage.media().unwrap();
    let bases = media.iter().filter(|medium| medium.parent.is_none());
    let found: Vec<_> = bases.map(|medium| medium.kind.clone()).collect();
    let expected = [
        MediumKind::Immutable,
        MediumKind::Writethrough,
        MediumKind::MultiAttach,
        MediumKind::Shareable,
    ];
    assert_eq!(found, expected);
    same_media(&vboxmanage, &settings_of(&machine), machine.folder());
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_tells_where_machines_go_and_what_packs_there_are() {
    let rig = Rig::start();
    let vboxmanage = driver(&rig);
    let folder = vboxmanage.default_machine_folder().unwrap();
    assert!(folder.is_some_and(|folder| folder.is_absolute()));
    let packs = vboxmanage.extension_packs().unwrap();
    assert!(
        packs
            .iter()
            .all(|pack| !pack.name.is_empty() && !pack.version.is_empty()),
        "{packs:?}"
    );
}
