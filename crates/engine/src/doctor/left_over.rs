//! Images that the settings name and attach nowhere, on an image that the machine writes to.
//!
//! VirtualBox leaves them when a machine's process dies while a VirtualBox snapshot is taken, and does
//! not open the machine when it reads such settings: its image "has 1 differencing child" (tried on
//! 7.2.22).

use std::collections::BTreeSet;
use std::path::Path;

use vrs_vdisk::VdiHeader;
use vrs_virtualbox::{HardDisk, MachineSettings, MediumId, SettingsEdit};

use super::examination::Patient;
use super::finding::{Finding, Problem};
use super::repair::{RepairAction, aside};
use crate::error::{Error, Result};

/// What keeps VirtualBox from opening the machine, if it is this.
pub(super) fn examine(
    patient: &Patient<'_>,
    settings: &MachineSettings,
) -> Result<Option<Finding>> {
    let left_over = images(settings);
    if left_over.is_empty() || !patient.machine.state.is_inaccessible() {
        return Ok(None);
    }
    let file = &patient.machine.settings_file;
    let text = std::fs::read_to_string(file).map_err(|error| Error::io("read", file, error))?;
    let mut edit = SettingsEdit::new(&text)?;
    let mut files = Vec::with_capacity(left_over.len());
    for image in &left_over {
        edit.remove_medium(image.id)?;
        files.push(settings.resolve(patient.machine.folder(), &image.location));
    }
    let problem = Problem::ImagesLeftOver {
        images: files.clone(),
    };
    let mut actions = vec![RepairAction::PutSettings {
        content: edit.finish(),
        origin: "the present ones without the images that nothing uses".to_owned(),
        registered: patient.machine.registered,
    }];
    let holds_data = files.iter().any(|file| !is_empty(file));
    actions.extend(files.into_iter().map(|file| RepairAction::PutAside {
        aside: aside(&file, "stray"),
        file,
    }));
    let mut plan = patient
        .plan(problem.kind(), actions)
        .note("remove the files that are put aside when the machine is in order");
    if holds_data {
        plan = plan.only_if_named(
            problem.kind(),
            patient.machine.id.uuid(),
            "they hold data, which may be newer than what the machine uses",
        );
    }
    Ok(Some(patient.found(problem, plan.into_cure())))
}

fn images(settings: &MachineSettings) -> Vec<&HardDisk> {
    let now = settings.hardware.attachments.iter();
    let written_to: BTreeSet<MediumId> = now.filter_map(|attachment| attachment.medium).collect();
    settings
        .all_hard_disks()
        .filter(|disk| written_to.contains(&disk.id))
        .flat_map(|disk| &disk.children)
        .filter(|child| settings.is_unused(child))
        .collect()
}

/// Whether no guest ever wrote to the image, as far as it can be told.
fn is_empty(file: &Path) -> bool {
    !file.exists() || VdiHeader::read(file).is_ok_and(|header| header.allocated_blocks == 0)
}
