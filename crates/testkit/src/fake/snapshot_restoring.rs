//! `snapshot restore`.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::answer::{Answer, Failure, INVALID_VM_STATE, SESSION_MACHINE};
use super::document::Element;
use super::machine::{Machine, Snapshot};
use super::registry::Registry;
use super::snapshots::{
    FIND, FIND_SNAPSHOT, PARTS, attach_instead, braced, not_found, register_children,
};

const RESTORE: &str = "\"RestoreSnapshot(pSnapshot, pProgress.asOutParam())\" at line 560 of file VBoxManageSnapshot.cpp";

/// `snapshot MACHINE restore NAME-OR-UUID`
pub(super) fn restore(registry: &mut Registry, name: &str, snapshot: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND),
    };
    let Some(node) = machine.snapshot(snapshot).cloned() else {
        return not_found(machine, snapshot).answer(FIND_SNAPSHOT);
    };
    let answer = match refusal(machine) {
        Some(answer) => answer,
        None => {
            put_back(machine, &node);
            Answer::progress()
        }
    };
    Answer {
        stdout: format!("Restoring snapshot '{}' ({})\n", node.name, node.id),
        ..answer
    }
}

fn refusal(machine: &Machine) -> Option<Answer> {
    let state = machine.api_state();
    let text = if machine.is_in_transition() {
        format!(
            "Cannot restore a snapshot of the machine while it is changing the state (machine state: {state})"
        )
    } else if machine.is_running() {
        format!("Cannot delete the current state of the running machine (machine state: {state})")
    } else {
        return None;
    };
    let failure = Failure {
        text,
        code: INVALID_VM_STATE,
        component: SESSION_MACHINE,
    };
    Some(failure.answer(RESTORE))
}

/// Makes new images on those of the VirtualBox snapshot, and gives up the current ones.
fn put_back(machine: &mut Machine, node: &Snapshot) {
    let discarded = differencing_images(machine);
    let saved_state = machine.saved_state.clone();
    let bases = node
        .images
        .iter()
        .filter(|id| machine.medium(**id).is_some() && machine.takes_part_in_snapshots(**id));
    let children: Vec<(Uuid, Uuid)> = bases.map(|id| (*id, machine.create_child(*id))).collect();
    put_nvram_back(machine, node);
    machine.change(|settings| {
        for (id, _) in &discarded {
            settings.replace("HardDisk", *id, &mut |_| Vec::new());
        }
        register_children(settings, &children);
        let snapshot = settings.find("Snapshot", node.id);
        let snapshot = snapshot.expect("the VirtualBox snapshot").clone();
        take_over(settings, &snapshot);
        let hardware = settings.child_mut("Hardware").expect("hardware");
        attach_instead(hardware, &children);
        settings.set("currentSnapshot", Some(&braced(node.id)));
        settings.set("currentStateModified", Some("false"));
        settings.set("stateFile", snapshot.attribute("stateFile"));
        settings.set("lastStateChange", snapshot.attribute("timeStamp"));
        settings.set("aborted", None);
    });
    let is_saved = machine.saved_state.is_some();
    machine.put_into_state(if is_saved { "saved" } else { "poweroff" });
    let used = machine.saved_states();
    let images = discarded.into_iter().map(|(_, location)| location);
    for file in images.chain(saved_state.filter(|file| !used.contains(file))) {
        fs::remove_file(file).expect("a file of the current state");
    }
}

/// The attached images that hold nothing but what was written since the last VirtualBox snapshot.
fn differencing_images(machine: &Machine) -> Vec<(Uuid, PathBuf)> {
    let attached = machine.hard_disks().into_iter();
    let attached = attached.filter(|id| machine.takes_part_in_snapshots(*id));
    let media = attached.filter_map(|id| machine.medium(id));
    let differencing = media.filter(|medium| medium.parent.is_some());
    differencing
        .map(|medium| (medium.id, medium.location.clone()))
        .collect()
}

/// The hardware, but for the place of the nvram.
fn take_over(settings: &mut Element, snapshot: &Element) {
    let is_part = |child: &Element| PARTS.iter().any(|part| child.is(part));
    let nvram = nvram(settings).and_then(|nvram| nvram.attribute("path").map(str::to_owned));
    let place = settings.children.iter().position(is_part);
    settings.children.retain(|child| !is_part(child));
    let parts = snapshot.children.iter().filter(|child| is_part(child));
    let place = place.expect("hardware");
    settings.children.splice(place..place, parts.cloned());
    if let Some(put_back) = self::nvram(settings) {
        put_back.set("path", nvram.as_deref());
    }
}

fn nvram(element: &mut Element) -> Option<&mut Element> {
    let hardware = element.child_mut("Hardware")?;
    let firmware = ["BIOS", "Firmware"];
    let firmware = firmware
        .into_iter()
        .find(|name| hardware.child(name).is_some());
    hardware.child_mut(firmware?)?.child_mut("NVRAM")
}

fn put_nvram_back(machine: &Machine, node: &Snapshot) {
    let is_nvram = |file: &&PathBuf| file.extension().is_some_and(|end| end == "nvram");
    if let Some(kept) = node.files.iter().find(is_nvram) {
        let own: &Path = &machine.nvram_path();
        fs::copy(kept, own).expect("room for the nvram");
    }
}
