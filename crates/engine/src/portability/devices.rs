//! What the settings name of the computer around the machine.

use std::path::Path;

use vrs_virtualbox::{MachineSettings, VBoxManage};

use super::{Move, Verdict, VerdictName};

/// Verdicts on what the settings name of the host. Where VirtualBox does not tell, there is none.
pub(super) fn verdicts(moved: &Move<'_>, settings: &MachineSettings) -> Vec<Verdict> {
    let mut verdicts = shared_folders(settings);
    if !moved.is_same_computer() {
        verdicts.extend(usb(settings));
    }
    if let Some(virtualbox) = moved.host.virtualbox() {
        verdicts.extend(extension_pack(virtualbox, settings));
        verdicts.extend(adapters(virtualbox, settings));
    }
    verdicts
}

fn adapters(virtualbox: &VBoxManage, settings: &MachineSettings) -> Vec<Verdict> {
    let adapters = settings.hardware.network_adapters.iter();
    let bridged = adapters.filter(|adapter| adapter.enabled);
    let bridged: Vec<_> = bridged
        .filter_map(|adapter| Some((adapter.slot, adapter.bridged_to.as_ref()?)))
        .collect();
    if bridged.is_empty() {
        return Vec::new();
    }
    let Ok(present) = virtualbox.bridged_interfaces() else {
        return Vec::new();
    };
    let missing = bridged
        .into_iter()
        .filter(|(_, interface)| !present.contains(interface));
    let verdict = |(slot, interface): (u32, &String)| {
        let number = slot.saturating_add(1);
        Verdict::risky(
            VerdictName::Network,
            &format!("network adapter {number}"),
            format!(
                "it is bridged to '{interface}', which is not here, so that the machine will not start"
            ),
            format!(
                "choose one of `VBoxManage list bridgedifs` with `VBoxManage modifyvm --bridge-adapter{number}`"
            ),
        )
    };
    missing.map(verdict).collect()
}

/// What needs an extension pack, as far as the settings tell.
fn extension_pack(virtualbox: &VBoxManage, settings: &MachineSettings) -> Vec<Verdict> {
    let is_encrypted = settings.all_hard_disks().any(|disk| disk.is_encrypted);
    let needs = [
        (settings.hardware.has_remote_display, "remote display"),
        (is_encrypted, "disk encryption"),
    ];
    let mut needs = needs.into_iter().filter(|(is_used, _)| *is_used).peekable();
    let has_none = || {
        let packs = virtualbox.extension_packs();
        packs.is_ok_and(|packs| packs.is_empty())
    };
    if needs.peek().is_none() || !has_none() {
        return Vec::new();
    }
    let verdict = |(_, subject)| {
        Verdict::risky(
            VerdictName::ExtensionPack,
            subject,
            "the machine uses it, but no extension pack is installed here",
            "install VirtualBox's extension pack, or do without",
        )
    };
    needs.map(verdict).collect()
}

fn usb(settings: &MachineSettings) -> Option<Verdict> {
    let filters = &settings.hardware.usb_filters;
    (!filters.is_empty()).then(|| {
        Verdict::risky(
            VerdictName::Usb,
            "USB filters",
            format!(
                "they are for devices of another computer: {}",
                filters.join(", ")
            ),
            "look at them before it starts: what fits is taken from this computer",
        )
    })
}

fn shared_folders(settings: &MachineSettings) -> Vec<Verdict> {
    let folders = settings.hardware.shared_folders.iter();
    let missing = folders.filter(|folder| !Path::new(&folder.host_path).is_dir());
    let verdict = |folder: &vrs_virtualbox::SharedFolder| {
        Verdict::risky(
            VerdictName::SharedFolder,
            &format!("shared folder '{}'", folder.name),
            format!("there is no folder '{}' here", folder.host_path),
            "create it, or the guest will not see it",
        )
    };
    missing.map(verdict).collect()
}
