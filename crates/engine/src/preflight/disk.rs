//! An attached hard disk, and naming one to leave it out.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use vrs_virtualbox::{Attachment, DeviceKind, Medium, MediumId};

use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::manifest::MediumRecord;

/// A hard disk at a port of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachedDisk {
    /// Its place, as `VBoxManage showvminfo` writes it: `SATA-0-0`.
    pub(super) slot: String,
    /// The attached image.
    pub(super) attached: MediumId,
    /// Where the attached image is, if it is a file.
    pub(super) location: Option<PathBuf>,
    /// The attached image and all below it, the base image last.
    pub(super) chain: Vec<MediumId>,
    /// Where the base image is.
    pub(super) base_location: PathBuf,
    /// VirtualBox's name of the base image's type: `Normal`, `Immutable`...
    pub(super) kind: String,
    /// VirtualBox's name of the base image's format.
    pub(super) format: String,
}

impl AttachedDisk {
    /// Whether a user who writes `name` means this disk.
    fn is_called(&self, name: &str) -> bool {
        let id = name.parse().ok();
        self.slot == name
            || self.chain.iter().any(|image| Some(*image) == id)
            || self.base_location == Path::new(name)
            || self.location.as_deref() == Some(Path::new(name))
            || self.base_location.file_name() == Some(name.as_ref())
    }

    /// Whether the attached image is a differencing image.
    pub(super) fn is_differencing(&self) -> bool {
        self.chain.len() > 1
    }
}

/// The place and the base image, as in `SATA-0-0 (disk.vdi)`.
impl fmt::Display for AttachedDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.base_location.file_name().unwrap_or_default();
        write!(formatter, "{} ({})", self.slot, name.display())
    }
}

/// The hard disks attached now. `media` tells about those that are no files.
pub(super) fn attached_disks(inventory: &Inventory, media: &[Medium]) -> Vec<AttachedDisk> {
    let attachments = inventory.settings.hardware.attachments.iter();
    attachments
        .filter(|attachment| attachment.kind == DeviceKind::HardDisk)
        .filter_map(|attachment| attached_disk(inventory, media, attachment))
        .collect()
}

fn attached_disk(
    inventory: &Inventory,
    media: &[Medium],
    attachment: &Attachment,
) -> Option<AttachedDisk> {
    let attached = attachment.medium?;
    let record = |id| inventory.media.iter().find(|record| record.id == id);
    let known = |id| media.iter().find(|medium| medium.id == id);
    let parent_of = |id: &MediumId| record(*id).and_then(|record| record.parent);
    // An inventory has no loops: parents come before their children.
    let chain: Vec<MediumId> = std::iter::successors(Some(attached), parent_of).collect();
    let base = chain.last().copied().unwrap_or(attached);
    let (base_location, kind, format) = match (record(base), known(base)) {
        (Some(record), _) => of_record(record),
        (None, Some(medium)) => of_medium(medium),
        (None, None) => (
            PathBuf::from(base.to_string()),
            String::new(),
            String::new(),
        ),
    };
    let Attachment {
        controller,
        port,
        device,
        ..
    } = attachment;
    Some(AttachedDisk {
        slot: format!("{controller}-{port}-{device}"),
        attached,
        location: record(attached).map(|record| record.location.clone()),
        chain,
        base_location,
        kind,
        format,
    })
}

fn of_record(record: &MediumRecord) -> (PathBuf, String, String) {
    let kind = record.kind.clone().unwrap_or_else(|| "Normal".to_owned());
    (record.location.clone(), kind, record.format.clone())
}

fn of_medium(medium: &Medium) -> (PathBuf, String, String) {
    let kind = medium.kind.settings_name().to_owned();
    (medium.location.clone(), kind, medium.format.clone())
}

/// The attached images of the disks that `names` mean.
pub(super) fn skipped(disks: &[AttachedDisk], names: &[String]) -> Result<BTreeSet<MediumId>> {
    let mut found = BTreeSet::new();
    for name in names {
        let meant: Vec<_> = disks.iter().filter(|disk| disk.is_called(name)).collect();
        if meant.is_empty() {
            let attached: Vec<_> = disks.iter().map(ToString::to_string).collect();
            return Err(Error::Usage {
                message: format!(
                    "no attached disk is called '{name}'; there are: {}",
                    attached.join(", ")
                ),
            });
        }
        found.extend(meant.iter().map(|disk| disk.attached));
    }
    Ok(found)
}

/// The images that only disks to be left out use. A disk is named by its place (`SATA-1-0`), by the
/// path or the file name of its base image, or by the id of one of its images.
pub fn skipped_media(inventory: &Inventory, names: &[String]) -> Result<BTreeSet<MediumId>> {
    let disks = attached_disks(inventory, &[]);
    let skipped = skipped(&disks, names)?;
    let images_of = |skip: bool| -> BTreeSet<MediumId> {
        let chosen = disks
            .iter()
            .filter(|disk| skipped.contains(&disk.attached) == skip);
        chosen.flat_map(|disk| disk.chain.iter().copied()).collect()
    };
    let kept = images_of(false);
    Ok(images_of(true).difference(&kept).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::scene::Scene;

    /// Two disks; the second is a differencing image on a base image.
    fn scene() -> Scene {
        let mut scene = Scene::new("running");
        scene.add_image(0xd2, None, "data.vdi");
        scene.add_image(0xd3, Some(0xd2), "Snapshots/x.vdi");
        scene.attach(1, 0xd3);
        scene
    }

    #[test]
    fn a_disk_has_many_names() {
        let scene = scene();
        let ids = ["d2", "d3"].map(|end| format!("00000000-0000-0000-0000-0000000000{end}"));
        let names = [
            "SATA-1-0",
            "data.vdi",
            "/vms/web/data.vdi",
            "/vms/web/Snapshots/x.vdi",
            &ids[0],
            &ids[1],
        ];
        for name in names {
            let media = skipped_media(&scene.inventory, &[name.to_owned()]).unwrap();
            let found: Vec<_> = media.iter().map(ToString::to_string).collect();
            assert_eq!(found, ids, "{name}");
        }
        assert!(skipped_media(&scene.inventory, &[]).unwrap().is_empty());
    }

    #[test]
    fn an_image_that_another_disk_needs_is_not_left_out() {
        let mut scene = scene();
        scene.add_image(0xd4, Some(0xd2), "Snapshots/y.vdi");
        scene.attach(2, 0xd4);
        let media = skipped_media(&scene.inventory, &["SATA-1-0".to_owned()]).unwrap();
        assert_eq!(media.len(), 1);
    }

    #[test]
    fn an_unknown_disk_is_refused() {
        let error = skipped_media(&scene().inventory, &["SATA-7-0".to_owned()]).unwrap_err();
        insta::assert_snapshot!(error, @"no attached disk is called 'SATA-7-0'; there are: SATA-0-0 (disk.vdi), SATA-1-0 (data.vdi)");
    }
}
