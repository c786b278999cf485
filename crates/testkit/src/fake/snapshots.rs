//! VirtualBox snapshots: `snapshot take`, `snapshot list`.

use std::fmt::Write as _;
use std::fs;

use uuid::Uuid;

use super::answer::{
    Answer, FAILURE, Failure, INVALID_VM_STATE, OBJECT_NOT_FOUND, SESSION_MACHINE,
};
use super::clock::Moment;
use super::document::Element;
use super::execution::cannot_suspend;
use super::machine::Machine;
use super::registry::Registry;
use super::saved_state;

pub(super) const FIND: &str = "\"FindMachine(bstrMachine.raw(), pMachine.asOutParam())\" at line 344 of file VBoxManageSnapshot.cpp";
pub(super) const LOCK: &str =
    "\"LockMachine(a->session, LockType_Shared)\" at line 350 of file VBoxManageSnapshot.cpp";
pub(super) const FIND_SNAPSHOT: &str = "\"FindSnapshot(Bstr(a->argv[2]).raw(), pSnapshot.asOutParam())\" at line 537 of file VBoxManageSnapshot.cpp";
const TAKE: &str = "\"TakeSnapshot(name.raw(), desc.raw(), fPause, snapId.asOutParam(), progress.asOutParam())\" \
                    at line 487 of file VBoxManageSnapshot.cpp";
const TAKING: &str =
    "\"RTEXITCODE handleSnapshot(HandlerArg*)\" at line 495 of file VBoxManageSnapshot.cpp";

/// With it VirtualBox saves no memory.
const WITHOUT_STATE: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";

/// What a VirtualBox snapshot of a machine has that the settings keep outside `<Hardware>`.
pub(super) const PARTS: [&str; 4] = ["Hardware", "Platform", "Debugging", "Autostart"];

/// What is asked of `snapshot take`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Take<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) live: bool,
}

impl<'a> Take<'a> {
    /// The options behind the name.
    pub(super) fn parse(name: &'a str, options: &[&'a str]) -> Option<Self> {
        let take = Self {
            name,
            ..Self::default()
        };
        match *options {
            [] => Some(take),
            ["--live", ref rest @ ..] => Some(Self {
                live: true,
                ..Self::parse(name, rest)?
            }),
            ["--description", description, ref rest @ ..] => Some(Self {
                description,
                ..Self::parse(name, rest)?
            }),
            _ => None,
        }
    }
}

/// `snapshot MACHINE take NAME [--description TEXT] [--live]`
pub(super) fn take(registry: &mut Registry, name: &str, take: Take<'_>) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND),
    };
    if let Some(answer) = refusal(machine, take) {
        return answer;
    }
    let children = create_children(machine);
    let id = Uuid::new_v4();
    let state_file = state_file(machine);
    let nvram = copy_of_nvram(machine);
    let was_running = machine.is_running();
    machine.change(|settings| {
        register_children(settings, &children);
        let mut snapshot = snapshot_element(settings, id, take, state_file.as_deref());
        if let Some(nvram) = nvram {
            name_nvram(&mut snapshot, &nvram);
        }
        add_snapshot(settings, snapshot);
        let hardware = settings.child_mut("Hardware").expect("hardware");
        attach_instead(hardware, &children);
        settings.set("currentSnapshot", Some(&braced(id)));
        settings.set("currentStateModified", (!was_running).then_some("false"));
    });
    if was_running {
        machine.note_state_change();
    }
    Answer {
        stdout: format!("Snapshot taken. UUID: {id}\n"),
        ..Answer::progress()
    }
}

fn refusal(machine: &Machine, take: Take<'_>) -> Option<Answer> {
    let refused = |text: String| {
        let failure = Failure {
            text,
            code: INVALID_VM_STATE,
            component: SESSION_MACHINE,
        };
        Some(failure.answer(TAKE))
    };
    if machine.is_in_transition() {
        return refused(format!(
            "Cannot take a snapshot of the virtual machine while it is changing state (machine state: {})",
            machine.api_state()
        ));
    }
    if take.live && machine.state != "running" {
        return refused(
            "Cannot take a live snapshot of a virtual machine unless it is running.".to_owned(),
        );
    }
    machine
        .is_frozen
        .then(|| cannot_suspend().answer_after_progress("Failed to take snapshot", TAKING))
}

/// A child of every attached image that VirtualBox snapshots apply to.
fn create_children(machine: &Machine) -> Vec<(Uuid, Uuid)> {
    let parents = machine
        .hard_disks()
        .into_iter()
        .filter(|id| machine.takes_part_in_snapshots(*id));
    let create = |parent| (parent, machine.create_child(parent));
    parents.map(create).collect()
}

pub(super) fn register_children(settings: &mut Element, children: &[(Uuid, Uuid)]) {
    let folder = snapshot_folder(settings);
    for (parent, child) in children {
        let location = format!("{folder}/{{{child}}}.vdi");
        let attributes = [
            ("uuid", braced(*child)),
            ("location", location),
            ("format", "VDI".to_owned()),
        ];
        let attributes: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let disk = settings.find("HardDisk", *parent).expect("the parent");
        disk.children.push(Element::new("HardDisk", &attributes));
    }
}

fn snapshot_folder(settings: &Element) -> String {
    settings
        .attribute("snapshotFolder")
        .unwrap_or("Snapshots")
        .to_owned()
}

/// The machine's memory, unless it has none or is not to be saved.
fn state_file(machine: &Machine) -> Option<String> {
    if !machine.is_running() {
        return machine.saved_state_location.clone();
    }
    let without = machine.extra_data(WITHOUT_STATE).as_deref() == Some("1");
    (!without).then(|| saved_state::write(machine))
}

