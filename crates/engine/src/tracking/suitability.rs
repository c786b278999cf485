//! Whether a tracker is left on a machine, and why not.

use std::path::{Path, PathBuf};

use vrs_virtualbox::{Attachment, Medium, VBoxManage, VirtualBoxSnapshot};

use super::differencing::{TrackerSnapshot, hard_disks, medium};
use crate::capture::CaptureMode;
use crate::host::Host;
use crate::inventory::Inventory;
use crate::machine::Machine;
use crate::platform;
use crate::preflight::LAST_WITH_ZERO_BLOCK_BUG;

/// Whether clones, which cost less, cannot be made of all images.
pub(super) fn wants_lists(inventory: &Inventory) -> bool {
    let mut media = inventory.media.iter();
    media.any(|medium| !platform::reflink::is_possible(&medium.location))
}

/// Why no tracker is left.
pub(super) fn reason_against(
    host: &Host,
    machine: &Machine,
    inventory: &Inventory,
    former: &[TrackerSnapshot],
    mode: Option<CaptureMode>,
) -> Option<String> {
    let settings = &inventory.settings;
    let text = |why: &str| Some(why.to_owned());
    let version = host.virtualbox().map(|driver| driver.version().numbers());
    if version.is_none_or(|version| version <= LAST_WITH_ZERO_BLOCK_BUG) {
        let (major, minor, build) = LAST_WITH_ZERO_BLOCK_BUG;
        return Some(format!(
            "VirtualBox up to {major}.{minor}.{build} forgets blocks that the guest writes over with zeros"
        ));
    }
    if mode == Some(CaptureMode::SaveState) || (mode.is_none() && !machine.state.is_off()) {
        return text("the machine's state is saved");
    }
    let is_users = |made: &VirtualBoxSnapshot| former.iter().all(|former| former.id != made.id);
    if settings.virtualbox_snapshots().any(is_users) {
        return text("the machine has VirtualBox snapshots of its owner's");
    }
    if inventory.needs_own_registry() || hard_disks(settings).next().is_none() {
        return text("its disks are not its own");
    }
    let Some(Ok(media)) = host.virtualbox().map(VBoxManage::media) else {
        return text("VirtualBox does not tell its images");
    };
    let unfit = hard_disks(settings).find_map(|disk| unfit_disk(&media, machine, inventory, disk));
    unfit.or_else(|| room_is_short(machine, inventory))
}

/// Why a disk's changes cannot be listed.
fn unfit_disk(
    media: &[Medium],
    machine: &Machine,
    inventory: &Inventory,
    attachment: &Attachment,
) -> Option<String> {
    let record = |id| medium(inventory, id);
    let Some(attached) = attachment.medium.and_then(record) else {
        return Some("a disk is no image of the machine's".to_owned());
    };
    let base = attached.parent.map_or(Some(attached), record);
    let Some(base) = base.filter(|base| base.parent.is_none()) else {
        return Some("a disk is based on more than one image".to_owned());
    };
    let name = base.location.display();
    let is_normal = base
        .kind
        .as_deref()
        .is_none_or(|kind| kind.eq_ignore_ascii_case("normal"));
    if !base.format.eq_ignore_ascii_case("VDI") || !is_normal {
        return Some(format!("'{name}' is no VDI image of the type normal"));
    }
    if attachment.hands_on_discards {
        return Some(format!(
            "'{name}' is made smaller when the guest discards blocks"
        ));
    }
    let is_shared = media.iter().any(|medium| {
        let is_it = medium.id == base.id || medium.id == attached.id;
        let by_other = medium.used_by.iter().any(|user| *user != machine.id);
        let is_other_child = medium.parent == Some(base.id) && medium.id != attached.id;
        (is_it && by_other) || is_other_child
    });
    is_shared.then(|| format!("another machine or image uses '{name}'"))
}

/// The guest may write all of its disks anew until the next take: into the differencing images, and merged
/// from there. VirtualBox wants room for the whole of what it merges.
fn room_is_short(machine: &Machine, inventory: &Inventory) -> Option<String> {
    let settings = &inventory.settings;
    let snapshots = settings.resolve(machine.folder(), &settings.snapshot_folder);
    let folder: &Path = match snapshots.exists() {
        true => &snapshots,
        false => machine.folder(),
    };
    let bases = inventory
        .media
        .iter()
        .filter(|medium| medium.parent.is_none());
    let mut needed: Vec<(PathBuf, u64)> = Vec::new();
    for base in bases {
        let Ok(bytes) = platform::allocated_bytes(&base.location) else {
            return Some(format!(
                "the size of '{}' is not told",
                base.location.display()
            ));
        };
        needed.push((folder.to_owned(), bytes));
        needed.push((base.location.clone(), bytes));
    }
    let is_short = platform::needed_on_volumes(&needed)
        .any(|(place, bytes)| platform::free_bytes(place).is_ok_and(|free| free < bytes));
    is_short.then(|| {
        "there is no room for all that its guest could write until the next take, and for merging it".to_owned()
    })
}
