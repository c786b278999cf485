//! What the settings name of the computer around the machine.

use std::path::Path;

use vrs_virtualbox::{ExtensionPack, MachineSettings, VBoxManage};

use super::{Move, Verdict, VerdictName};

const REMOTE_DISPLAY: &str = "remote display";
const INSTALL: &str = "install the extension pack of this VirtualBox's version (`VBoxManage list extpacks`), or do without";

/// Verdicts on what the settings name of the host. Where VirtualBox does not tell, there is none.
pub(super) fn verdicts(moved: &Move<'_>, settings: &MachineSettings) -> Vec<Verdict> {
    let mut verdicts = shared_folders(settings);
    if !moved.is_same_computer() {
        verdicts.extend(usb(settings));
    }
    if let Some(virtualbox) = moved.host.virtualbox() {
        verdicts.extend(extension_packs(virtualbox, settings));
        verdicts.extend(adapters(virtualbox, settings));
    }
    verdicts
}

fn adapters(virtualbox: &VBoxManage, settings: &MachineSettings) -> Vec<Verdict> {
    if bridged(settings).next().is_none() {
        return Vec::new();
    }
    virtualbox
        .bridged_interfaces()
        .map(|present| bridged_elsewhere(settings, &present))
        .unwrap_or_default()
}

/// The slots of adapters in use that are bridged, and to what.
fn bridged(settings: &MachineSettings) -> impl Iterator<Item = (u32, &String)> {
    let adapters = settings.hardware.network_adapters.iter();
    let used = adapters.filter(|adapter| adapter.enabled);
    used.filter_map(|adapter| Some((adapter.slot, adapter.bridged_to.as_ref()?)))
}

