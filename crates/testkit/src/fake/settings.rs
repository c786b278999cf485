//! Reading a settings file into what the fake keeps of a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use roxmltree::{Document, Node};
use uuid::Uuid;

use super::answer::{FAILURE, Failure, MACHINE};
use super::machine::{Attachment, Controller, Machine, Snapshot};
use super::media::Medium;

/// Reads the settings file, or says why not as VirtualBox does.
pub(super) fn read(path: &Path) -> Result<Machine, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|_| {
        failure(&format!(
            "Runtime error opening '{shown}' for reading VERR_FILE_NOT_FOUND (File not found.)."
        ))
    })?;
    parse(path, &text)
}

/// Reads the text of the settings file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Machine, Failure> {
    let shown = path.display();
    let not_xml = || {
        failure(&format!(
            "Start tag expected, '<' not found.\nLocation: '{shown}', line 1 (0), column 1."
        ))
    };
    let document = Document::parse(text).map_err(|_| not_xml())?;
    let machine = child(document.root_element(), "Machine").ok_or_else(not_xml)?;
    Ok(Machine {
        text: text.to_owned(),
        ..of_node(path, machine)
    })
}

fn failure(text: &str) -> Failure {
    let source = "/build/reproducible-path/virtualbox-7.2.22-dfsg/src/VBox/Main/src-server/MachineImpl.cpp[706] \
                  (nsresult Machine::initFromSettings(VirtualBox*, const com::Utf8Str&, const com::Guid*, const com::Utf8Str&))";
    Failure {
        text: format!("{text}\n{source}"),
        code: FAILURE,
        component: MACHINE,
    }
}

fn of_node(path: &Path, node: Node<'_, '_>) -> Machine {
    let folder = path.parent().expect("a settings file lies in a folder");
    let text = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let resolve = |location: &str| folder.join(location);
    let hardware = child(node, "Hardware").expect("a machine has hardware");
    let saved_state = node.attribute("stateFile").map(resolve);
    let snapshot_folder = node.attribute("snapshotFolder").unwrap_or("Snapshots");
    let mut machine = Machine {
        id: uuid(node, "uuid").expect("a machine has a UUID"),
        name: text("name"),
        os_type: text("OSType"),
        settings: path.to_owned(),
        text: String::new(),
        groups: groups(node),
        snapshot_folder: resolve(snapshot_folder),
        snapshot_folder_location: snapshot_folder.to_owned(),
        description: child(node, "Description")
            .and_then(|node| node.text())
            .map(str::to_owned),
        memory_megabytes: number(hardware, "Memory", "RAMSize").unwrap_or(128),
        video_megabytes: number(hardware, "Display", "VRAMSize").unwrap_or(8),
        efi: child(hardware, "Firmware").and_then(|node| node.attribute("type")) == Some("EFI"),
        audio: audio(hardware),
        adapters: adapters(hardware),
        nvram: nvram(hardware).map(resolve),
        controllers: controllers(hardware),
        media: media(node, folder),
        snapshots: children(node, "Snapshot")
            .map(|node| snapshot(node, folder))
            .collect(),
        current_snapshot: uuid(node, "currentSnapshot"),
        state: String::new(),
        session: None,
        state_changed: state_change(&text("lastStateChange")),
        saved_state: saved_state.clone(),
        saved_state_location: node.attribute("stateFile").map(str::to_owned),
        is_frozen: false,
        strays: Vec::new(),
    };
    machine.state = match (saved_state, node.attribute("aborted")) {
        (Some(_), Some("true")) => "aborted-saved",
        (Some(_), _) => "saved",
        (None, Some("true")) => "aborted",
        (None, _) => "poweroff",
    }
    .to_owned();
    machine
}

fn state_change(time: &str) -> String {
    format!("{}.000000000", time.trim_end_matches('Z'))
}

fn audio(hardware: Node<'_, '_>) -> String {
    let enabled =
        child(hardware, "AudioAdapter").and_then(|node| node.attribute("enabled")) == Some("true");
    if enabled { "default" } else { "none" }.to_owned()
}

