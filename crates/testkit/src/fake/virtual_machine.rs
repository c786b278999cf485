//! Machines: `list vms`, `showvminfo`, `registervm`, `unregistervm`, `controlvm`, `startvm`, `snapshot list`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::answer::{
    ACCESS_DENIED, Answer, FAILURE, Failure, INVALID_OBJECT_STATE, MACHINE, OBJECT_NOT_FOUND,
    VIRTUALBOX,
};
use super::machine::{Controller, Machine};
use super::media::Medium;
use super::registry::Registry;
use super::settings;

const OPEN: &str = "\"OpenMachine(Bstr(a->argv[0]).raw(), Bstr(strPassword).raw(), machine.asOutParam()))\" \
                    at line 159 of file VBoxManageMisc.cpp";
const SHOW: &str = "\"FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())\" at line 3248 of file VBoxManageInfo.cpp";
const SHOW_LOCK: &str =
    "\"LockMachine(a->session, LockType_Shared)\" at line 3328 of file VBoxManageInfo.cpp";
const FIND_TO_UNREGISTER: &str = "\"FindMachine(Bstr(VMName).raw(), machine.asOutParam())\" at line 228 of file VBoxManageMisc.cpp";
const UNREGISTER: &str = "\"Unregister(fDeleteAll ? CleanupMode_DetachAllReturnHardDisksAndVMRemovable :\
                          CleanupMode_DetachAllReturnHardDisksOnly, ComSafeArrayAsOutParam(aMedia))\" \
                          at line 232 of file VBoxManageMisc.cpp";
const FIND_TO_CONTROL: &str = "\"FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())\" at line 363 of file VBoxManageControlVM.cpp";
const FIND_TO_START: &str = "\"FindMachine(Bstr(pszVM).raw(), machine.asOutParam())\" at line 907 of file VBoxManageMisc.cpp";
const LAUNCH: &str = "\"LaunchVMProcess(a->session, sessionType.raw(), ComSafeArrayAsInParam(aBstrEnv), progress.asOutParam())\" \
                      at line 920 of file VBoxManageMisc.cpp";
const FIND_FOR_SNAPSHOTS: &str = "\"FindMachine(bstrMachine.raw(), pMachine.asOutParam())\" at line 344 of file VBoxManageSnapshot.cpp";

/// `list vms` and `list runningvms`
pub(super) fn list(registry: &Registry, running_only: bool) -> Answer {
    let shown = registry
        .machines
        .iter()
        .filter(|machine| !running_only || machine.is_running());
    Answer::prints(
        shown
            .map(|machine| format!("\"{}\" {{{}}}\n", shown_name(machine), machine.id))
            .collect(),
    )
}

fn shown_name(machine: &Machine) -> &str {
    if machine.state == "inaccessible" {
        "<inaccessible>"
    } else {
        &machine.name
    }
}

/// `registervm FILE`
pub(super) fn register(registry: &mut Registry, path: &str) -> Answer {
    let path = std::path::absolute(path).expect("a path");
    let machine = match settings::read(&path) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(OPEN),
    };
    if registry.by_id_mut(machine.id).is_some() {
        let shown = path.display();
        let text = format!(
            "Trying to open a VM config '{shown}' which has the same UUID as an existing virtual machine"
        );
        return Failure {
            text,
            code: FAILURE,
            component: MACHINE,
        }
        .answer(OPEN);
    }
    if conflicts(registry, &machine) {
        // The real one forgets the details here, too.
        let code = "Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)";
        return Answer::error(&[code, &format!("Context: {OPEN}")]);
    }
    let known = |id| machine.medium(id).is_some() || registry.media().any(|medium| medium.id == id);
    if let Some(missing) = machine.images().into_iter().find(|id| !known(*id)) {
        let text = format!("Could not find an open hard disk with UUID {{{missing}}}");
        return Failure {
            text,
            code: OBJECT_NOT_FOUND,
            component: VIRTUALBOX,
        }
        .answer(OPEN);
    }
    registry
        .opened
        .retain(|opened| machine.medium(opened.id).is_none());
    registry.machines.push(machine);
    Answer::silent()
}

/// Whether a medium of the machine is known elsewhere, or its place belongs to another medium.
fn conflicts(registry: &Registry, machine: &Machine) -> bool {
    let differ = |known: &Medium, medium: &Medium| {
        (known.id == medium.id) != (known.location == medium.location)
    };
    let differs = |known: &Medium| machine.media.iter().any(|medium| differ(known, medium));
    registry.media().any(differs)
}

/// `unregistervm MACHINE`
pub(super) fn unregister(registry: &mut Registry, name: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND_TO_UNREGISTER),
    };
    if machine.is_running() {
        let text = format!(
            "Cannot unregister the machine '{}' while it is locked",
            machine.name
        );
        return Failure {
            text,
            code: INVALID_OBJECT_STATE,
            component: MACHINE,
        }
        .answer(UNREGISTER);
    }
    let id = machine.id;
    registry.machines.retain(|machine| machine.id != id);
    Answer::silent()
}

