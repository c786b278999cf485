//! VirtualBox's media registry: entries that lead nowhere, images in the way, contradictions.
//!
//! The registry is what VirtualBox has in memory; it is spread over the settings files of machines
//! and VirtualBox's own.

use std::collections::BTreeSet;
use std::path::Path;

use vrs_virtualbox::{MachineId, MachineSettings, Medium, MediumId};

use super::examination::{Scope, keep_in};
use super::finding::{Cure, Finding, Problem, RegistryEntry};
use super::repair::{RepairAction, RepairIntent, RepairPlan, aside};
use crate::error::Result;
use crate::host::Host;
use crate::journal::{Intent, Unfinished};
use crate::machine::Machine;

/// Looks at everything, or at what concerns the machine that was named.
pub(super) fn examine(
    host: &Host,
    patients: &[Machine],
    media: &[Medium],
    scope: &Scope,
) -> Result<Vec<Finding>> {
    let registry = Registry {
        host,
        media,
        owed: host.journals().unfinished()?,
    };
    let concerns = |medium: &&Medium| match scope {
        Scope::All => true,
        Scope::Machine(_) => patients
            .iter()
            .any(|machine| registry.concerns(medium, machine)),
    };
    let unused = media
        .iter()
        .filter(|medium| !registry.is_used(medium))
        .filter(concerns);
    let mut findings: Vec<Finding> = unused
        .filter_map(|medium| registry.look_at_unused(medium))
        .collect();
    findings.extend(conflicts(host, patients, scope)?);
    Ok(findings)
}

struct Registry<'a> {
    host: &'a Host,
    media: &'a [Medium],
    owed: Vec<Unfinished>,
}

impl Registry<'_> {
    /// Whether a machine uses the image or one that is based on it.
    fn is_used(&self, medium: &Medium) -> bool {
        self.family(medium)
            .iter()
            .any(|related| !related.used_by.is_empty())
    }

    /// The image and all that are based on it, parents first.
    fn family(&self, medium: &Medium) -> Vec<&Medium> {
        let mut ids = BTreeSet::from([medium.id]);
        // Parents are listed before their children.
        let related = self.media.iter().filter(|other| {
            let is_related = other.parent.is_some_and(|parent| ids.contains(&parent));
            ids.contains(&other.id) || is_related && ids.insert(other.id)
        });
        related.collect()
    }

    fn concerns(&self, medium: &Medium, machine: &Machine) -> bool {
        let is_based_on_its = self
            .ancestors(medium)
            .any(|ancestor| ancestor.used_by.contains(&machine.id));
        is_based_on_its || medium.location.starts_with(machine.folder())
    }

    /// What an image is based on, the nearest first.
    fn ancestors<'b>(&'b self, medium: &'b Medium) -> impl Iterator<Item = &'b Medium> {
        let parent_of = |medium: &&Medium| self.find(medium.parent?);
        std::iter::successors(Some(medium), parent_of)
            .skip(1)
            .take(self.media.len())
    }

    fn find(&self, id: MediumId) -> Option<&Medium> {
        self.media.iter().find(|medium| medium.id == id)
    }

    fn look_at_unused(&self, medium: &Medium) -> Option<Finding> {
        if is_gone(&medium.location) {
            return Some(self.without_file(medium));
        }
        let parent = self.find(medium.parent?)?;
        self.is_used(parent).then(|| self.stray(medium, parent))
    }

    fn without_file(&self, medium: &Medium) -> Finding {
        let problem = Problem::EntryWithoutFile {
            medium: medium.id,
            location: medium.location.clone(),
        };
        let family = self.family(medium);
        if let Some(child) = family.iter().find(|related| !is_gone(&related.location)) {
            let advice = format!(
                "'{}' is based on it and is there: look where the file went before the entry is given up",
                child.location.display()
            );
            return finding(problem, Cure::Advice(advice));
        }
        let mut plan = self.closing(&family, &problem);
        let folder = medium.location.parent();
        if folder.is_some_and(|folder| !folder.is_dir()) {
            plan = plan.only_if_named(
                problem.kind(),
                medium.id.uuid(),
                "its folder is not there either: perhaps a disk or a share is not mounted now",
            );
        }
        finding(problem, plan.into_cure())
    }

    /// One that an interrupted take left is in its journal.
    fn is_ours(&self, medium: &Medium) -> bool {
        self.owed.iter().any(|unfinished| match &unfinished.intent {
            Intent::Capture(intent) => {
                medium.location.starts_with(&intent.snapshot_folder)
                    && !intent.media_before.contains(&medium.id)
            }
            _ => false,
        })
    }

    fn stray(&self, medium: &Medium, parent: &Medium) -> Finding {
        let problem = Problem::StrayImage {
            medium: medium.id,
            location: medium.location.clone(),
            parent: parent.location.clone(),
        };
        if self.is_ours(medium) {
            let advice = "it is of a take that was interrupted: `vrs recover` removes it";
            return finding(problem, Cure::Advice(advice.to_owned()));
        }
        let plan = self
            .closing(&self.family(medium), &problem)
            .note("remove the file that is put aside when the machine is in order")
            .only_if_named(
                problem.kind(),
                medium.id.uuid(),
                "no journal says that it is ours, so it may hold something that is still wanted",
            );
        finding(problem, plan.into_cure())
    }

    fn closing(&self, family: &[&Medium], problem: &Problem) -> RepairPlan {
        // Children first: VirtualBox refuses to close an image that has some.
        let actions = family.iter().rev().map(|medium| RepairAction::CloseMedium {
            medium: medium.id,
            location: medium.location.clone(),
            aside: medium
                .location
                .is_file()
                .then(|| aside(&medium.location, "stray")),
        });
        let nobody = MachineId::default();
        RepairPlan::new(RepairIntent {
            machine: nobody,
            machine_name: String::new(),
            settings_file: Path::new("").to_owned(),
            source: None,
            actions: actions.collect(),
            keep_in: keep_in(self.host, problem.kind(), nobody),
        })
    }
}