fn adapters(hardware: Node<'_, '_>) -> BTreeMap<u32, String> {
    let adapters = child(hardware, "Network")
        .into_iter()
        .flat_map(|node| children(node, "Adapter").collect::<Vec<_>>());
    let enabled = adapters.filter(|node| node.attribute("enabled") == Some("true"));
    let slot_and_mac = |node: Node<'_, '_>| {
        let slot = node.attribute("slot")?.parse().ok()?;
        Some((slot, node.attribute("MACAddress")?.to_owned()))
    };
    enabled.filter_map(slot_and_mac).collect()
}

fn nvram<'a>(hardware: Node<'a, '_>) -> Option<&'a str> {
    // Up to settings version 1.19 it belongs to <BIOS>, from 1.20 on to <Firmware>.
    let firmware = ["BIOS", "Firmware"];
    let mut firmware = firmware
        .into_iter()
        .filter_map(|name| child(hardware, name));
    firmware.find_map(|node| child(node, "NVRAM")?.attribute("path"))
}

fn controllers(hardware: Node<'_, '_>) -> Vec<Controller> {
    let controllers = child(hardware, "StorageControllers");
    controllers
        .into_iter()
        .flat_map(|node| {
            children(node, "StorageController")
                .map(controller)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn controller(node: Node<'_, '_>) -> Controller {
    let text = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    Controller {
        name: text("name"),
        kind: text("type"),
        ports: text("PortCount").parse().unwrap_or(1),
        attachments: children(node, "AttachedDevice").map(attachment).collect(),
    }
}

fn attachment(node: Node<'_, '_>) -> Attachment {
    let number = |name: &str| {
        node.attribute(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    };
    Attachment {
        port: number("port"),
        device: number("device"),
        is_hard_disk: node.attribute("type") == Some("HardDisk"),
        image: child(node, "Image").and_then(|node| uuid(node, "uuid")),
    }
}

fn media(machine: Node<'_, '_>, folder: &Path) -> Vec<Medium> {
    let disks = child(machine, "MediaRegistry").and_then(|node| child(node, "HardDisks"));
    let mut media = Vec::new();
    for disk in disks
        .into_iter()
        .flat_map(|node| children(node, "HardDisk").collect::<Vec<_>>())
    {
        collect_media(disk, None, folder, &mut media);
    }
    media
}

fn collect_media(node: Node<'_, '_>, parent: Option<Uuid>, folder: &Path, media: &mut Vec<Medium>) {
    let id = uuid(node, "uuid").expect("a medium has a UUID");
    media.push(Medium {
        id,
        parent,
        location: folder.join(node.attribute("location").unwrap_or_default()),
        format: node.attribute("format").unwrap_or_default().to_owned(),
        kind: node.attribute("type").unwrap_or("Normal").to_lowercase(),
        auto_reset: node.attribute("autoReset") == Some("true"),
    });
    children(node, "HardDisk").for_each(|child| collect_media(child, Some(id), folder, media));
}

fn groups(machine: Node<'_, '_>) -> Vec<String> {
    let groups = child(machine, "Groups")
        .into_iter()
        .flat_map(|node| children(node, "Group").collect::<Vec<_>>());
    groups
        .filter_map(|group| group.attribute("name"))
        .map(str::to_owned)
        .collect()
}

fn snapshot(node: Node<'_, '_>, folder: &Path) -> Snapshot {
    let nested = child(node, "Snapshots");
    let state_file = node.attribute("stateFile");
    let nvram = child(node, "Hardware").and_then(nvram);
    Snapshot {
        id: uuid(node, "uuid").expect("a VirtualBox snapshot has a UUID"),
        name: node.attribute("name").unwrap_or_default().to_owned(),
        description: child(node, "Description")
            .and_then(|node| node.text())
            .map(str::to_owned),
        images: child(node, "Hardware")
            .map(controllers)
            .unwrap_or_default()
            .iter()
            .flat_map(Controller::images)
            .collect(),
        files: state_file
            .into_iter()
            .chain(nvram)
            .map(|location| folder.join(location))
            .collect(),
        children: nested
            .into_iter()
            .flat_map(|node| children(node, "Snapshot").collect::<Vec<_>>())
            .map(|node| snapshot(node, folder))
            .collect(),
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &'static str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.tag_name().name() == name)
}

fn uuid(node: Node<'_, '_>, name: &str) -> Option<Uuid> {
    node.attribute(name)?.parse().ok()
}

fn number(node: Node<'_, '_>, element: &'static str, name: &str) -> Option<u32> {
    child(node, element)?.attribute(name)?.parse().ok()
}
