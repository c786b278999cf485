//! Other settings that a machine might have: VirtualBox's copy of those before the last change, and
//! those of the snapshots.

use std::collections::BTreeSet;
use std::path::PathBuf;

use uuid::Uuid;
use vrs_virtualbox::{DeviceKind, MachineSettings, SettingsEdit};

use super::examination::Patient;
use super::finding::Problem;
use super::repair::{RepairAction, RepairPlan, RepairSource};
use super::unnamed;
use crate::error::Result;
use crate::inventory::previous_settings;

/// Other settings that the machine might have.
pub(super) struct Candidate {
    text: String,
    origin: String,
    source: Option<RepairSource>,
    /// Images that it uses.
    pub(super) used: BTreeSet<Uuid>,
    /// Images that it names and that are not there.
    pub(super) missing: Vec<PathBuf>,
    /// Images and saved states of the machine that it does not name.
    unnamed: Vec<PathBuf>,
    /// Whether it named a saved state that is not there, and now names none.
    without_state: bool,
}

impl Candidate {
    /// Whether it names just what is there.
    pub(super) fn fits(&self) -> bool {
        self.missing.is_empty() && self.unnamed.is_empty()
    }

    fn of(
        patient: &Patient<'_>,
        text: String,
        origin: String,
        source: Option<RepairSource>,
    ) -> Option<Self> {
        let file = &patient.machine.settings_file;
        let folder = patient.machine.folder();
        let settings = MachineSettings::parse(&text, file).ok()?;
        if settings.id != patient.machine.id {
            return None;
        }
        let disks = settings.all_hard_disks();
        let missing = disks
            .map(|disk| settings.resolve(folder, &disk.location))
            .filter(|location| location.is_absolute() && !location.exists())
            .collect();
        let state = settings.state_file.as_ref();
        let without_state = state.is_some_and(|state| !settings.resolve(folder, state).exists());
        Some(Self {
            used: used_images(&settings),
            unnamed: unnamed::images(patient, &settings)
                .into_values()
                .chain(unnamed::states(patient, &settings))
                .collect(),
            text: if without_state {
                stateless(&text)?
            } else {
                text
            },
            origin,
            source,
            missing,
            without_state,
        })
    }

    /// Putting it in place.
    pub(super) fn plan(&self, patient: &Patient<'_>, problem: &Problem) -> RepairPlan {
        let action = RepairAction::PutSettings {
            content: self.text.clone(),
            origin: self.origin.clone(),
            registered: patient.machine.registered,
        };
        let mut plan = patient.plan(problem.kind(), vec![action]);
        plan.intent.source.clone_from(&self.source);
        plan = plan.note(format!(
            "settings that were changed after {} are as they were then",
            self.origin
        ));
        if self.without_state {
            plan = plan.note(
                "the saved state that they name is not there: the machine will be powered off",
            );
        }
        if self.unnamed.is_empty() {
            return plan;
        }
        let images: Vec<_> = self
            .unnamed
            .iter()
            .map(|image| image.display().to_string())
            .collect();
        plan.only_if_named(
            problem.kind(),
            patient.machine.id.uuid(),
            format!(
                "these settings do not know {}: if that belongs to the machine, starting it with them spoils or loses \
                 what the guest did last",
                images.join(", ")
            ),
        )
    }
}

fn stateless(text: &str) -> Option<String> {
    let mut edit = SettingsEdit::new(text).ok()?;
    edit.set_state_file(None).ok()?;
    Some(edit.finish())
}

/// Copies of the settings, the likeliest first: VirtualBox's own, then those of the snapshots.
pub(super) fn candidates(patient: &Patient<'_>) -> Result<Vec<Candidate>> {
    let file = &patient.machine.settings_file;
    let previous = previous_settings(file);
    let mut found: Vec<_> = std::fs::read_to_string(&previous)
        .ok()
        .and_then(|text| {
            let origin = format!("VirtualBox's copy '{}'", previous.display());
            Candidate::of(patient, text, origin, None)
        })
        .into_iter()
        .collect();
    if let Some(memory) = patient.memory()? {
        found.extend(memory.snapshots().iter().filter_map(|of| {
            let text = memory.settings_text(of, patient.machine.folder()).ok()?;
            let origin = format!("snapshot {}", of.title());
            Candidate::of(patient, text, origin, Some(memory.source(of)))
        }));
    }
    Ok(found)
}

/// The images that are attached now or at a VirtualBox snapshot, and what those are based on.
fn used_images(settings: &MachineSettings) -> BTreeSet<Uuid> {
    let attached: BTreeSet<_> = settings
        .all_attachments()
        .filter(|attachment| attachment.kind == DeviceKind::HardDisk)
        .filter_map(|attachment| attachment.medium)
        .collect();
    let is_used = |disk: &&vrs_virtualbox::HardDisk| {
        let mut family = disk.walk();
        family.any(|related| attached.contains(&related.id))
    };
    let used = settings.all_hard_disks().filter(is_used);
    used.map(|disk| disk.id.uuid()).collect()
}
