//! Making a second machine from a snapshot, beside the first or without it.
//!
//! Guarantees: the new machine shares nothing with the first: new ids for the machine, its media
//! and its VirtualBox snapshots, in the settings and in the image headers; new MAC addresses unless
//! they are to be kept. Nothing that exists is changed.
//!
//! Not guaranteed: that software in the guest does not notice; TPM contents and disk encryption
//! bound to the hardware see another machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_repository::store::SnapshotStore;
use vrs_virtualbox::{MachineId, MachineSettings, MediumId, SettingsEdit};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::machine::Machine;
use crate::manifest::{FileRole, Manifest, MediumRecord};
use crate::portability::{Move, VerdictName};
use crate::restore::{Former, IntentFile, IntentImage, RestoreIntent, RestorePlan};
use crate::snapshot::Snapshot;
use crate::{catalog, portable};

/// What the user says about a clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloneOptions {
    /// Name of the new machine.
    pub name: String,
    /// Folder that gets the new machine folder; beside the first machine if not given.
    pub into: Option<PathBuf>,
    /// Keep the MAC addresses.
    pub keep_mac_addresses: bool,
}

/// Decides how to make a machine from a snapshot. Carried out like any other restore.
pub fn plan(
    host: &Host,
    store: &dyn SnapshotStore,
    snapshot: &Snapshot,
    options: &CloneOptions,
) -> Result<RestorePlan> {
    let manifest = catalog::manifest(store, &snapshot.id)?;
    let folder = new_folder(host, &manifest, options)?;
    let machine = MachineId::from(Uuid::new_v4());
    let original = catalog::settings_text(store, &snapshot.id, &manifest.settings)?;
    let identities = Identities::new(&original, &manifest, machine)?;
    let settings = new_settings(&original, options, machine, &identities)?;
    let stem = file_name_for(&options.name);
    let settings_file = folder.join(format!("{stem}.vbox"));
    let place =
        |path: &str| folder.join(identities.rename(&new_nvram_name(path, &manifest, &stem)));
    let intent = RestoreIntent {
        repository: store.id().to_string(),
        repository_location: store.location(),
        snapshot: snapshot.id.to_string(),
        is_clone: true,
        machine,
        machine_name: options.name.clone(),
        settings_file,
        settings,
        set_aside: Vec::new(),
        files: cloned_files(&manifest, place),
        seeds: local_files(host, &manifest),
        images: cloned_images(&manifest, place, &identities),
        remove: Vec::new(),
        register: host.virtualbox().is_some(),
        comes_back: false,
        accepts: None,
        folder,
    };
    let moved = Move {
        host,
        store,
        snapshot: &snapshot.id,
        manifest: &manifest,
        intent: &intent,
    };
    // Nothing that exists is at stake: whoever makes a second machine may try.
    let portability = moved.examine(&VerdictName::ALL)?;
    Ok(RestorePlan {
        accept_forced: false,
        former: Former::default(),
        portability,
        snapshot: snapshot.clone(),
        manifest,
        intent,
        power_off: false,
        left_behind: Vec::new(),
        notes: Vec::new(),
    })
}

/// The machine folder to make; it must not exist, or be empty.
fn new_folder(host: &Host, manifest: &Manifest, options: &CloneOptions) -> Result<PathBuf> {
    if options.name.trim().is_empty() || options.name.chars().any(char::is_control) {
        return Err(Error::Usage {
            message: format!("{:?} cannot be the name of a machine", options.name),
        });
    }
    let parent = match &options.into {
        Some(folder) => folder.clone(),
        None => beside_the_first(host, manifest)?,
    };
    let folder = std::path::absolute(parent.join(file_name_for(&options.name)))
        .map_err(|error| Error::io("find", &parent, error))?;
    let is_occupied = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_occupied || folder.is_file() {
        return Err(Error::InTheWay {
            path: folder,
            name: options.name.clone(),
        });
    }
    Ok(folder)
}

fn beside_the_first(host: &Host, manifest: &Manifest) -> Result<PathBuf> {
    let registered =
        Machine::registered(host, manifest.machine.id)?.map(|machine| machine.settings_file);
    let settings_file = registered
        .as_ref()
        .unwrap_or(&manifest.machine.settings_file);
    let parent = settings_file
        .parent()
        .and_then(Path::parent)
        .filter(|parent| parent.is_dir());
    parent.map(Path::to_owned).ok_or_else(|| Error::Usage {
        message: format!(
            "the folder of the first machine, '{}', is not on this host; say with --dir where the clone goes",
            settings_file.display()
        ),
    })
}