fn copy_of_nvram(machine: &Machine) -> Option<String> {
    let nvram = machine.nvram_path();
    if !nvram.exists() {
        return None;
    }
    let location = machine.new_location("nvram");
    let copy = machine.resolve(&location);
    fs::create_dir_all(copy.parent().expect("a folder")).expect("the folder of the nvram");
    fs::copy(nvram, copy).expect("room for the nvram");
    Some(location)
}

fn name_nvram(snapshot: &mut Element, location: &str) {
    let hardware = snapshot.child_mut("Hardware").expect("hardware");
    let firmware = if hardware.child("BIOS").is_some() {
        "BIOS"
    } else {
        "Firmware"
    };
    let firmware = hardware.child_or_new(firmware, &["Network"]);
    let nvram = firmware.child_or_new("NVRAM", &["SmbiosUuidLittleEndian"]);
    nvram.set("path", Some(location));
}

fn snapshot_element(
    settings: &Element,
    id: Uuid,
    take: Take<'_>,
    state_file: Option<&str>,
) -> Element {
    let (id, now) = (braced(id), Moment::now().in_settings());
    let mut attributes = vec![
        ("uuid", id.as_str()),
        ("name", take.name),
        ("timeStamp", now.as_str()),
    ];
    attributes.extend(state_file.map(|file| ("stateFile", file)));
    let mut snapshot = Element::new("Snapshot", &attributes);
    if !take.description.is_empty() {
        let description = Element::new("Description", &[]).with_text(take.description);
        snapshot.children.push(description);
    }
    let parts = settings
        .children
        .iter()
        .filter(|child| PARTS.iter().any(|part| child.is(part)));
    snapshot.children.extend(parts.cloned());
    snapshot
}

fn add_snapshot(settings: &mut Element, snapshot: Element) {
    let current: Option<Uuid> = settings
        .attribute("currentSnapshot")
        .and_then(|id| id.parse().ok());
    match current {
        None => settings.insert_before(&["Hardware"], snapshot),
        Some(current) => {
            let parent = settings.find("Snapshot", current);
            let parent = parent.expect("the current VirtualBox snapshot");
            parent
                .child_or_new("Snapshots", &[])
                .children
                .push(snapshot);
        }
    }
}

pub(super) fn attach_instead(element: &mut Element, instead: &[(Uuid, Uuid)]) {
    element.for_each("Image", &mut |image| {
        let new = instead.iter().find(|(old, _)| image.has_id(*old));
        if let Some((_, new)) = new {
            image.set("uuid", Some(&braced(*new)));
        }
    });
}

/// There is no VirtualBox snapshot of that name or UUID.
pub(super) fn not_found(machine: &Machine, snapshot: &str) -> Failure {
    let id: Option<Uuid> = snapshot.parse().ok();
    let text = match id {
        _ if machine.snapshots.is_empty() => "This machine does not have any snapshots".to_owned(),
        Some(id) => format!("Could not find a snapshot with UUID {{{id}}}"),
        None => format!("Could not find a snapshot named '{snapshot}'"),
    };
    let is_other_code = id.is_some() && !machine.snapshots.is_empty();
    Failure {
        text,
        code: if is_other_code {
            FAILURE
        } else {
            OBJECT_NOT_FOUND
        },
        component: SESSION_MACHINE,
    }
}

/// The machine's process dies while it takes a VirtualBox snapshot: the new images stay, unused.
pub(super) fn die_while_taking(registry: &mut Registry, name: &str) -> Answer {
    let Ok(machine) = registry.find(name) else {
        return Answer::silent();
    };
    let children = create_children(machine);
    machine.change(|settings| register_children(settings, &children));
    let strays = children.into_iter().map(|(_, child)| child);
    machine.strays.extend(strays);
    machine.set_state("aborted");
    let answer = Answer::error(&[
        "Failed to take snapshot",
        "Code NS_ERROR_ABORT (0x80004004) - Operation aborted (extended info not available)",
        &format!("Context: {TAKING}"),
    ]);
    Answer {
        stderr: format!("0%...NS_ERROR_ABORT\n{}", answer.stderr),
        ..answer
    }
}

/// `snapshot MACHINE list --machinereadable`
pub(super) fn list(registry: &mut Registry, name: &str) -> Answer {
    match registry.find(name) {
        Err(failure) => failure.answer(FIND),
        Ok(machine) if machine.snapshots.is_empty() => Answer {
            stdout: "This machine does not have any snapshots\n".to_owned(),
            code: 1,
            ..Answer::silent()
        },
        Ok(machine) => Answer::prints(lines(machine)),
    }
}

/// Names and descriptions are not escaped here, unlike everywhere else.
pub(super) fn lines(machine: &Machine) -> String {
    let mut text = String::new();
    let mut line = |key: String, value: &str| {
        writeln!(text, "{key}=\"{}\"", value).expect("writing to a string")
    };
    for (position, snapshot) in machine.snapshots_with_position() {
        let id = snapshot.id.to_string();
        line(format!("SnapshotName{position}"), &snapshot.name);
        line(format!("SnapshotUUID{position}"), &id);
        if let Some(description) = &snapshot.description {
            line(format!("SnapshotDescription{position}"), description);
        }
        if Some(snapshot.id) == machine.current_snapshot {
            line("CurrentSnapshotName".to_owned(), &snapshot.name);
            line("CurrentSnapshotUUID".to_owned(), &id);
            let node = format!("SnapshotName{position}");
            line("CurrentSnapshotNode".to_owned(), &node);
        }
    }
    text
}

pub(super) fn braced(id: Uuid) -> String {
    format!("{{{id}}}")
}
