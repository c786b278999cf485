//! Changing settings files without changing anything else in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use uuid::Uuid;
use vrs_virtualbox::{
    Error, HardDisk, MachineId, MachineSettings, MediumId, SettingsEdit, VirtualBoxSnapshotId,
};

const BRANCHING: &str = include_str!("samples/04-branching.vbox");
const ENCRYPTED_MEDIUM: &str = include_str!("samples/10-encrypted-medium-with-snapshot.vbox");
const LINKED_CLONE: &str = include_str!("samples/07-linked-clone.vbox");
const EFI: &str = include_str!("samples/08-efi-nvram-with-snapshot.vbox");
const SAVED: &str = include_str!("samples/23-saved-state-plus-snapshot.vbox");

fn parse(text: &str) -> MachineSettings {
    MachineSettings::parse(text, Path::new("/vms/m/m.vbox")).unwrap()
}

fn edited(text: &str, edit: impl FnOnce(&mut SettingsEdit<'_>)) -> String {
    let mut editor = SettingsEdit::new(text).unwrap();
    edit(&mut editor);
    editor.finish()
}

/// The lines that differ, as (before, after).
fn changed_lines<'a>(before: &'a str, after: &'a str) -> Vec<(&'a str, &'a str)> {
    assert_eq!(before.lines().count(), after.lines().count());
    before
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after)
        .collect()
}

