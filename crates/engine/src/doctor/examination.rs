//! Looking for trouble.

use std::cell::OnceCell;
use std::path::PathBuf;

use vrs_progress::{Phase, Progress};
use vrs_repository::store::SnapshotStore;
use vrs_virtualbox::{MachineId, Medium};

use super::finding::{Cure, Finding, FoundMachine, Problem};
use super::memory::Memory;
use super::repair::{RepairAction, RepairIntent, RepairPlan};
use super::{images, patients, registry, settings, states};
use crate::error::{Result, stop_if_interrupted};
use crate::host::Host;
use crate::machine::Machine;
use crate::recover;

/// What is examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All machines that VirtualBox lists, and its media registry.
    All,
    /// One machine, by its name, its id or the path of its settings file.
    Machine(String),
}

/// What an examination found.
#[derive(Debug, Clone)]
pub struct Examination {
    /// How many machines were looked at.
    pub machines: usize,
    /// What is wrong, machine by machine.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why.
    pub skipped: Vec<String>,
}

/// Looks for trouble. Without a `store` no missing piece is found in the repository.
pub fn examine(
    host: &Host,
    store: Option<&dyn SnapshotStore>,
    scope: &Scope,
    progress: &dyn Progress,
) -> Result<Examination> {
    let patients = patients::find(host, scope)?;
    let media = match host.virtualbox() {
        Some(virtualbox) => virtualbox.media()?,
        None => Vec::new(),
    };
    let mut examination = Examination {
        machines: patients.len(),
        findings: owed(host, &patients, scope)?,
        skipped: Vec::new(),
    };
    for machine in &patients {
        stop_if_interrupted(progress, "nothing was changed")?;
        progress.phase(Phase {
            name: "examining",
            subject: machine.name.clone(),
            total_bytes: None,
        });
        let patient = Patient {
            host,
            store,
            machine,
            is_named: matches!(scope, Scope::Machine(_)),
            media: &media,
            memory: OnceCell::new(),
            progress,
        };
        patient.examine(&mut examination)?;
    }
    let in_scope = registry::examine(host, &patients, &media, scope)?;
    examination.findings.extend(in_scope);
    Ok(examination)
}

/// Operations that were interrupted, of the machines that are looked at or of all.
fn owed(host: &Host, patients: &[Machine], scope: &Scope) -> Result<Vec<Finding>> {
    let owed = recover::owed(host)?.into_iter().filter(|unfinished| {
        *scope == Scope::All
            || patients
                .iter()
                .any(|machine| machine.id == unfinished.machine)
    });
    let finding = |unfinished: crate::journal::Unfinished| Finding {
        machine: Some(FoundMachine {
            id: unfinished.machine,
            name: unfinished.intent.machine_name().to_owned(),
        }),
        problem: Problem::Unfinished {
            title: unfinished.intent.title(),
        },
        cure: Cure::Advice("run `vrs recover` to finish it".to_owned()),
    };
    Ok(owed.map(finding).collect())
}

/// A machine being examined.
pub(super) struct Patient<'a> {
    pub(super) host: &'a Host,
    pub(super) store: Option<&'a dyn SnapshotStore>,
    pub(super) machine: &'a Machine,
    /// Whether the user asked for this machine, so that it may take longer.
    pub(super) is_named: bool,
    /// Everything in VirtualBox's media registry.
    pub(super) media: &'a [Medium],
    memory: OnceCell<Option<Memory<'a>>>,
    pub(super) progress: &'a dyn Progress,
}

impl<'a> Patient<'a> {
    fn examine(&self, examination: &mut Examination) -> Result<()> {
        let Some(settings) = settings::examine(self, &mut examination.findings)? else {
            return Ok(());
        };
        images::examine(self, &settings, examination)?;
        states::examine(self, &settings, &mut examination.findings)
    }

    /// Whether nobody writes to its files.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = &self.machine.state;
        state.is_at_rest() || state.is_inaccessible()
    }

    /// What the repository remembers of the machine, if there is one.
    pub(super) fn memory(&self) -> Result<Option<&Memory<'a>>> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory.as_ref());
        }
        let memory = self
            .store
            .map(|store| Memory::of_machine(store, self.machine.id))
            .transpose()?;
        Ok(self.memory.get_or_init(|| memory).as_ref())
    }

    pub(super) fn found(&self, problem: Problem, cure: Cure) -> Finding {
        let machine = FoundMachine {
            id: self.machine.id,
            name: self.machine.name.clone(),
        };
        Finding {
            machine: Some(machine),
            problem,
            cure,
        }
    }

    /// Where pieces are missing: what would help.
    pub(super) fn without_source(&self, otherwise: &str) -> String {
        if self.store.is_some() {
            format!("the repository has no copy of it that fits; {otherwise}")
        } else {
            format!(
                "name the repository that has snapshots of the machine with --repo: it may have the missing piece; otherwise {otherwise}"
            )
        }
    }

    /// A repair of this machine.
    pub(super) fn plan(&self, kind: &'static str, actions: Vec<RepairAction>) -> RepairPlan {
        RepairPlan::new(RepairIntent {
            machine: self.machine.id,
            machine_name: self.machine.name.clone(),
            settings_file: self.machine.settings_file.clone(),
            source: None,
            actions,
            keep_in: keep_in(self.host, kind, self.machine.id),
        })
    }
}

/// A folder of its own for the copies that a repair keeps.
pub(super) fn keep_in(host: &Host, kind: &'static str, machine: MachineId) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ");
    let name = format!("{now}-{}-{machine}", kind.replace('_', "-"));
    host.state_folder.join("repairs").join(name)
}
