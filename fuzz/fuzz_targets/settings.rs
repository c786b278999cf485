//! A settings file: reading it never panics; where an edit succeeds, what it set is read back and
//! undoing it gives the file as it was.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vrs_virtualbox::{MachineSettings, MediumId, SettingsEdit};

fuzz_target!(|text: &str| {
    let file = Path::new("/machines/m/m.vbox");
    let Ok(settings) = MachineSettings::parse(text, file) else {
        return;
    };
    let read = |text: &str| MachineSettings::parse(text, file).expect("an edited file is readable");
    let mut edit = SettingsEdit::new(text).expect("a readable file can be edited");
    edit.replace_ids(&BTreeMap::new()).ok();
    assert_eq!(edit.clone().finish(), text);
    if edit.set_machine_name("\"new\" <&>\n日").is_ok() {
        assert_eq!(read(&edit.clone().finish()).name, "\"new\" <&>\n日");
    }
    if let Some(disk) = settings.all_hard_disks().next()
        && edit.set_medium_location(disk.id, "'elsewhere'").is_ok()
    {
        let moved = read(&edit.clone().finish());
        assert_eq!(
            moved
                .all_hard_disks()
                .find(|other| other.id == disk.id)
                .map(|disk| disk.location.as_str()),
            Some("'elsewhere'")
        );
    }
    if edit.set_nvram_path("an.nvram").is_ok() {
        assert_eq!(read(&edit.clone().finish()).nvram_location(), "an.nvram");
    }
    if edit
        .set_media_registry_hard_disks(&settings.hard_disks)
        .is_ok()
    {
        let kept: Vec<MediumId> = read(&edit.clone().finish())
            .all_hard_disks()
            .map(|disk| disk.id)
            .collect();
        assert!(
            kept.into_iter()
                .eq(settings.all_hard_disks().map(|disk| disk.id))
        );
    }
    for location in settings.state_files().chain(settings.nvram_files()) {
        let _ = settings.resolve(Path::new("/machines/m"), location);
    }
});
