//! The devices of a machine that concern its files or its identity.

use roxmltree::Node;
use uuid::Uuid;

use super::document::{child, children, descendants, flag, required};
use crate::error::Result;
use crate::id::MediumId;

/// What is attached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A hard disk.
    HardDisk,
    /// A DVD drive.
    Dvd,
    /// A floppy drive.
    Floppy,
    /// Something that this version does not know.
    Other(String),
}

/// A device at a port of a storage controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the controller.
    pub controller: String,
    /// Port of the controller.
    pub port: u32,
    /// Device at the port.
    pub device: u32,
    /// What it is.
    pub kind: DeviceKind,
    /// The image in it; an empty drive has none.
    pub medium: Option<MediumId>,
    /// The host's drive that it stands for.
    pub host_drive: Option<String>,
    /// Whether the guest may send commands to the host's drive.
    pub passthrough: bool,
    /// Whether blocks that the guest discards are taken out of the image.
    pub hands_on_discards: bool,
}

/// A network adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAdapter {
    /// Its number, from 0.
    pub slot: u32,
    /// Whether the guest sees it.
    pub enabled: bool,
    /// Its address, twelve hexadecimal digits.
    pub mac_address: Option<String>,
    /// What it is connected to, by VirtualBox's name, such as `NAT` or `BridgedInterface`.
    pub attached_to: Option<String>,
    /// The host's interface that it is bridged to.
    pub bridged_to: Option<String>,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// Its name in the guest.
    pub name: String,
    /// Where it is on the host.
    pub host_path: String,
}

const PORTABILITY_LEVEL: &str = "CpuIdPortabilityLevel";
const BRIDGED: &str = "BridgedInterface";

/// The devices of a machine, now or at a VirtualBox snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Type of the firmware, such as `EFI`; `None` for a BIOS.
    pub firmware: Option<String>,
    /// The id that the guest sees in its firmware, where it differs from the machine's own.
    pub uuid: Option<Uuid>,
    /// What is attached to the storage controllers.
    pub attachments: Vec<Attachment>,
    /// Network adapters.
    pub network_adapters: Vec<NetworkAdapter>,
    /// Shared folders.
    pub shared_folders: Vec<SharedFolder>,
    /// Names of the USB device filters.
    pub usb_filters: Vec<String>,
    /// Where the nvram is, if it is not at its usual place.
    pub nvram: Option<String>,
    /// How much RAM the guest has.
    pub ram_bytes: Option<u64>,
    /// How much RAM its graphics adapter has, where that is not VirtualBox's default.
    pub video_ram_bytes: Option<u64>,
    /// Type of the TPM, such as `v2_0`; `None` if there is none.
    pub tpm: Option<String>,
    /// Which processor the guest sees; `None` for the host's.
    pub cpu_profile: Option<String>,
    /// How many features of the host's processor are hidden from the guest: 0 for none, up to 3.
    pub cpuid_portability_level: u32,
    /// Whether others can see its screen over the network.
    pub has_remote_display: bool,
    /// The extension pack that serves it, if not the host's default one.
    pub remote_display_pack: Option<String>,
}