fn samples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| !file.ends_with("11-encrypted-vm.vbox"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

#[test]
fn nothing_asked_nothing_changed() {
    for text in samples() {
        assert_eq!(edited(&text, |_| {}), text);
        let same = edited(&text, |edit| {
            let settings = parse(&text);
            edit.set_machine_id(settings.id).unwrap();
            edit.set_machine_name(&settings.name).unwrap();
            edit.replace_ids(&BTreeMap::new()).unwrap();
            edit.set_mac_addresses(|_, _| None).unwrap();
            for disk in settings.all_hard_disks() {
                edit.set_medium_location(disk.id, &disk.location).unwrap();
            }
        });
        assert_eq!(same, text);
    }
}

#[test]
fn name_and_id_change_one_line() {
    let id = MachineId::from(Uuid::from_u128(7));
    let text = edited(BRANCHING, |edit| {
        edit.set_machine_id(id).unwrap();
        edit.set_machine_name("-a \"b\" <ü>\n&日'").unwrap();
    });
    let changed = changed_lines(BRANCHING, &text);
    assert_eq!(changed.len(), 1);
    let name = "name=\"-a &quot;b&quot; &lt;&#xFC;&gt;&#xA;&amp;&#x65E5;&#39;\"";
    assert!(changed[0].1.contains(name), "{}", changed[0].1);
    let settings = parse(&text);
    assert_eq!(
        (settings.id, settings.name.as_str()),
        (id, "-a \"b\" <ü>\n&日'")
    );
}

#[test]
fn ids_are_replaced_everywhere_but_in_names() {
    let settings = parse(BRANCHING);
    let machine = settings.id.uuid();
    let text = BRANCHING.replace("name=\"alpha\"", &format!("name=\"{{{machine}}}\""));
    let disks = settings.all_hard_disks().map(|disk| disk.id.uuid());
    let snapshots = settings
        .virtualbox_snapshots()
        .map(|snapshot| snapshot.id.uuid());
    let all: Vec<Uuid> = disks.chain(snapshots).chain([machine]).collect();
    let new_of: BTreeMap<Uuid, Uuid> = all
        .iter()
        .map(|old| (*old, Uuid::from_u128(!old.as_u128())))
        .collect();
    let replaced = edited(&text, |edit| edit.replace_ids(&new_of).unwrap());
    assert_eq!(replaced.len(), text.len());
    let name = format!("name=\"{{{machine}}}\"");
    assert!(replaced.contains(&name));
    let rest = replaced.replace(&name, "");
    assert_eq!(
        all.iter()
            .filter(|old| rest.contains(&old.to_string()))
            .count(),
        0
    );
    let back: BTreeMap<Uuid, Uuid> = new_of.iter().map(|(old, new)| (*new, *old)).collect();
    assert_eq!(
        edited(&replaced, |edit| edit.replace_ids(&back).unwrap()),
        text
    );
}

#[test]
fn a_location_changes_alone() {
    let disk = parse(BRANCHING).hard_disks[3].id;
    let text = edited(BRANCHING, |edit| {
        edit.set_medium_location(disk, "Outside/d.vhd").unwrap()
    });
    let changed = changed_lines(BRANCHING, &text);
    assert_eq!(
        changed,
        [(
            changed[0].0,
            changed[0].0.replace("d.vhd", "Outside/d.vhd").as_str()
        )]
    );
}

#[test]
fn a_medium_goes_with_all_that_is_on_it() {
    let settings = parse(BRANCHING);
    let text = edited(BRANCHING, |edit| {
        edit.remove_medium(settings.hard_disks[0].children[0].id)
            .unwrap()
    });
    assert_eq!(
        parse(&text).hard_disks[0].children,
        settings.hard_disks[0].children[1..]
    );
    assert_eq!(parse(&text).hard_disks[1..], settings.hard_disks[1..]);
    assert!(!text.contains("\n\n"));
    let gone = SettingsEdit::new(&text)
        .unwrap()
        .remove_medium(settings.hard_disks[0].children[0].id);
    assert!(matches!(gone, Err(Error::NoSuchMedium { .. })));
}

#[test]
fn a_registry_is_rewritten_as_it_was() {
    for text in [
        BRANCHING,
        ENCRYPTED_MEDIUM,
        include_str!("samples/06-writethrough-immutable-with-snapshot.vbox"),
    ] {
        let disks = parse(text).hard_disks;
        let again = edited(text, |edit| {
            edit.set_media_registry_hard_disks(&disks).unwrap()
        });
        assert_eq!(parse(&again), parse(text));
        assert_eq!(again, text);
    }
}

#[test]
fn a_registry_is_made_where_there_is_none() {
    let base = MediumId::from(Uuid::from_u128(1));
    let disk = HardDisk {
        id: base,
        location: "Outside/a \"b\".vdi".to_owned(),
        format: "VDI".to_owned(),
        kind: Some("Normal".to_owned()),
        children: vec![HardDisk {
            id: MediumId::from(Uuid::from_u128(2)),
            location: "Snapshots/b.vdi".to_owned(),
            format: "VDI".to_owned(),
            ..HardDisk::default()
        }],
        ..HardDisk::default()
    };
    let with_images = LINKED_CLONE.replace(
        "    <Hardware>",
        "    <MediaRegistry>\n      <DVDImages/>\n    </MediaRegistry>\n    <Hardware>",
    );
    let with_crlf = LINKED_CLONE.replace('\n', "\r\n");
    for text in [LINKED_CLONE, &with_images, &with_crlf] {
        let made = edited(text, |edit| {
            edit.set_media_registry_hard_disks(std::slice::from_ref(&disk))
                .unwrap()
        });
        assert_eq!(parse(&made).hard_disks, std::slice::from_ref(&disk));
        let mut rest = made.clone();
        let start = made
            .find(if made.contains("DVDImages") {
                "\n      <HardDisks>"
            } else {
                "<MediaRegistry>"
            })
            .unwrap();
        rest.replace_range(start..start + (made.len() - text.len()), "");
        assert_eq!(rest, text);
        assert_eq!(made.contains("\r\n"), text.contains("\r\n"));
        assert_eq!(
            made.replace("\r\n", "").contains('\n'),
            !text.contains("\r\n")
        );
    }
    let made = edited(LINKED_CLONE, |edit| {
        edit.set_media_registry_hard_disks(std::slice::from_ref(&disk))
            .unwrap()
    });
    insta::assert_snapshot!(made.lines().skip(10).take(8).collect::<Vec<_>>().join("\n"), @r#"
        <Machine uuid="{6fe2264b-8bde-4824-bb73-28da1fa40b73}" name="m1link" OSType="Other_64" snapshotFolder="Snapshots" currentStateModified="false" lastStateChange="2026-11-21T03:16:23Z">
          <MediaRegistry>
            <HardDisks>
              <HardDisk uuid="{00000000-0000-0000-0000-000000000001}" location="Outside/a &quot;b&quot;.vdi" format="VDI" type="Normal">
                <HardDisk uuid="{00000000-0000-0000-0000-000000000002}" location="Snapshots/b.vdi" format="VDI"/>
              </HardDisk>
            </HardDisks>
          </MediaRegistry>
        "#);
}

#[test]
fn addresses_change_now_and_at_every_virtualbox_snapshot() {
    let mut asked = Vec::new();
    let text = edited(BRANCHING, |edit| {
        edit.set_mac_addresses(|slot, old| {
            asked.push((slot, old.to_owned()));
            Some("080027ABCDEF".to_owned())
        })
        .unwrap();
    });
    assert_eq!(asked, vec![(0, "080027F37546".to_owned()); 9]);
    assert_eq!(text, BRANCHING.replace("080027F37546", "080027ABCDEF"));
}

#[test]
fn saved_states_and_nvram_are_named_anew() {
    let old = "Snapshots/2026-11-21T04-09-34-029583000Z.sav";
    let text = edited(SAVED, |edit| {
        edit.replace_state_file(old, "Outside/a.sav").unwrap()
    });
    assert_eq!(text, SAVED.replace(old, "Outside/a.sav"));
    let none = edited(&text, |edit| edit.set_state_file(None).unwrap());
    assert_eq!(none, text.replacen(" stateFile=\"Outside/a.sav\"", "", 1));
    let again = edited(&none, |edit| edit.set_state_file(Some("b.sav")).unwrap());
    assert_eq!(
        again,
        none.replacen("<Machine ", "<Machine stateFile=\"b.sav\" ", 1)
    );
    let nvram = "Snapshots/2026-11-21T03-17-18-446460000Z.nvram";
    assert_eq!(
        edited(EFI, |edit| edit.replace_nvram_path(nvram, "n").unwrap()),
        EFI.replace(nvram, "n")
    );
}

#[test]
fn nvram_of_the_machine_is_named_wherever_the_settings_have_a_place_for_it() {
    let named = edited(EFI, |edit| edit.set_nvram_path("old.nvram").unwrap());
    assert_eq!(parse(&named).nvram_location(), "old.nvram");
    assert_eq!(parse(&named).nvram_files().count(), 2);
    let again = edited(&named, |edit| edit.set_nvram_path("new.nvram").unwrap());
    assert_eq!(again, named.replace("old.nvram", "new.nvram"));
    for bios in ["<Firmware/><BIOS/>", "<Firmware type='EFI'/>", ""] {
        let text = format!(
            "<VirtualBox><Machine uuid='{}' name='a'><Hardware>{bios}</Hardware></Machine></VirtualBox>",
            Uuid::nil()
        );
        assert_eq!(
            parse(&edited(&text, |edit| edit.set_nvram_path("n").unwrap())).nvram_location(),
            "n"
        );
    }
}

#[test]
fn odd_but_legal_writing_is_kept() {
    let id = Uuid::from_u128(5);
    let text = format!(
        "<?xml version='1.0'?>\r\n<!-- <Machine uuid=\"no\"> -->\r\n<VirtualBox>\r\n<Machine  name = 'a&#x41;\"b'\r\n\tuuid='{{{id}}}'  stateFile='x' ><X y='&quot;'/>\r\n</Machine></VirtualBox>\r\n"
    );
    let renamed = edited(&text, |edit| edit.set_machine_name("it's").unwrap());
    assert_eq!(renamed, text.replace("a&#x41;\"b", "it&#39;s"));
    let without = edited(&text, |edit| edit.set_state_file(None).unwrap());
    assert_eq!(without, text.replace("  stateFile='x'", ""));
}

#[test]
fn writing_that_cannot_be_changed_safely_is_refused() {
    let text = format!(
        "<VirtualBox><Machine uuid{}='{}' name='a'/></VirtualBox>",
        " ".repeat(300),
        Uuid::nil()
    );
    let mut edit = SettingsEdit::new(&text).unwrap();
    let refused = edit.set_machine_id(MachineId::from(Uuid::from_u128(1)));
    assert!(
        matches!(refused, Err(Error::Settings { .. })),
        "{refused:?}"
    );
    assert_eq!(edit.finish(), text);
}

proptest! {
    #[test]
    fn any_value_is_read_back_and_nothing_else_changes(
        value in any::<String>().prop_map(|value| value.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), "")),
        sample in proptest::sample::select(samples()),
        number in any::<prop::sample::Index>(),
    ) {
        let settings = parse(&sample);
        let name = edited(&sample, |edit| edit.set_machine_name(&value).unwrap());
        prop_assert_eq!(&parse(&name).name, &value);
        prop_assert_eq!(edited(&name, |edit| edit.set_machine_name(&settings.name).unwrap()), sample.clone());
        let disks: Vec<_> = settings.all_hard_disks().collect();
        if !disks.is_empty() {
            let disk = number.get(&disks);
            let moved = edited(&sample, |edit| edit.set_medium_location(disk.id, &value).unwrap());
            let read = parse(&moved);
            prop_assert_eq!(&read.all_hard_disks().find(|other| other.id == disk.id).unwrap().location, &value);
            prop_assert_eq!(edited(&moved, |edit| edit.set_medium_location(disk.id, &disk.location).unwrap()), sample);
        }
    }

    #[test]
    fn hostile_text_never_panics(text in "[<>/&'\"= a-zA-Z\u{e9}{}-]{0,200}", inner in any::<String>()) {
        for text in [text.clone(), format!("<VirtualBox><Machine {text}>{inner}</Machine></VirtualBox>")] {
            let _ = MachineSettings::parse(&text, Path::new("m.vbox"));
            if let Ok(mut edit) = SettingsEdit::new(&text) {
                let _ = edit.set_machine_name("a");
                let _ = edit.set_media_registry_hard_disks(&[HardDisk::default()]);
                let _ = edit.set_nvram_path("n");
                let _ = edit.finish();
            }
        }
    }
}