/// `controlvm MACHINE poweroff`
pub(super) fn power_off(registry: &mut Registry, name: &str) -> Answer {
    match registry.find(name) {
        Err(failure) => failure.answer(FIND_TO_CONTROL),
        Ok(machine) if !machine.is_running() => {
            Answer::error(&[&format!("Machine '{name}' is not currently running.")])
        }
        Ok(machine) => {
            machine.set_state("poweroff");
            Answer::progress()
        }
    }
}

/// `startvm MACHINE --type headless`, and `--type emergencystop`
pub(super) fn start(registry: &mut Registry, name: &str, kind: &str) -> Answer {
    let machine = match registry.find(name) {
        Ok(machine) => machine,
        Err(failure) => return failure.answer(FIND_TO_START),
    };
    if kind == "emergencystop" {
        machine.set_state("aborted");
        return Answer::silent();
    }
    if machine.is_running() {
        return locked(&machine.name);
    }
    machine.set_state("running");
    if let Some(state_file) = machine.saved_state.take() {
        let _ = fs::remove_file(state_file);
    }
    Answer::prints(format!(
        "Waiting for VM \"{name}\" to power on...\nVM \"{name}\" has been successfully started.\n"
    ))
}

/// What a call says that needs a machine which someone else has locked.
pub(super) fn locked(name: &str) -> Answer {
    let text = format!(
        "The machine '{name}' is already locked by a session (or being locked or unlocked)"
    );
    Failure {
        text,
        code: INVALID_OBJECT_STATE,
        component: MACHINE,
    }
    .answer(LAUNCH)
}

/// `snapshot MACHINE list --machinereadable`
pub(super) fn virtualbox_snapshots(registry: &mut Registry, name: &str) -> Answer {
    match registry.find(name) {
        Err(failure) => failure.answer(FIND_FOR_SNAPSHOTS),
        Ok(machine) if machine.snapshots.is_empty() => Answer {
            stdout: "This machine does not have any snapshots\n".to_owned(),
            code: 1,
            ..Answer::silent()
        },
        Ok(machine) => Answer::prints(snapshot_lines(machine)),
    }
}

/// `showvminfo MACHINE --machinereadable`
pub(super) fn show(registry: &mut Registry, name: &str) -> Answer {
    let id = match registry.find(name) {
        Ok(machine) => machine.id,
        Err(failure) => return failure.answer(SHOW),
    };
    let registry = &*registry;
    let machine = registry
        .machines
        .iter()
        .find(|machine| machine.id == id)
        .expect("the machine just found");
    if machine.state == "inaccessible" {
        let text = "The object functionality is limited".to_owned();
        return Failure {
            text,
            code: ACCESS_DENIED,
            component: MACHINE,
        }
        .answer(SHOW_LOCK);
    }
    let mut text = head(machine);
    for (number, controller) in machine.controllers.iter().enumerate() {
        text += &controller_head(number, controller);
    }
    for controller in &machine.controllers {
        text += &controller_slots(registry, machine, controller);
    }
    text += &adapters(machine);
    text += &tail(machine);
    Answer::prints(text)
}

fn head(machine: &Machine) -> String {
    let folder = machine
        .settings
        .parent()
        .expect("a settings file lies in a folder");
    let nvram = machine
        .nvram
        .clone()
        .unwrap_or_else(|| machine.settings.with_extension("nvram"));
    let firmware = if machine.efi { "EFI" } else { "BIOS" };
    let mut text = format!(
        "name={}\nencryption=\"disabled\"\ngroups=\"/\"\nplatformArchitecture=\"x86\"\nostype=\"{}\"\nUUID=\"{id}\"\n\
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
            Some(slot) => attached_lines(registry, machine, slot, &key),
        }
    });
    text.collect()
}

fn attached_lines(
    registry: &Registry,
    machine: &Machine,
    slot: &super::machine::Attachment,
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
        for what in ["hot-pluggable-", "nonrotational-", "discard-"] {
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
    let folder = machine
        .settings
        .parent()
        .expect("a settings file lies in a folder");
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
        text += &snapshot_lines(machine);
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

/// Names and descriptions are not escaped here, unlike everywhere else.
fn snapshot_lines(machine: &Machine) -> String {
    let mut text = String::new();
    let mut line = |key: String, value: &str| {
        writeln!(text, "{key}=\"{}\"", value).expect("writing to a string")
    };
    let snapshots = machine.snapshots_with_position();
    for (position, snapshot) in &snapshots {
        line(format!("SnapshotName{position}"), &snapshot.name);
        line(format!("SnapshotUUID{position}"), &snapshot.id.to_string());
        if let Some(description) = &snapshot.description {
            line(format!("SnapshotDescription{position}"), description);
        }
    }
    if let Some((position, current)) = snapshots
        .iter()
        .find(|(_, snapshot)| Some(snapshot.id) == machine.current_snapshot)
    {
        line("CurrentSnapshotName".to_owned(), &current.name);
        line("CurrentSnapshotUUID".to_owned(), &current.id.to_string());
        line(
            "CurrentSnapshotNode".to_owned(),
            &format!("SnapshotName{position}"),
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
