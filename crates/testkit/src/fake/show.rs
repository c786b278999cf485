//! What `showvminfo --machinereadable` tells about a machine. Whatever vrs does not care about is
//! as for a machine with default settings.

use std::fmt::Write as _;
use std::path::Path;

use super::machine::{Attachment, Controller, Machine};
use super::registry::Registry;
use super::snapshots;

pub(super) fn describe(registry: &Registry, machine: &Machine) -> String {
    let mut text = head(machine);
    for (number, controller) in machine.controllers.iter().enumerate() {
        text += &controller_head(number, controller);
    }
    for controller in &machine.controllers {
        text += &controller_slots(registry, machine, controller);
    }
    text += &adapters(machine);
    text += &tail(machine);
    text
}

fn head(machine: &Machine) -> String {
    let folder = machine.folder();
    let nvram = machine.nvram_path();
    let groups = if machine.groups.is_empty() {
        "/".to_owned()
    } else {
        machine.groups.join(",")
    };
    let firmware = if machine.efi { "EFI" } else { "BIOS" };
    let mut text = format!(
        "name={}\nencryption=\"disabled\"\ngroups=\"{groups}\"\nplatformArchitecture=\"x86\"\nostype=\"{}\"\nUUID=\"{id}\"\n\
         CfgFile={}\nSnapFldr={}\nLogFldr={}\nhardwareuuid=\"{id}\"\nmemory={}\npagefusion=\"off\"\nvram={}\n\
         cpuexecutioncap=100\ncpu-profile=\"host\"\nchipset=\"piix3\"\nfirmware=\"{firmware}\"\n",
        quoted(&machine.name),
        os_type(&machine.os_type),
        quoted_path(&machine.settings),
        quoted_path(&machine.snapshot_folder),
        quoted_path(&folder.join("Logs")),
        machine.memory_megabytes,
        machine.video_megabytes,
        id = machine.id,
    );
    text += include_str!("showvminfo/processor.txt");
    text += &format!("NvramFile={}\n", quoted_path(&nvram));
    text += include_str!("showvminfo/clock.txt");
    let paravirtualisation = if machine.os_type.starts_with("Linux") {
        "kvm"
    } else {
        "none"
    };
    text += &format!("effparavirtprovider=\"{paravirtualisation}\"\n");
    text += &format!(
        "VMState=\"{}\"\nVMStateChangeTime=\"{}\"\n",
        machine.state, machine.state_changed
    );
    if let Some(file) = &machine.saved_state {
        text += &format!("VMStateFile={}\n", quoted_path(file));
    }
    text + include_str!("showvminfo/display.txt")
}

fn os_type(id: &str) -> &str {
    match id {
        "Other_64" => "Other/Unknown (64-bit)",
        "Linux_64" => "Other Linux (64-bit)",
        other => other,
    }
}

fn controller_head(number: usize, controller: &Controller) -> String {
    let (kind, most) = match controller.kind.as_str() {
        "AHCI" => ("IntelAhci", 30),
        "LsiLogic" => ("LsiLogic", 16),
        "NVMe" => ("NVMe", 255),
        other => (other, 2),
    };
    format!(
        "storagecontrollername{number}={}\nstoragecontrollertype{number}=\"{kind}\"\nstoragecontrollerinstance{number}=\"0\"\n\
         storagecontrollermaxportcount{number}=\"{most}\"\nstoragecontrollerportcount{number}=\"{}\"\n\
         storagecontrollerbootable{number}=\"on\"\n",
        quoted(&controller.name),
        controller.ports
    )
}

fn controller_slots(registry: &Registry, machine: &Machine, controller: &Controller) -> String {
    let devices = if controller.kind.starts_with("PIIX") {
        2
    } else {
        1
    };
    let slots =
        (0..controller.ports).flat_map(|port| (0..devices).map(move |device| (port, device)));
    let text = slots.map(|(port, device)| {
        let name = escaped(&controller.name);
        let key = |what: &str| format!("\"{name}-{what}{port}-{device}\"");
        let attached = controller
            .attachments
            .iter()
            .find(|slot| (slot.port, slot.device) == (port, device));
        match attached {
            None => format!("{}=\"none\"\n", key("")),
            Some(slot) => attached_lines(registry, machine, controller, slot, &key),
        }
    });
    text.collect()
}

fn attached_lines(
    registry: &Registry,
    machine: &Machine,
    controller: &Controller,
    slot: &Attachment,
    key: &impl Fn(&str) -> String,
) -> String {
    let Some(id) = slot.image else {
        return format!(
            "{}=\"emptydrive\"\n{}=\"off\"\n",
            key(""),
            key("IsEjected-")
        );
    };
    let medium = machine
        .medium(id)
        .or_else(|| registry.media().find(|medium| medium.id == id));
    let location = medium.map_or(String::new(), |medium| quoted_path(&medium.location));
    let mut text = format!("{}={location}\n{}=\"{id}\"\n", key(""), key("ImageUUID-"));
    if slot.is_hard_disk {
        let can_be_plugged = controller.kind == "AHCI";
        let whats = ["hot-pluggable-", "nonrotational-", "discard-"];
        for what in whats.iter().skip(usize::from(!can_be_plugged)) {
            writeln!(text, "{}=\"off\"", key(what)).expect("writing to a string");
        }
    }
    text
}

fn adapters(machine: &Machine) -> String {
    let adapter = |slot: u32| match machine.adapters.get(&slot) {
        None => format!("nic{}=\"none\"\n", slot + 1),
        Some(mac) => {
            let number = slot + 1;
            let first = format!(
                "natnet{number}=\"nat\"\nmacaddress{number}=\"{mac}\"\ncableconnected{number}=\"on\"\n"
            );
            let second = format!(
                "nic{number}=\"nat\"\nnictype{number}=\"Am79C973\"\nnicspeed{number}=\"0\"\n"
            );
            first + &second + include_str!("showvminfo/nat.txt")
        }
    };
    (0..8).map(adapter).collect()
}

fn tail(machine: &Machine) -> String {
    let folder = machine.folder();
    let stem = machine
        .settings
        .file_stem()
        .expect("a file name")
        .to_string_lossy()
        .into_owned();
    let running = machine.is_running();
    let mut text = include_str!("showvminfo/input.txt").to_owned();
    text += &format!("audio=\"{}\"\n", machine.audio);
    text += include_str!("showvminfo/sound.txt");
    if let Some(session) = &machine.session {
        text += &format!("SessionName=\"{session}\"\nVideoMode=\"720,400,0\"@0,0 1\n");
    }
    text += include_str!("showvminfo/usb.txt");
    if running {
        text += "VRDEActiveConnection=\"off\"\nVRDEClients==0\n";
    }
    text += include_str!("showvminfo/recording.txt");
    text += &format!(
        "rec_screen_dest_filename={}\n",
        quoted_path(&folder.join(format!("{stem}-screen0.webm")))
    );
    text += include_str!("showvminfo/recording_options.txt");
    if let Some(description) = &machine.description {
        text += &format!("description={}\n", quoted(description));
    }
    if !machine.snapshots.is_empty() {
        text += &snapshots::lines(machine);
    }
    text += "GuestMemoryBalloon=0\n";
    if running {
        text += &format!(
            "GuestOSType=\"{}\"\nGuestAdditionsRunLevel=0\n",
            machine.os_type
        );
    }
    text
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
