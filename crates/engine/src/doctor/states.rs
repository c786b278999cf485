//! What a machine has besides its disks: saved states and non-volatile memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vrs_virtualbox::{MachineSettings, SavedState, SavedStateFault, VirtualBoxSnapshot};

use super::examination::Patient;
use super::finding::{Cure, Finding, Problem};
use super::repair::{FetchedFile, RepairAction, aside};
use crate::capture::{STATELESS_KEY, TRANSIENT_PREFIX};
use crate::error::Result;
use crate::manifest::FileRole;

/// Looks whether the files that the settings name are there and whole.
pub(super) fn examine(
    patient: &Patient<'_>,
    settings: &MachineSettings,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for lost in lost_states(patient, settings)? {
        findings.push(lost_state(patient, lost)?);
    }
    for location in nvram_files(patient, settings) {
        findings.extend(missing_nvram(patient, settings, location)?);
    }
    // Whoever has a journal may be at work now; else it is owed, which is found elsewhere.
    if patient
        .host
        .journals()
        .of_machine(patient.machine.id)?
        .is_none()
    {
        findings.extend(stateless_snapshots(patient, settings));
        findings.extend(transient_snapshots(patient, settings));
    }
    Ok(())
}

fn stateless_snapshots(patient: &Patient<'_>, settings: &MachineSettings) -> Option<Finding> {
    let machine = patient.machine;
    if !settings.extra_data.contains_key(STATELESS_KEY) {
        return None;
    }
    let problem = Problem::StatelessSnapshots;
    let action = RepairAction::RemoveExtraData {
        key: STATELESS_KEY.to_owned(),
    };
    let plan = patient.plan(problem.kind(), vec![action]).only_if_named(
        problem.kind(),
        machine.id.uuid(),
        "no journal says that it is ours, so somebody may want it",
    );
    Some(patient.found(problem, plan.into_cure()))
}

fn transient_snapshots(patient: &Patient<'_>, settings: &MachineSettings) -> Vec<Finding> {
    let is_transient = |snapshot: &&VirtualBoxSnapshot| snapshot.name.starts_with(TRANSIENT_PREFIX);
    let finding = |snapshot: &VirtualBoxSnapshot| {
        let advice = format!(
            "if no other vrs is taking the machine now, delete it: VBoxManage snapshot {} delete {}",
            patient.machine.id, snapshot.id
        );
        let problem = Problem::TransientSnapshot {
            id: snapshot.id.uuid(),
            name: snapshot.name.clone(),
        };
        patient.found(problem, Cure::Advice(advice))
    };
    let snapshots = settings.virtualbox_snapshots();
    snapshots.filter(is_transient).map(finding).collect()
}

/// A saved state that cannot be used.
struct LostState {
    location: PathBuf,
    /// The VirtualBox snapshot that it belongs to, if it is not the machine's own.
    virtualbox_snapshot: Option<String>,
    /// What is wrong with it, if it is there.
    fault: Option<String>,
}

/// Saved states that are not there or are damaged. One that the machine shares with a VirtualBox
/// snapshot is the machine's.
fn lost_states(patient: &Patient<'_>, settings: &MachineSettings) -> Result<Vec<LostState>> {
    let own = settings.state_file.iter().map(|state| (state, None));
    let of_snapshots = settings.virtualbox_snapshots().filter_map(|snapshot| {
        let state = snapshot.state_file.as_ref()?;
        Some((state, Some(snapshot.name.clone())))
    });
    let mut seen = BTreeSet::new();
    let mut lost = Vec::new();
    for (state, virtualbox_snapshot) in own.chain(of_snapshots) {
        let location = settings.resolve(patient.machine.folder(), state);
        if !seen.insert(location.clone()) {
            continue;
        }
        let fault = if location.exists() {
            fault_of(patient, &location)?
        } else {
            None
        };
        if fault.is_some() || !location.exists() {
            lost.push(LostState {
                location,
                virtualbox_snapshot,
                fault,
            });
        }
    }
    Ok(lost)
}

/// All of a saved state is read only if its machine was named: it may be as large as the memory.
fn fault_of(patient: &Patient<'_>, location: &Path) -> Result<Option<String>> {
    if !patient.is_at_rest() {
        return Ok(None);
    }
    let read = if patient.is_named {
        SavedState::verify(location, patient.progress)
    } else {
        SavedState::read(location)
    };
    match read {
        Err(vrs_virtualbox::Error::SavedState { fault, .. })
            if !matches!(fault, SavedStateFault::UnknownFormat { .. }) =>
        {
            Ok(Some(fault.to_string()))
        }
        Err(error @ vrs_virtualbox::Error::Interrupted { .. }) => Err(error.into()),
        _ => Ok(None),
    }
}