/// A file name for a machine's name, by VirtualBox's own rule: what file systems or shells dislike
/// becomes an underscore (observed in 7.2.22).
fn file_name_for(machine_name: &str) -> String {
    let replace = |character: char| {
        let disliked = character.is_control() || "\"'$/\\<>{}:*?|`;&!#%~^".contains(character);
        if disliked { '_' } else { character }
    };
    let name: String = machine_name.chars().map(replace).collect();
    match name.strip_prefix(['-', ' ', '.']) {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

/// Old ids and the new ones that replace them.
struct Identities {
    new_of: BTreeMap<Uuid, Uuid>,
}

impl Identities {
    fn new(settings: &str, manifest: &Manifest, machine: MachineId) -> Result<Self> {
        let settings = MachineSettings::parse(settings, Path::new(&manifest.settings))?;
        let media = manifest.media.iter().map(|medium| medium.id.uuid());
        let snapshots = settings
            .virtualbox_snapshots()
            .map(|snapshot| snapshot.id.uuid());
        let mut new_of: BTreeMap<Uuid, Uuid> = media
            .chain(snapshots)
            .map(|old| (old, Uuid::new_v4()))
            .collect();
        new_of.insert(manifest.machine.id.uuid(), machine.uuid());
        Ok(Self { new_of })
    }

    fn medium(&self, old: MediumId) -> MediumId {
        MediumId::from(self.new_of.get(&old.uuid()).copied().unwrap_or(old.uuid()))
    }

    /// Differencing images are named after their id.
    fn rename(&self, path: &str) -> String {
        self.new_of
            .iter()
            .fold(path.to_owned(), |path, (old, new)| {
                path.replace(&old.to_string(), &new.to_string())
            })
    }
}

/// VirtualBox finds a machine's nvram by the name of its settings file, unless they say otherwise.
fn new_nvram_name(path: &str, manifest: &Manifest, new_stem: &str) -> String {
    let default = format!(
        "{}.nvram",
        manifest
            .settings
            .strip_suffix(".vbox")
            .unwrap_or(&manifest.settings)
    );
    if path == default {
        format!("{new_stem}.nvram")
    } else {
        portable::in_folder(path)
    }
}

fn new_settings(
    original: &str,
    options: &CloneOptions,
    machine: MachineId,
    identities: &Identities,
) -> Result<String> {
    let mut edit = SettingsEdit::new(original)?;
    edit.replace_ids(&identities.new_of)?;
    edit.set_machine_id(machine)?;
    edit.set_machine_name(&options.name)?;
    if !options.keep_mac_addresses {
        edit.set_mac_addresses(new_mac_addresses())?;
    }
    Ok(edit.finish())
}

/// One new address for each old one, the same wherever the old one stands, so that VirtualBox
/// snapshots of the clone agree with its current state.
fn new_mac_addresses() -> impl FnMut(u32, &str) -> Option<String> {
    let mut new_of = BTreeMap::new();
    move |_slot, old: &str| {
        let new = new_of
            .entry(old.to_owned())
            .or_insert_with(random_mac_address);
        Some(new.clone())
    }
}

/// In the range that VirtualBox itself uses.
fn random_mac_address() -> String {
    let random = Uuid::new_v4().as_u128() & 0xff_ffff;
    format!("080027{random:06X}")
}

fn cloned_files(manifest: &Manifest, place: impl Fn(&str) -> PathBuf) -> Vec<IntentFile> {
    let wanted = |role| {
        matches!(
            role,
            FileRole::Disk | FileRole::SavedState | FileRole::Nvram
        )
    };
    let files = manifest.files.iter().filter(|file| wanted(file.role));
    files
        .map(|file| IntentFile {
            path: file.path.clone(),
            target: place(&file.path),
        })
        .collect()
}

fn cloned_images(
    manifest: &Manifest,
    place: impl Fn(&str) -> PathBuf,
    identities: &Identities,
) -> Vec<IntentImage> {
    let image = |medium: &MediumRecord| IntentImage {
        target: place(&medium.path),
        format: medium.format.clone(),
        id: identities.medium(medium.id),
        parent: medium.parent.map(|parent| identities.medium(parent)),
    };
    manifest.media.iter().map(image).collect()
}

/// Files of the first machine that may save a fetch.
fn local_files(host: &Host, manifest: &Manifest) -> Vec<PathBuf> {
    let is_here = host.name == manifest.host.name;
    let files = manifest
        .files
        .iter()
        .filter(|file| is_here && file.role != FileRole::Settings);
    files
        .map(|file| file.original.clone())
        .filter(|file| file.is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plain name", "plain name")]
    #[case("-dash", "_dash")]
    #[case("a/b\\c\"d'e", "a_b_c_d_e")]
    #[case("ünïcode é", "ünïcode é")]
    #[case("..", "_.")]
    fn names_become_file_names(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(file_name_for(name), expected);
    }

    #[test]
    fn equal_addresses_stay_equal() {
        let mut new = new_mac_addresses();
        let first = new(0, "080027000001").unwrap();
        assert_eq!(new(0, "080027000001").unwrap(), first);
        assert_ne!(new(1, "080027000002").unwrap(), first);
        assert!(first.starts_with("080027") && first.len() == 12);
    }
}