impl Hardware {
    /// Reads the devices below `<Machine>` or `<Snapshot>`. Older settings have the
    /// storage controllers beside `<Hardware>`, newer ones in it.
    pub(super) fn parse(owner: Node<'_, '_>) -> Result<Self> {
        let mut found = Self {
            attachments: attachments(owner)?,
            ..Self::default()
        };
        let Some(hardware) = child(owner, "Hardware") else {
            return Ok(found);
        };
        found.firmware = child(hardware, "Firmware")
            .and_then(|firmware| text(firmware, "type"))
            .filter(|firmware| firmware != "BIOS");
        found.uuid = hardware
            .attribute("uuid")
            .map(|_| required::<MediumId>(hardware, "uuid", "UUID"))
            .transpose()?
            .map(MediumId::uuid);
        found.attachments.extend(attachments(hardware)?);
        let adapters = child(hardware, "Network")
            .into_iter()
            .flat_map(|network| children(network, "Adapter"));
        found.network_adapters = adapters.map(network_adapter).collect::<Result<_>>()?;
        found.shared_folders = descendants(hardware, "SharedFolder")
            .map(shared_folder)
            .collect();
        found.usb_filters = descendants(hardware, "DeviceFilter")
            .filter_map(|filter| text(filter, "name"))
            .collect();
        found.nvram = descendants(hardware, "NVRAM").find_map(|nvram| text(nvram, "path"));
        found.ram_bytes = mebibytes(hardware, "Memory", "RAMSize")?;
        found.video_ram_bytes = mebibytes(hardware, "Display", "VRAMSize")?;
        found.tpm = descendants(hardware, "TrustedPlatformModule")
            .find_map(|tpm| text(tpm, "type"))
            .filter(|tpm| tpm != "None");
        let cpu = child(hardware, "CPU");
        found.cpu_profile = cpu
            .and_then(|cpu| text(cpu, "CpuProfile"))
            .filter(|profile| profile != "host");
        found.cpuid_portability_level = cpu
            .filter(|cpu| cpu.has_attribute(PORTABILITY_LEVEL))
            .map(|cpu| required(cpu, PORTABILITY_LEVEL, "number"))
            .transpose()?
            .unwrap_or_default();
        let display = child(hardware, "RemoteDisplay");
        found.has_remote_display = display.is_some_and(|display| flag(display, "enabled"));
        found.remote_display_pack = display
            .and_then(|display| text(display, "VRDEExtPack"))
            .filter(|pack| !pack.is_empty());
        Ok(found)
    }
}

/// `<Memory RAMSize="2048"/>`, in MiB.
fn mebibytes(hardware: Node<'_, '_>, element: &str, attribute: &str) -> Result<Option<u64>> {
    let size = child(hardware, element).filter(|size| size.has_attribute(attribute));
    let mebibytes: Option<u64> = size
        .map(|size| required(size, attribute, "number"))
        .transpose()?;
    Ok(mebibytes.and_then(|mebibytes| mebibytes.checked_mul(1 << 20)))
}

fn text(node: Node<'_, '_>, attribute: &str) -> Option<String> {
    node.attribute(attribute).map(ToOwned::to_owned)
}

fn attachments(owner: Node<'_, '_>) -> Result<Vec<Attachment>> {
    let controllers = child(owner, "StorageControllers")
        .into_iter()
        .flat_map(|list| children(list, "StorageController"));
    controllers
        .flat_map(|controller| {
            children(controller, "AttachedDevice").map(move |device| attachment(controller, device))
        })
        .collect()
}

fn attachment(controller: Node<'_, '_>, device: Node<'_, '_>) -> Result<Attachment> {
    let kind = match device.attribute("type").unwrap_or_default() {
        "HardDisk" => DeviceKind::HardDisk,
        "DVD" => DeviceKind::Dvd,
        "Floppy" => DeviceKind::Floppy,
        other => DeviceKind::Other(other.to_owned()),
    };
    Ok(Attachment {
        controller: text(controller, "name").unwrap_or_default(),
        port: required(device, "port", "number")?,
        device: required(device, "device", "number")?,
        kind,
        medium: child(device, "Image")
            .map(|image| required(image, "uuid", "UUID"))
            .transpose()?,
        host_drive: child(device, "HostDrive").and_then(|drive| text(drive, "src")),
        passthrough: flag(device, "passthrough"),
        hands_on_discards: flag(device, "discard"),
    })
}

fn network_adapter(node: Node<'_, '_>) -> Result<NetworkAdapter> {
    const DETAILS: [&str; 2] = ["DisabledModes", "Properties"];
    let mut names = node
        .children()
        .filter(Node::is_element)
        .map(|mode| mode.tag_name().name());
    Ok(NetworkAdapter {
        slot: required(node, "slot", "number")?,
        enabled: flag(node, "enabled"),
        mac_address: text(node, "MACAddress"),
        attached_to: names
            .find(|name| !DETAILS.contains(name))
            .map(ToOwned::to_owned),
        bridged_to: child(node, BRIDGED).and_then(|bridge| text(bridge, "name")),
    })
}

fn shared_folder(node: Node<'_, '_>) -> SharedFolder {
    SharedFolder {
        name: text(node, "name").unwrap_or_default(),
        host_path: text(node, "hostPath").unwrap_or_default(),
    }
}