fn lost_state(patient: &Patient<'_>, lost: LostState) -> Result<Finding> {
    let LostState {
        location,
        virtualbox_snapshot,
        fault,
    } = lost;
    let is_own = virtualbox_snapshot.is_none();
    let is_there = fault.is_some();
    let problem = match fault {
        None => Problem::StateMissing {
            location: location.clone(),
            virtualbox_snapshot,
        },
        Some(fault) => Problem::StateDamaged {
            location: location.clone(),
            virtualbox_snapshot,
            fault,
        },
    };
    let put_aside = is_there.then(|| aside(&location, "damaged"));
    let what = FetchedFile::SavedState;
    let cure = match fetch(patient, what, &location, put_aside.clone(), problem.kind())? {
        Some(cure) => cure,
        None if is_own => {
            let damaged = put_aside.map(|place| (location, place));
            discarding(patient, damaged, problem.kind())
        }
        None => Cure::Advice(patient.without_source(
            "the VirtualBox snapshot can be restored nevertheless; discard the saved state then",
        )),
    };
    Ok(patient.found(problem, cure))
}

fn discarding(
    patient: &Patient<'_>,
    damaged: Option<(PathBuf, PathBuf)>,
    kind: &'static str,
) -> Cure {
    let reason = patient.without_source(
        "what the guest had not written to its disks is lost, as after a power cut",
    );
    let plan = patient.plan(kind, vec![RepairAction::DiscardState { damaged }]);
    plan.only_if_named(kind, patient.machine.id.uuid(), reason)
        .into_cure()
}

/// The machine's nvram and those of its VirtualBox snapshots.
fn nvram_files(patient: &Patient<'_>, settings: &MachineSettings) -> Vec<PathBuf> {
    let usual = settings.nvram_location();
    let named = settings.nvram_files().chain([usual.as_str()]);
    let mut files: Vec<PathBuf> = named
        .map(|location| settings.resolve(patient.machine.folder(), location))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// A machine without EFI and TPM has no nvram, and one with it has none before its first start: what
/// is missing must be named in the settings or be known from a snapshot.
fn missing_nvram(
    patient: &Patient<'_>,
    settings: &MachineSettings,
    location: PathBuf,
) -> Result<Option<Finding>> {
    if location.exists() {
        return Ok(None);
    }
    let mut named = settings.nvram_files();
    let hardware = &settings.hardware;
    let has_nvram = hardware.firmware.is_some() || hardware.tpm.is_some();
    let is_named = named.any(|named| settings.resolve(patient.machine.folder(), named) == location);
    if !is_named && !has_nvram {
        return Ok(None);
    }
    let problem = Problem::NvramMissing {
        location: location.clone(),
    };
    let fetched = fetch(patient, FetchedFile::Nvram, &location, None, problem.kind())?;
    let advice =
        "the machine starts with an empty one: EFI boots by default, a TPM's secrets are gone";
    let advised = || is_named.then(|| Cure::Advice(patient.without_source(advice)));
    let cure = fetched.or_else(advised);
    Ok(cure.map(|cure| patient.found(problem, cure)))
}

/// Fetching a file of the machine from the latest snapshot that has it.
fn fetch(
    patient: &Patient<'_>,
    what: FetchedFile,
    location: &Path,
    aside: Option<PathBuf>,
    kind: &'static str,
) -> Result<Option<Cure>> {
    let Some(memory) = patient.memory()? else {
        return Ok(None);
    };
    let role = match what {
        FetchedFile::Image(_) => FileRole::Disk,
        FetchedFile::SavedState => FileRole::SavedState,
        FetchedFile::Nvram => FileRole::Nvram,
    };
    let Some((of, file)) = memory.file(role, patient.machine.folder(), location) else {
        return Ok(None);
    };
    let action = RepairAction::Fetch {
        path: file.path.clone(),
        target: location.to_owned(),
        what,
        aside,
    };
    let plan = patient
        .plan(kind, vec![action])
        .with_source(memory.source(of))
        .note(format!("it is as of snapshot {}", of.title()));
    Ok(Some(plan.into_cure()))
}
