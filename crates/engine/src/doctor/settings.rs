//! The settings file: whether it can be read, whether it names all images of the machine, and which
//! other copy of it would do.
//!
//! A copy that does not name every differencing image of the machine is from before the last
//! VirtualBox snapshot: a machine started with it writes below its own newest data. One that does not
//! name its saved state loses it. Such a copy is
//! never put back unless the user says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;
use vrs_virtualbox::{DeviceKind, MachineSettings, MediumId};

use super::examination::Patient;
use super::finding::{Cure, Finding, Problem};
use super::other_settings::{Candidate, candidates};
use super::repair::{RepairAction, RepairPlan};
use super::{left_over, unnamed};
use crate::error::Result;

/// Reads the settings and looks for what they lack. Nothing if they cannot be used.
pub(super) fn examine(
    patient: &Patient<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<MachineSettings>> {
    let file = &patient.machine.settings_file;
    let settings = match MachineSettings::read(file) {
        Ok(settings) => settings,
        Err(vrs_virtualbox::Error::Encrypted { .. }) => {
            findings.extend(inaccessible(patient));
            return Ok(None);
        }
        Err(error) => {
            findings.push(unreadable(patient, &error)?);
            return Ok(None);
        }
    };
    // While VirtualBox works on the machine, images come before the settings name them.
    let lost = if patient.is_at_rest() {
        unnamed::images(patient, &settings)
    } else {
        BTreeMap::new()
    };
    if !lost.is_empty() {
        findings.push(lost_snapshots(patient, &settings, lost)?);
    } else if let Some(found) = left_over::examine(patient, &settings)? {
        findings.push(found);
    } else {
        findings.extend(inaccessible(patient));
    }
    Ok(Some(settings))
}

fn inaccessible(patient: &Patient<'_>) -> Option<Finding> {
    let problem = Problem::MachineInaccessible {
        file: patient.machine.settings_file.clone(),
    };
    let advice = "`VBoxManage list vms --long` says why: often another machine has the same images, \
                  or the settings are encrypted";
    patient
        .machine
        .state
        .is_inaccessible()
        .then(|| patient.found(problem, Cure::Advice(advice.to_owned())))
}

fn unreadable(patient: &Patient<'_>, error: &vrs_virtualbox::Error) -> Result<Finding> {
    let problem = Problem::SettingsUnreadable {
        file: patient.machine.settings_file.clone(),
        reason: reason_of(error),
    };
    if patient.machine.registered && !patient.machine.state.is_inaccessible() {
        let plan = patient.plan(problem.kind(), vec![RepairAction::SaveSettings]);
        return Ok(patient.found(problem, plan.into_cure()));
    }
    let candidates = candidates(patient)?;
    let best = candidates
        .iter()
        .find(|candidate| candidate.fits())
        .or_else(|| {
            candidates
                .iter()
                .find(|candidate| candidate.missing.is_empty())
        });
    let cure = match best {
        Some(candidate) => candidate.plan(patient, &problem).into_cure(),
        None => Cure::Advice(
            patient.without_source("`vrs restore` brings the whole machine back to a snapshot"),
        ),
    };
    Ok(patient.found(problem, cure))
}

/// The innermost reason, which does not repeat what to do about it.
fn reason_of(error: &vrs_virtualbox::Error) -> String {
    use std::error::Error as _;
    match error {
        vrs_virtualbox::Error::Settings { problem, .. } => problem.clone(),
        other => other
            .source()
            .map_or_else(|| other.to_string(), ToString::to_string),
    }
}

/// Other settings, which know an image that the present ones use and do not know.
pub(super) fn that_know(
    patient: &Patient<'_>,
    image: MediumId,
    problem: &Problem,
) -> Result<Option<RepairPlan>> {
    let candidates = candidates(patient)?;
    let mut fitting = candidates.iter().filter(|candidate| candidate.fits());
    let knowing = fitting.find(|candidate| candidate.used.contains(&image.uuid()));
    Ok(knowing.map(|candidate| candidate.plan(patient, problem)))
}

fn lost_snapshots(
    patient: &Patient<'_>,
    settings: &MachineSettings,
    lost: BTreeMap<Uuid, PathBuf>,
) -> Result<Finding> {
    let images: Vec<PathBuf> = lost.values().cloned().collect();
    let problem = Problem::SettingsLostSnapshots {
        file: patient.machine.settings_file.clone(),
        images: images.clone(),
    };
    let candidates = candidates(patient)?;
    // What nobody uses was not lost, but left over.
    let knows = |candidate: &&Candidate| lost.keys().all(|id| candidate.used.contains(id));
    let mut fitting = candidates.iter().filter(|candidate| candidate.fits());
    let cure = match fitting.find(knows) {
        Some(candidate) => {
            let mut plan = candidate.plan(patient, &problem);
            if was_written_after(patient, settings, &images) {
                plan = plan.only_if_named(
                    problem.kind(),
                    patient.machine.id.uuid(),
                    "the image that they are based on was written to later: they do not fit it any more, unless it was \
                     only copied",
                );
            }
            plan.into_cure()
        }
        None => Cure::Advice(patient.without_source(
            "if the images are left over from something else, move them away; else do not start the machine, as it \
             would write below them, and restore a snapshot",
        )),
    };
    Ok(patient.found(problem, cure))
}

/// Whether an image that the machine uses now was changed after one of those based on it.
fn was_written_after(
    patient: &Patient<'_>,
    settings: &MachineSettings,
    images: &[PathBuf],
) -> bool {
    let changed = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let attached: BTreeSet<_> = settings
        .hardware
        .attachments
        .iter()
        .filter(|attachment| attachment.kind == DeviceKind::HardDisk)
        .filter_map(|attachment| attachment.medium)
        .collect();
    let used = settings
        .all_hard_disks()
        .filter(|disk| attached.contains(&disk.id));
    let last_write = used
        .filter_map(|disk| changed(&settings.resolve(patient.machine.folder(), &disk.location)))
        .max();
    images.iter().any(|image| changed(image) < last_write)
}