fn is_gone(location: &Path) -> bool {
    location.is_absolute() && matches!(location.try_exists(), Ok(false))
}

fn finding(problem: Problem, cure: Cure) -> Finding {
    Finding {
        machine: None,
        problem,
        cure,
    }
}

/// Pairs of settings files that say different things about the same image or the same file.
fn conflicts(host: &Host, patients: &[Machine], scope: &Scope) -> Result<Vec<Finding>> {
    let all = match (scope, host.virtualbox()) {
        (Scope::Machine(_), Some(_)) => Machine::all(host)?,
        _ => patients.to_vec(),
    };
    let concerns = |entry: &RegistryEntry| {
        let mut files = patients.iter().map(|machine| &machine.settings_file);
        files.any(|file| *file == entry.settings_file)
    };
    let mut entries: Vec<RegistryEntry> = all.iter().flat_map(entries_of).collect();
    let mut found = Vec::new();
    while let Some(second) = entries.pop() {
        let contradicts = |first: &&RegistryEntry| {
            first.settings_file != second.settings_file
                && (first.medium == second.medium) != (first.location == second.location)
        };
        let against = entries.iter().filter(contradicts);
        let pairs = against.map(|first| (first.clone(), second.clone()));
        found.extend(pairs.filter(|(first, second)| concerns(first) || concerns(second)));
    }
    Ok(found.into_iter().map(conflict).collect())
}

fn conflict((first, second): (RegistryEntry, RegistryEntry)) -> Finding {
    let advice = "VirtualBox opens only one of the machines; if one was copied by hand, give it images of its own: \
                  restore it with `vrs clone`, or take it out of VirtualBox's list";
    finding(
        Problem::EntriesConflict { first, second },
        Cure::Advice(advice.to_owned()),
    )
}

fn entries_of(machine: &Machine) -> Vec<RegistryEntry> {
    let Ok(settings) = MachineSettings::read(&machine.settings_file) else {
        return Vec::new();
    };
    let entry = |disk: &vrs_virtualbox::HardDisk| RegistryEntry {
        settings_file: machine.settings_file.clone(),
        medium: disk.id,
        location: settings.resolve(machine.folder(), &disk.location),
    };
    settings.all_hard_disks().map(entry).collect()
}
