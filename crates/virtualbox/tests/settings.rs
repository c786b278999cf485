//! Reading the settings files that VirtualBox 7.2.22 wrote, and hostile ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::path::{Path, PathBuf};

use rstest::rstest;
use vrs_virtualbox::{DeviceKind, Error, ErrorKind, MachineSettings, MachineState};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(format!("{name}.vbox"))
}

fn settings(name: &str) -> MachineSettings {
    MachineSettings::read(&sample(name)).unwrap()
}

/// Counts in the order: base images, all hard disks, VirtualBox snapshots, attachments now.
#[rstest]
#[case("01-multi-disk-no-snapshot", "alpha", [4, 4, 0, 5], MachineState::PoweredOff)]
#[case("02-after-first-snapshot", "alpha", [4, 8, 1, 5], MachineState::PoweredOff)]
#[case("03-many-snapshots", "alpha", [4, 28, 6, 5], MachineState::PoweredOff)]
#[case("04-branching", "alpha", [4, 36, 8, 5], MachineState::PoweredOff)]
#[case("05-after-all-deleted", "alpha", [4, 4, 0, 5], MachineState::PoweredOff)]
#[case("06-writethrough-immutable-with-snapshot", "m2", [3, 6, 1, 3], MachineState::PoweredOff)]
#[case("07-linked-clone", "m1link", [0, 0, 0, 1], MachineState::PoweredOff)]
#[case("08-efi-nvram-with-snapshot", "efi1", [1, 2, 1, 1], MachineState::PoweredOff)]
#[case("09-name-with-blank", "two words", [0, 0, 1, 0], MachineState::PoweredOff)]
#[case("10-encrypted-medium-with-snapshot", "m3", [1, 2, 1, 1], MachineState::PoweredOff)]
#[case("20-running-no-snapshot", "on", [2, 2, 0, 2], MachineState::PoweredOff)]
#[case("21-running-after-live-snapshot", "on", [2, 4, 1, 2], MachineState::PoweredOff)]
#[case("22-saved-state", "on", [2, 2, 0, 2], MachineState::Saved)]
#[case("23-saved-state-plus-snapshot", "on", [2, 4, 1, 2], MachineState::Saved)]
#[case("24-restored-to-live-snapshot", "on", [2, 4, 1, 2], MachineState::Saved)]
#[case("25-adopted-state", "on", [2, 4, 1, 2], MachineState::Saved)]
#[case("26-aborted", "on", [2, 4, 1, 2], MachineState::Aborted)]
#[case("27-aborted-during-live-snapshot", "big", [1, 2, 0, 1], MachineState::Aborted)]
#[case("28-aborted-during-online-delete", "big", [1, 4, 2, 1], MachineState::Aborted)]
#[case("29-efi-running-live-snapshot", "e", [1, 2, 1, 1], MachineState::PoweredOff)]
fn reads(
    #[case] file: &str,
    #[case] name: &str,
    #[case] counts: [usize; 4],
    #[case] state: MachineState,
) {
    let settings = settings(file);
    assert_eq!(settings.name, name);
    let found = [
        settings.hard_disks.len(),
        settings.all_hard_disks().count(),
        settings.virtualbox_snapshots().count(),
        settings.hardware.attachments.len(),
    ];
    assert_eq!(found, counts);
    assert_eq!(settings.resting_state(), state);
    assert!(["1.19-linux", "1.20-linux"].contains(&settings.settings_version.as_str()));
}

#[test]
fn every_sample_is_read_by_a_test() {
    let source = include_str!("settings.rs");
    for entry in std::fs::read_dir(sample("x").parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".vbox").unwrap();
        assert!(
            source.contains(&format!("\"{stem}\"")),
            "{name} is not used"
        );
    }
}

