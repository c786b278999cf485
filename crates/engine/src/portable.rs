//! Making settings fit the place of their files.
//!
//! Two texts of a machine's settings matter: the one stored in the snapshot, which must register as
//! it stands after a plain `restic restore`, and the one written by a restore, which names each
//! image where it is on this host. Both are edits of the original that leave every other byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vrs_virtualbox::{HardDisk, MachineSettings, MediumId, SettingsEdit};

use crate::error::Result;
use crate::inventory::Inventory;
use crate::manifest::{FileRole, MediumRecord};

/// The settings to store, and whether they differ from the original.
pub(crate) fn stored_settings(inventory: &Inventory) -> Result<(String, bool)> {
    let mut edit = SettingsEdit::new(&inventory.settings_text)?;
    if inventory.needs_own_registry() {
        edit.set_media_registry_hard_disks(&registry(inventory))?;
    } else {
        for medium in inventory
            .media
            .iter()
            .filter(|medium| is_moved(medium, inventory))
        {
            edit.set_medium_location(medium.id, &in_folder(&medium.path))?;
        }
    }
    place_saved_states(&mut edit, inventory)?;
    let text = edit.finish();
    let adjusted = text != inventory.settings_text;
    Ok((text, adjusted))
}

/// The settings that name each medium where `locations` says it is, relative where it lies in
/// `folder`.
pub(crate) fn settings_at(
    text: &str,
    folder: &Path,
    locations: &BTreeMap<MediumId, PathBuf>,
) -> Result<String> {
    let settings = MachineSettings::parse(text, folder)?;
    let mut edit = SettingsEdit::new(text)?;
    for disk in settings.all_hard_disks() {
        let Some(location) = locations.get(&disk.id) else {
            continue;
        };
        if settings.resolve(folder, &disk.location) != *location {
            let shown = location.strip_prefix(folder).unwrap_or(location);
            edit.set_medium_location(disk.id, &shown.to_string_lossy())?;
        }
    }
    Ok(edit.finish())
}

/// The path of a stored file as seen from the machine folder that it is stored in.
pub(crate) fn in_folder(stored_path: &str) -> String {
    stored_path
        .split_once('/')
        .map_or(stored_path, |(_, inside)| inside)
        .to_owned()
}

fn is_moved(medium: &MediumRecord, inventory: &Inventory) -> bool {
    let known = inventory
        .settings
        .all_hard_disks()
        .find(|disk| disk.id == medium.id);
    known.is_some_and(|disk| {
        Path::new(&disk.location).is_absolute()
            || in_folder(&medium.path) != disk.location.replace('\\', "/")
    })
}

/// The whole media registry as a tree, with stored locations. Attributes and properties that the
/// machine's own registry has for a medium are kept by the editor.
fn registry(inventory: &Inventory) -> Vec<HardDisk> {
    children_of(None, &inventory.media)
}

fn children_of(parent: Option<MediumId>, media: &[MediumRecord]) -> Vec<HardDisk> {
    let children = media.iter().filter(|medium| medium.parent == parent);
    children
        .map(|medium| HardDisk {
            id: medium.id,
            location: in_folder(&medium.path),
            format: medium.format.clone(),
            kind: medium.kind.clone(),
            children: children_of(Some(medium.id), media),
            ..HardDisk::default()
        })
        .collect()
}

/// Saved states and nvram files that were outside the machine folder are named where they are
/// stored.
fn place_saved_states(edit: &mut SettingsEdit<'_>, inventory: &Inventory) -> Result<()> {
    let settings = &inventory.settings;
    let stored_place = |location: &str, role: FileRole| {
        let local = settings.resolve(&inventory.local_folder, location);
        let file = inventory
            .files
            .iter()
            .find(|file| file.role == role && file.local == local)?;
        (!local.starts_with(&inventory.local_folder)).then(|| in_folder(file.path.as_str()))
    };
    for location in settings.state_files() {
        if let Some(place) = stored_place(location, FileRole::SavedState) {
            edit.replace_state_file(location, &place)?;
        }
    }
    for location in settings.nvram_files() {
        if let Some(place) = stored_place(location, FileRole::Nvram) {
            edit.replace_nvram_path(location, &place)?;
        }
    }
    if Path::new(&settings.snapshot_folder).is_absolute() {
        edit.set_snapshot_folder("Snapshots")?;
    }
    Ok(())
}
