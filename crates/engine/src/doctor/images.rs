//! The images of a machine: whether they are there, are what they should be, and can be opened.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use vrs_vdisk::{Chain, Finding as MapFinding, VdiHead, VdiHeader};
use vrs_virtualbox::{DeviceKind, MachineSettings, MediumId};

use super::examination::{Examination, Patient};
use super::finding::{Cure, Finding, Problem};
use super::repair::ImageIdentity;
use super::{image_cures, settings};
use crate::error::{Error, Result};
use crate::inventory::{Inventory, Missing};
use crate::manifest::MediumRecord;

/// The images that a machine uses, with what its settings say about them.
pub(super) struct Images<'p, 'a> {
    pub(super) patient: &'p Patient<'a>,
    pub(super) all: Vec<MediumRecord>,
    /// Attached now or at a VirtualBox snapshot, and what those are based on.
    used: BTreeSet<MediumId>,
    /// Whether a saved state belongs to what the disks hold now.
    pub(super) is_saved: bool,
}

/// Looks at every image that the machine uses.
pub(super) fn examine(
    patient: &Patient<'_>,
    settings: &MachineSettings,
    examination: &mut Examination,
) -> Result<()> {
    let inventory = match Inventory::of(patient.host, patient.machine, Missing::Skip) {
        Ok(inventory) => inventory,
        Err(Error::UnknownMedium { medium, .. }) => {
            examination.findings.push(unknown(patient, medium)?);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let images = Images {
        patient,
        used: used(settings, &inventory.media),
        all: inventory.media,
        is_saved: settings.state_file.is_some(),
    };
    if !patient.is_at_rest() {
        examination.skipped.push(format!(
            "machine '{}' is {}: its images were not looked into",
            patient.machine.name, patient.machine.state
        ));
    }
    for image in images
        .all
        .iter()
        .filter(|image| images.used.contains(&image.id))
    {
        if let Some(finding) = images.look_at(image)? {
            examination.findings.push(finding);
        }
    }
    Ok(())
}

fn unknown(patient: &Patient<'_>, medium: MediumId) -> Result<Finding> {
    let problem = Problem::MediumUnknown { medium };
    let cure = match settings::that_know(patient, medium, &problem)? {
        Some(plan) => plan.into_cure(),
        None => Cure::Advice(patient.without_source(
            "attach the disk again in VirtualBox, or restore a snapshot of the machine",
        )),
    };
    Ok(patient.found(problem, cure))
}

fn used(settings: &MachineSettings, all: &[MediumRecord]) -> BTreeSet<MediumId> {
    let attached = settings
        .all_attachments()
        .filter(|attachment| attachment.kind == DeviceKind::HardDisk)
        .filter_map(|attachment| attachment.medium);
    let mut used: BTreeSet<MediumId> = attached.collect();
    // Parents come before their children.
    for image in all.iter().rev().filter(|image| image.parent.is_some()) {
        if used.contains(&image.id) {
            used.extend(image.parent);
        }
    }
    used
}

impl Images<'_, '_> {
    /// Images that are based on one.
    pub(super) fn children_of(&self, image: MediumId) -> impl Iterator<Item = MediumId> {
        let children = self
            .all
            .iter()
            .filter(move |other| other.parent == Some(image));
        children.map(|child| child.id)
    }

    fn look_at(&self, image: &MediumRecord) -> Result<Option<Finding>> {
        if !image.location.is_absolute() {
            return Ok(None);
        }
        match image.location.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let problem = Problem::ImageMissing {
                    medium: image.id,
                    location: image.location.clone(),
                };
                let cure = image_cures::of_missing(self, image, problem.kind())?;
                return Ok(Some(self.patient.found(problem, cure)));
            }
            _ => {}
        }
        let is_readable = image.format.eq_ignore_ascii_case("VDI") && self.patient.is_at_rest();
        if is_readable && let Some(finding) = self.look_into(image)? {
            return Ok(Some(finding));
        }
        Ok(self.what_virtualbox_says(image))
    }

    fn look_into(&self, image: &MediumRecord) -> Result<Option<Finding>> {
        match VdiHeader::read(&image.location) {
            Ok(header) => self.compare(image, &header),
            Err(error) if is_damage(&error) => self.damaged(image, fault_of(&error)).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn compare(&self, image: &MediumRecord, header: &VdiHeader) -> Result<Option<Finding>> {
        if header.uuids.creation != image.id.uuid() {
            let problem = Problem::ImageReplaced {
                medium: image.id,
                location: image.location.clone(),
                found: header.uuids.creation,
            };
            let advice = "move the file away and put the right one in its place, or restore a snapshot of the machine";
            return Ok(Some(
                self.patient.found(problem, Cure::Advice(advice.to_owned())),
            ));
        }
        if header.parent() != image.parent.map(MediumId::uuid) {
            return Ok(Some(self.mismatched(image, header)));
        }
        self.look_at_map(image)
    }

    fn mismatched(&self, image: &MediumRecord, header: &VdiHeader) -> Finding {
        let problem = Problem::ParentMismatch {
            medium: image.id,
            location: image.location.clone(),
            recorded: header.parent(),
            registered: image.parent,
        };
        let cure = image_cures::of_mismatch(self, image, header, problem.kind());
        self.patient.found(problem, cure)
    }

    fn look_at_map(&self, image: &MediumRecord) -> Result<Option<Finding>> {
        let head = match VdiHead::of_image(&image.location) {
            Ok(head) => head,
            Err(error) if is_damage(&error) => {
                return self.damaged(image, fault_of(&error)).map(Some);
            }
            Err(_) => return Ok(None),
        };
        let findings = head.block_map().check().findings;
        let harmful = |finding: &&MapFinding| !matches!(finding, MapFinding::Unused { .. });
        let Some(first) = findings.iter().find(harmful) else {
            return self.look_at_chain(image);
        };
        let is_miscounted = findings
            .iter()
            .all(|finding| matches!(finding, MapFinding::BeyondAllocated { .. }));
        let fault = first.to_string();
        if is_miscounted {
            let problem = self.damage(image, fault);
            let cure = image_cures::of_miscount(self, image, head, problem.kind());
            return Ok(Some(self.patient.found(problem, cure)));
        }
        self.damaged(image, fault).map(Some)
    }

    /// Whether the images up to the base can be put together; each gap is found at the image that
    /// is next to it.
    fn look_at_chain(&self, image: &MediumRecord) -> Result<Option<Finding>> {
        let candidates: Vec<_> = self
            .all
            .iter()
            .map(|other| other.location.clone())
            .collect();
        match Chain::resolve(&image.location, &candidates) {
            Err(vrs_vdisk::Error::DuplicateImage {
                uuid,
                first,
                second,
                ..
            }) => {
                let reason = format!(
                    "two images have the UUID {uuid} of its parent, '{}' and '{}'",
                    first.display(),
                    second.display()
                );
                Ok(Some(self.inaccessible(image, reason)))
            }
            _ => Ok(None),
        }
    }

    fn damage(&self, image: &MediumRecord, fault: String) -> Problem {
        Problem::ImageDamaged {
            medium: image.id,
            location: image.location.clone(),
            fault,
        }
    }

    fn damaged(&self, image: &MediumRecord, fault: String) -> Result<Finding> {
        let problem = self.damage(image, fault);
        let cure = image_cures::of_damage(self, image, problem.kind())?;
        Ok(self.patient.found(problem, cure))
    }

    fn what_virtualbox_says(&self, image: &MediumRecord) -> Option<Finding> {
        let known = self
            .patient
            .media
            .iter()
            .find(|medium| medium.id == image.id)?;
        let reason = known.access_error.as_ref()?;
        let reason = reason.lines().next_back().unwrap_or_default();
        Some(self.inaccessible(image, reason.to_owned()))
    }

    fn inaccessible(&self, image: &MediumRecord, reason: String) -> Finding {
        let problem = Problem::ImageInaccessible {
            medium: image.id,
            location: image.location.clone(),
            reason,
        };
        let advice = "make the file readable for VirtualBox, or restore a snapshot of the machine";
        self.patient.found(problem, Cure::Advice(advice.to_owned()))
    }
}

impl ImageIdentity {
    pub(super) const fn of(image: &MediumRecord) -> Self {
        Self {
            id: image.id,
            parent: image.parent,
        }
    }

    /// Whether a header says the same.
    pub(super) fn is_of(self, header: &VdiHeader) -> bool {
        header.uuids.creation == self.id.uuid()
            && header.parent() == self.parent.map(MediumId::uuid)
    }
}

fn is_damage(error: &vrs_vdisk::Error) -> bool {
    matches!(
        error,
        vrs_vdisk::Error::Header { .. } | vrs_vdisk::Error::UnsupportedFormat { .. }
    )
}

fn fault_of(error: &vrs_vdisk::Error) -> String {
    match error {
        vrs_vdisk::Error::Header { fault, .. } => fault.to_string(),
        vrs_vdisk::Error::UnsupportedFormat { format, .. } => format!("it looks like {format}"),
        other => other.to_string(),
    }
}