#[test]
fn reads_the_whole_tree() {
    let settings = settings("04-branching");
    let tree: Vec<_> = settings
        .virtualbox_snapshots()
        .map(|snapshot| {
            (
                snapshot.name.as_str(),
                snapshot.children.len(),
                snapshot.description.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        tree,
        [
            ("snap1-renamed", 2, Some("new description")),
            (
                "snap two",
                1,
                Some("desc with \"quotes\"\nand a second line")
            ),
            ("snap1", 1, None),
            ("uniq", 1, None),
            ("uniq2026-11-21T03:16:18Z", 1, None),
            ("uniq", 1, Some("the current one")),
            ("", 0, None),
            ("branch-b", 0, None),
        ]
    );
    let current = settings.current_virtualbox_snapshot.unwrap();
    let last = settings.virtualbox_snapshots().last().unwrap();
    assert_eq!(
        (current, last.taken.as_deref()),
        (last.id, Some("2026-11-21T03:16:20Z"))
    );
    let disk = &settings.hard_disks[0];
    assert_eq!(
        (
            disk.children.len(),
            disk.walk().count(),
            disk.kind.as_deref()
        ),
        (2, 9, Some("Normal"))
    );
    assert_eq!(
        settings.description.as_deref(),
        Some("line one\nline two with \"quotes\" and ünïcode")
    );
}

#[test]
fn reads_attachments() {
    let settings = settings("01-multi-disk-no-snapshot");
    let disk = &settings.hardware.attachments[2];
    assert_eq!(
        (disk.controller.as_str(), disk.port, disk.device),
        ("SATA", 2, 0)
    );
    assert_eq!(
        (&disk.kind, disk.medium),
        (&DeviceKind::HardDisk, Some(settings.hard_disks[2].id))
    );
    let drive = &settings.hardware.attachments[4];
    assert_eq!(
        (drive.controller.as_str(), &drive.kind, drive.medium),
        ("IDE Controller", &DeviceKind::Dvd, None)
    );
    let adapter = &settings.hardware.network_adapters[0];
    assert_eq!((adapter.slot, adapter.enabled), (0, false));
    assert_eq!(
        (
            adapter.mac_address.as_deref(),
            adapter.attached_to.as_deref()
        ),
        (Some("080027F37546"), Some("NAT"))
    );
}

#[test]
fn reads_types_and_encryption_of_disks() {
    let kinds = settings("06-writethrough-immutable-with-snapshot");
    let kinds: Vec<_> = kinds
        .all_hard_disks()
        .map(|disk| (disk.kind.as_deref(), disk.auto_reset))
        .collect();
    let differencing = |auto_reset| (None, auto_reset);
    assert_eq!(
        kinds,
        [
            (Some("Normal"), false),
            differencing(false),
            (Some("Writethrough"), false),
            (Some("Immutable"), false),
            differencing(true),
            differencing(true),
        ]
    );
    let encrypted = settings("10-encrypted-medium-with-snapshot");
    assert_eq!(
        encrypted
            .all_hard_disks()
            .map(|disk| disk.is_encrypted)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn finds_saved_states_and_nvram() {
    let saved = settings("23-saved-state-plus-snapshot");
    assert_eq!(
        saved.state_files().collect::<Vec<_>>(),
        ["Snapshots/2026-11-21T04-09-34-029583000Z.sav"; 2]
    );
    assert_eq!(
        settings("25-adopted-state").state_file.as_deref(),
        Some("/srv/rig/w/on/copy.sav")
    );
    let efi = settings("08-efi-nvram-with-snapshot");
    assert_eq!(
        efi.nvram_files().collect::<Vec<_>>(),
        ["Snapshots/2026-11-21T03-17-18-446460000Z.nvram"]
    );
    assert_eq!(efi.nvram_location(), "08-efi-nvram-with-snapshot.nvram");
    let folder = Path::new("/vms/efi1");
    assert_eq!(
        efi.resolve(folder, &efi.nvram_location()),
        folder.join("08-efi-nvram-with-snapshot.nvram")
    );
}

#[test]
fn an_encrypted_machine_is_an_error_of_its_own() {
    let error = MachineSettings::read(&sample("11-encrypted-vm")).unwrap_err();
    let Error::Encrypted { machine, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        machine.unwrap().to_string(),
        "40ef9dd0-3607-40a7-9df6-2438d31fadd2"
    );
    assert_eq!(error.kind(), ErrorKind::Encrypted);
}

/// What the samples lack, in the form of the schema.
#[test]
fn reads_what_is_rare() {
    let text = r#"<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-windows">
  <Machine uuid="{60b68e35-fd26-488e-8d09-97ddb3cc17b1}" name="&quot;q&quot;&#10;-&#x65E5;" stateFile="Snapshots\a.sav" aborted="true">
    <MediaRegistry>
      <DVDImages><Image uuid="{11111111-2222-3333-4444-555555555551}" location="C:\iso\a.iso"/></DVDImages>
      <FloppyImages><Image uuid="{11111111-2222-3333-4444-555555555552}" location="f.img"/></FloppyImages>
    </MediaRegistry>
    <Hardware uuid="{11111111-2222-3333-4444-555555555553}">
      <Memory RAMSize="2048"/>
      <Display VRAMSize="16"/>
      <Firmware type="EFI"/>
      <BIOS><NVRAM path="x.nvram"/></BIOS>
      <TrustedPlatformModule type="v2_0" location=""/>
      <USB><DeviceFilters><DeviceFilter name="stick" active="true"/></DeviceFilters></USB>
      <Network>
        <Adapter slot="1" enabled="true" MACAddress="080027000001">
          <DisabledModes><NAT/></DisabledModes>
          <BridgedInterface name="eth0"/>
        </Adapter>
      </Network>
      <SharedFolders><SharedFolder name="share" hostPath="/home/me" writable="true"/></SharedFolders>
    </Hardware>
    <StorageControllers>
      <StorageController name="old &amp; &quot;odd&quot;" type="PIIX4">
        <AttachedDevice passthrough="true" type="DVD" port="1" device="1"><HostDrive src="/dev/sr0"/></AttachedDevice>
        <AttachedDevice type="Tape" port="0" device="0"/>
      </StorageController>
    </StorageControllers>
    <Groups><Group name="/rig/sub"/><Group name="/b"/></Groups>
    <ExtraData><ExtraDataItem name="GUI/LastCloseAction" value="PowerOff"/><ExtraDataItem name="empty"/></ExtraData>
  </Machine>
</VirtualBox>"#;
    let settings = MachineSettings::parse(text, Path::new("/vms/q/q.vbox")).unwrap();
    assert_eq!(settings.name, "\"q\"\n-日");
    assert_eq!(settings.resting_state(), MachineState::AbortedSaved);
    assert_eq!(settings.groups, ["/rig/sub", "/b"]);
    assert_eq!(
        (
            settings.dvd_images.len(),
            settings.floppy_images[0].location.as_str()
        ),
        (1, "f.img")
    );
    let hardware = &settings.hardware;
    assert_eq!(
        hardware.uuid.unwrap().to_string(),
        "11111111-2222-3333-4444-555555555553"
    );
    assert_eq!(
        (hardware.tpm.as_deref(), settings.nvram_location().as_str()),
        (Some("v2_0"), "x.nvram")
    );
    assert_eq!(
        (hardware.ram_bytes, hardware.video_ram_bytes),
        (Some(2 << 30), Some(16 << 20))
    );
    assert_eq!(hardware.firmware.as_deref(), Some("EFI"));
    let extra_data = settings.extra_data.iter().collect::<Vec<_>>();
    assert_eq!(
        extra_data,
        [(&"GUI/LastCloseAction".to_owned(), &"PowerOff".to_owned())]
    );
    assert_eq!(
        (
            &hardware.usb_filters[0],
            &hardware.shared_folders[0].host_path
        ),
        (&"stick".into(), &"/home/me".into())
    );
    assert_eq!(
        hardware.network_adapters[0].attached_to.as_deref(),
        Some("BridgedInterface")
    );
    let drive = &hardware.attachments[0];
    assert_eq!(
        (
            drive.controller.as_str(),
            drive.host_drive.as_deref(),
            drive.passthrough
        ),
        ("old & \"odd\"", Some("/dev/sr0"), true)
    );
    assert_eq!(
        hardware.attachments[1].kind,
        DeviceKind::Other("Tape".to_owned())
    );
    let state = settings.resolve(Path::new("/vms/q"), settings.state_file.as_deref().unwrap());
    assert_eq!(state, Path::new("/vms/q/Snapshots/a.sav"));
}

#[rstest]
#[case("", "not valid XML")]
#[case("<VirtualBox", "not valid XML")]
#[case("<html/>", "they begin with <html>")]
#[case("<VirtualBox/>", "they have no <Machine>")]
#[case(
    "<VirtualBox><Machine name='a'/></VirtualBox>",
    "<Machine> in line 1 has no uuid"
)]
#[case(
    "<VirtualBox>\n<Machine name='a' uuid='{x}'/></VirtualBox>",
    "<Machine> in line 2 has uuid=\"{x}\", which is no UUID"
)]
fn bad_settings_say_where_and_what(#[case] text: &str, #[case] expected: &str) {
    let error = MachineSettings::parse(text, Path::new("/vms/m/m.vbox"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(expected) && error.contains("/vms/m/m.vbox"),
        "{error}"
    );
}

#[test]
fn every_truncation_is_an_error() {
    let text = std::fs::read_to_string(sample("28-aborted-during-online-delete")).unwrap();
    let end = text.rfind("</VirtualBox>").unwrap();
    for length in (0..end).filter(|length| text.is_char_boundary(*length)) {
        assert!(
            MachineSettings::parse(&text[..length], Path::new("m.vbox")).is_err(),
            "{length}"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = MachineSettings::read(Path::new("/none/m.vbox")).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().contains("/none/m.vbox")),
        (ErrorKind::Io, true)
    );
}