fn bridged_elsewhere(settings: &MachineSettings, present: &[String]) -> Vec<Verdict> {
    let missing = bridged(settings).filter(|(_, interface)| !present.contains(interface));
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

/// What needs an extension pack, as far as the settings tell, against the packs that are here. Where
/// VirtualBox does not tell there is no verdict.
fn extension_packs(virtualbox: &VBoxManage, settings: &MachineSettings) -> Vec<Verdict> {
    let hardware = &settings.hardware;
    let is_encrypted = settings.all_hard_disks().any(|disk| disk.is_encrypted);
    if !is_encrypted && !hardware.has_remote_display {
        return Vec::new();
    }
    let Ok(packs) = virtualbox.extension_packs() else {
        return Vec::new();
    };
    let named = hardware.remote_display_pack.as_deref();
    let display = hardware.has_remote_display.then(|| match named {
        Some(named) => named_pack(&packs, named),
        None => any_pack(&packs, REMOTE_DISPLAY, |pack| pack.has_remote_display),
    });
    let encryption =
        is_encrypted.then(|| any_pack(&packs, "disk encryption", |pack| pack.has_encryption));
    [display, encryption]
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

/// The pack that the machine names has to be here and usable.
fn named_pack(packs: &[ExtensionPack], named: &str) -> Option<Verdict> {
    let found = match packs.iter().find(|pack| pack.name == named) {
        None => "is not installed here".to_owned(),
        Some(pack) => format!("is here and cannot be used: {}", pack.unusable.as_ref()?),
    };
    Some(Verdict::risky(
        VerdictName::ExtensionPack,
        REMOTE_DISPLAY,
        format!("the machine uses the extension pack '{named}' for it, which {found}"),
        INSTALL,
    ))
}

/// One usable pack has to bring it.
fn any_pack(
    packs: &[ExtensionPack],
    subject: &str,
    brings: impl Fn(&ExtensionPack) -> bool,
) -> Option<Verdict> {
    let mut bringing = packs.iter().filter(|pack| brings(pack)).peekable();
    let first = bringing.peek().copied();
    if bringing.any(|pack| pack.unusable.is_none()) {
        return None;
    }
    let found = first.map_or_else(
        || "no extension pack here brings it, unless this VirtualBox has it built in".to_owned(),
        |pack| {
            let why = pack.unusable.as_deref().unwrap_or_default();
            format!("the extension pack '{}' cannot be used: {why}", pack.name)
        },
    );
    Some(Verdict::risky(
        VerdictName::ExtensionPack,
        subject,
        format!("the machine uses it, and {found}"),
        INSTALL,
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(name: &str, unusable: Option<&str>) -> ExtensionPack {
        ExtensionPack {
            name: name.to_owned(),
            version: "7.2.22".to_owned(),
            has_remote_display: true,
            has_encryption: false,
            unusable: unusable.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn a_pack_that_is_named_has_to_be_usable() {
        let packs = [pack("VNC", None), pack("Oracle", Some("it is too old"))];
        assert_eq!(named_pack(&packs, "VNC"), None);
        insta::assert_snapshot!(
            named_pack(&packs, "Oracle").unwrap().reason,
            @"the machine uses the extension pack 'Oracle' for it, which is here and cannot be used: it is too old"
        );
        insta::assert_snapshot!(
            named_pack(&packs, "other").unwrap().reason,
            @"the machine uses the extension pack 'other' for it, which is not installed here"
        );
    }

    fn settings(hardware: &str) -> MachineSettings {
        let id = uuid::Uuid::from_u128(1);
        let text = format!(
            "<VirtualBox version=\"1.19-linux\"><Machine uuid=\"{{{id}}}\" name=\"web\"><Hardware>{hardware}</Hardware></Machine></VirtualBox>"
        );
        MachineSettings::parse(&text, Path::new("/vms/web/web.vbox")).unwrap()
    }

    #[test]
    fn an_adapter_in_use_has_to_find_its_interface() {
        let settings = settings(
            r#"<Network>
              <Adapter slot="0" enabled="true"><BridgedInterface name="eth9"/></Adapter>
              <Adapter slot="1" enabled="false"><BridgedInterface name="eth8"/></Adapter>
              <Adapter slot="2" enabled="true"><BridgedInterface name="eth0"/></Adapter>
              <Adapter slot="3" enabled="true"><NAT/></Adapter>
            </Network>"#,
        );
        let verdicts = bridged_elsewhere(&settings, &["eth0".to_owned()]);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        insta::assert_snapshot!(
            verdicts[0],
            @"network: network adapter 1: it is bridged to 'eth9', which is not here, so that the machine will not start; choose one of `VBoxManage list bridgedifs` with `VBoxManage modifyvm --bridge-adapter1`"
        );
    }

    #[test]
    fn a_shared_folder_has_to_be_here() {
        let here = std::env::temp_dir();
        let settings = settings(&format!(
            r#"<SharedFolders><SharedFolder name="a" hostPath="{}"/><SharedFolder name="b" hostPath="/nowhere at all"/></SharedFolders>"#,
            here.display()
        ));
        let verdicts = shared_folders(&settings);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        insta::assert_snapshot!(
            verdicts[0],
            @"shared-folder: shared folder 'b': there is no folder '/nowhere at all' here; create it, or the guest will not see it"
        );
    }

    #[test]
    fn usb_filters_are_for_other_devices() {
        let settings = settings(
            r#"<USB><DeviceFilters><DeviceFilter name="stick" active="true"/></DeviceFilters></USB>"#,
        );
        insta::assert_snapshot!(
            usb(&settings).unwrap(),
            @"usb: USB filters: they are for devices of another computer: stick; look at them before it starts: what fits is taken from this computer"
        );
    }

    #[test]
    fn one_usable_pack_has_to_bring_what_is_used() {
        let display = |packs: &[ExtensionPack]| {
            any_pack(packs, REMOTE_DISPLAY, |pack| pack.has_remote_display)
        };
        assert_eq!(display(&[pack("old", Some("x")), pack("VNC", None)]), None);
        insta::assert_snapshot!(
            display(&[pack("old", Some("it is too old"))]).unwrap().reason,
            @"the machine uses it, and the extension pack 'old' cannot be used: it is too old"
        );
        let encryption = any_pack(&[pack("VNC", None)], "disk encryption", |pack| {
            pack.has_encryption
        });
        insta::assert_snapshot!(
            encryption.unwrap().reason,
            @"the machine uses it, and no extension pack here brings it, unless this VirtualBox has it built in"
        );
    }
}
