//! What `VBoxManage` prints: no parser panics, whatever it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vrs_virtualbox::{
    HostInfo, MachineReadable, MachineStatus, Medium, RegisteredMachine, Version,
    parse_virtualbox_snapshots,
};

fuzz_target!(|text: &str| {
    let _ = MachineReadable::parse(text);
    let _ = MachineStatus::parse(text);
    let _ = RegisteredMachine::parse_list(text);
    let _ = Medium::parse_list(text);
    let _ = HostInfo::parse(text);
    let _ = Version::parse(text);
    if let Ok(snapshots) = parse_virtualbox_snapshots(text) {
        for snapshot in &snapshots {
            let parent = snapshot.parent;
            assert!(parent.is_none_or(|parent| snapshots.iter().any(|other| other.id == parent)));
        }
    }
});
