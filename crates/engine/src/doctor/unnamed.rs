//! Files that belong to a machine by their place and that its settings do not name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_vdisk::VdiHeader;
use vrs_virtualbox::MachineSettings;

use super::examination::Patient;

/// Differencing images in the machine's folder for them that the settings do not name. Those in VDI
/// format count if they are based on one that is named; others have their id as their name.
pub(super) fn images(patient: &Patient<'_>, settings: &MachineSettings) -> BTreeMap<Uuid, PathBuf> {
    let folder = patient.machine.folder();
    let named: BTreeSet<Uuid> = settings
        .all_hard_disks()
        .map(|disk| disk.id.uuid())
        .collect();
    let known_elsewhere = |id: &Uuid| {
        let mut others = patient.media.iter();
        others
            .any(|medium| medium.id.uuid() == *id && !medium.used_by.contains(&patient.machine.id))
    };
    let snapshot_folder = settings.resolve(folder, &settings.snapshot_folder);
    let found = images_in(&snapshot_folder);
    let is_based = |id: &Uuid| leads_to(*id, &found, &named);
    let not_named = found
        .iter()
        .filter(|(id, _)| !named.contains(*id) && !known_elsewhere(id) && is_based(id));
    not_named
        .map(|(id, image)| (*id, image.path.clone()))
        .collect()
}

/// Saved states in the same folder that the settings do not name.
pub(super) fn states(patient: &Patient<'_>, settings: &MachineSettings) -> Vec<PathBuf> {
    let folder = patient.machine.folder();
    let named: BTreeSet<PathBuf> = settings
        .state_files()
        .map(|state| settings.resolve(folder, state))
        .collect();
    let snapshot_folder = settings.resolve(folder, &settings.snapshot_folder);
    let entries = std::fs::read_dir(snapshot_folder)
        .into_iter()
        .flatten()
        .flatten();
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "sav");
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| is_state(path) && !named.contains(path))
        .collect()
}

/// What VirtualBox gives to differencing images.
const EXTENSIONS: [&str; 6] = ["vdi", "vmdk", "vhd", "hdd", "qed", "qcow"];

struct FoundImage {
    path: PathBuf,
    /// Nothing in an image that cannot be looked into.
    parent: Option<Uuid>,
}

fn images_in(folder: &Path) -> BTreeMap<Uuid, FoundImage> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let image = |path: PathBuf| {
        let extension = path.extension()?.to_str()?.to_lowercase();
        if !EXTENSIONS.contains(&extension.as_str()) {
            return None;
        }
        if let Ok(header) = VdiHeader::read(&path) {
            let parent = Some(header.parent()?);
            return Some((header.uuids.creation, FoundImage { path, parent }));
        }
        let name = path.file_stem()?.to_str()?;
        let id = name.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?;
        Some((id, FoundImage { path, parent: None }))
    };
    entries.filter_map(|entry| image(entry.path())).collect()
}

/// Whether an image is based on one of `named`, as far as it can be told.
fn leads_to(image: Uuid, found: &BTreeMap<Uuid, FoundImage>, named: &BTreeSet<Uuid>) -> bool {
    let mut next = image;
    // Headers may claim a loop.
    for _ in 0..=found.len() {
        let Some(parent) = found.get(&next).map(|image| image.parent) else {
            return false;
        };
        match parent {
            None => return true,
            Some(parent) if named.contains(&parent) => return true,
            Some(parent) => next = parent,
        }
    }
    false
}