#[test]
fn a_machine_becomes_what_it_was_at_its_latest_virtualbox_snapshot() {
    let mut tried = 0;
    for text in samples() {
        let before = parse(&text);
        for made in before.virtualbox_snapshots() {
            let mut edit = SettingsEdit::new(&text).unwrap();
            let rolled_back = edit.roll_back(made.id);
            let after = edit.finish();
            if !made.children.is_empty() {
                assert!(rolled_back.is_err());
                assert_eq!(after, text);
                continue;
            }
            rolled_back.unwrap();
            let after = parse(&after);
            assert_eq!(after.hardware, made.hardware);
            assert_eq!(after.state_file, made.state_file);
            assert!(!after.is_aborted);
            assert_eq!(after.hard_disks, before.hard_disks);
            let ids = |settings: &MachineSettings| -> Vec<_> {
                settings
                    .virtualbox_snapshots()
                    .map(|made| made.id)
                    .collect()
            };
            let mut rest = ids(&before);
            rest.retain(|id| *id != made.id);
            assert_eq!(ids(&after), rest);
            let parent = before
                .virtualbox_snapshots()
                .find(|other| other.children.iter().any(|child| child.id == made.id));
            assert_eq!(
                after.current_virtualbox_snapshot,
                parent.map(|parent| parent.id)
            );
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
    let unknown = VirtualBoxSnapshotId::from(Uuid::nil());
    let mut edit = SettingsEdit::new(SAVED).unwrap();
    let error = edit.roll_back(unknown).unwrap_err().to_string();
    assert!(error.contains("have no VirtualBox snapshot"), "{error}");
}

/// As VirtualBox wrote them before it took the snapshot, but for the time.
#[test]
fn settings_forget_their_only_virtualbox_snapshot() {
    let before = include_str!("samples/01-multi-disk-no-snapshot.vbox");
    let text = include_str!("samples/02-after-first-snapshot.vbox");
    let id = parse(text).current_virtualbox_snapshot.unwrap();
    let forgotten = edited(text, |edit| edit.forget_only(id).unwrap());
    let (forgotten, before) = (parse(&forgotten), parse(before));
    assert_eq!(forgotten.hardware, before.hardware);
    assert_eq!(forgotten.hard_disks, before.hard_disks);
    assert_eq!(forgotten.virtualbox_snapshots().count(), 0);
    assert_eq!(forgotten.current_virtualbox_snapshot, None);
}

#[test]
fn settings_do_not_forget_a_virtualbox_snapshot_that_is_not_alone() {
    let refused = |text: &str| {
        let id = parse(text).current_virtualbox_snapshot.unwrap();
        let mut edit = SettingsEdit::new(text).unwrap();
        let error = edit.forget_only(id).unwrap_err().to_string();
        assert_eq!(edit.finish(), text);
        error
    };
    let several = refused(include_str!("samples/03-many-snapshots.vbox"));
    assert!(several.contains("is not their only"), "{several}");
    let kinds = refused(include_str!(
        "samples/06-writethrough-immutable-with-snapshot.vbox"
    ));
    assert!(kinds.contains("is not merged into a base image"), "{kinds}");
}
