//! What `vrs doctor` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::doctor::{Cure, Examination, Finding, RepairPlan, Repaired};

use super::restore::{as_text, write_each};
use crate::errors::Failure;
use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "doctor")]
pub struct DoctorReport {
    /// Whose machines were looked at.
    pub virtualbox: String,
    /// How many.
    pub machines: usize,
    pub findings: Vec<FindingEntry>,
    /// What was not looked at, and why.
    pub skipped: Vec<String>,
}

/// One thing that is or was wrong.
#[derive(Debug, Serialize)]
pub struct FindingEntry {
    pub machine_id: Option<String>,
    pub machine_name: Option<String>,
    /// Its name, which never changes.
    pub problem: &'static str,
    /// What is wrong.
    pub message: String,
    /// The image that it is about.
    pub medium: Option<String>,
    pub status: FindingStatus,
    /// What doctor can do about it.
    pub repair: Option<RepairEntry>,
    /// What the user can do about it, where doctor cannot.
    pub advice: Option<String>,
    /// Why the repair failed.
    pub error: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingStatus {
    Found,
    Repaired,
    Failed,
}

/// A repair.
#[derive(Debug, Serialize)]
pub struct RepairEntry {
    pub actions: Vec<String>,
    pub notes: Vec<String>,
    /// The snapshot that a missing piece comes from.
    pub snapshot: Option<String>,
    /// What has to be named for it to be carried out, and why.
    pub consent: Option<ConsentEntry>,
    /// Copies of what was changed.
    pub kept: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct ConsentEntry {
    pub key: String,
    pub reason: String,
}

impl DoctorReport {
    pub fn new(examination: &Examination, virtualbox: String) -> Self {
        Self {
            virtualbox,
            machines: examination.machines,
            findings: examination
                .findings
                .iter()
                .map(FindingEntry::from)
                .collect(),
            skipped: examination.skipped.clone(),
        }
    }

    /// Whether nothing is wrong any more.
    pub fn is_in_order(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.status == FindingStatus::Repaired)
    }
}

impl From<&Finding> for FindingEntry {
    fn from(finding: &Finding) -> Self {
        let machine = finding.machine.as_ref();
        Self {
            machine_id: machine.map(|machine| machine.id.to_string()),
            machine_name: machine.map(|machine| machine.name.clone()),
            problem: finding.problem.kind(),
            message: finding.problem.to_string(),
            medium: finding.problem.medium().map(|medium| medium.to_string()),
            status: FindingStatus::Found,
            repair: finding.plan().map(RepairEntry::from),
            advice: match &finding.cure {
                Cure::Advice(advice) => Some(advice.clone()),
                Cure::Repair(_) => None,
            },
            error: None,
        }
    }
}

impl From<&RepairPlan> for RepairEntry {
    fn from(plan: &RepairPlan) -> Self {
        let actions = plan.intent.actions.iter();
        let source = plan.intent.source.as_ref();
        Self {
            actions: actions.map(|action| action.describe()).collect(),
            notes: plan.notes.clone(),
            snapshot: source.map(|source| source.snapshot.clone()),
            consent: plan.consent.as_ref().map(|consent| ConsentEntry {
                key: consent.key.clone(),
                reason: consent.reason.clone(),
            }),
            kept: Vec::new(),
        }
    }
}

impl FindingEntry {
    pub fn set_repaired(&mut self, repaired: &Repaired) {
        self.status = FindingStatus::Repaired;
        if let Some(repair) = &mut self.repair {
            repair.kept = as_text(&repaired.kept);
        }
    }

    /// It went along with something else that was repaired.
    pub fn set_gone(&mut self) {
        if self.status == FindingStatus::Found {
            self.status = FindingStatus::Repaired;
            self.advice = None;
        }
    }

    pub fn set_failed(&mut self, failure: Failure) {
        self.status = FindingStatus::Failed;
        self.error = Some(failure);
    }

    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.machine_name {
            Some(name) => write!(out, "machine '{}': ", text::name(name))?,
            None => write!(out, "media registry: ")?,
        }
        writeln!(out, "{}", text::name(&self.message))?;
        if let Some(advice) = &self.advice {
            writeln!(out, "  advice: {}", text::name(advice))?;
        }
        match (&self.repair, self.status) {
            (Some(repair), FindingStatus::Found) => repair.human_plan(out),
            (Some(repair), FindingStatus::Repaired) => repair.human_outcome(out),
            (None, FindingStatus::Repaired) => writeln!(out, "  gone with the rest"),
            // Failures are told where they happen.
            (Some(_), FindingStatus::Failed) => writeln!(out, "  not repaired"),
            (None, _) => Ok(()),
        }
    }
}

impl RepairEntry {
    fn human_plan(&self, out: &mut dyn Write) -> io::Result<()> {
        write_each(out, "repair", &self.actions)?;
        write_each(out, "note", &self.notes)?;
        match &self.consent {
            Some(consent) => writeln!(
                out,
                "  only with --allow {}: {}",
                text::name(&consent.key),
                text::name(&consent.reason)
            ),
            None => Ok(()),
        }
    }

    fn human_outcome(&self, out: &mut dyn Write) -> io::Result<()> {
        write_each(out, "done", &self.actions)?;
        write_each(out, "note", &self.notes)?;
        write_each(out, "kept", &self.kept)
    }
}

impl Report for DoctorReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.findings
            .iter()
            .try_for_each(|finding| finding.human(out))?;
        write_each(out, "not looked at", &self.skipped)?;
        let machines = text::count(self.machines, "machine");
        let whose = text::name(&self.virtualbox);
        if self.machines == 0 {
            writeln!(
                out,
                "{whose} knows no machine; each user has a VirtualBox of their own, and so has each VBOX_USER_HOME"
            )?;
        }
        if self.findings.is_empty() {
            return writeln!(out, "{machines} ({whose}): nothing is wrong");
        }
        let of_status = |status| {
            self.findings
                .iter()
                .filter(move |found| found.status == status)
        };
        let repaired = of_status(FindingStatus::Repaired).count();
        let left = self.findings.len().saturating_sub(repaired);
        writeln!(
            out,
            "{machines} ({whose}): {}, {repaired} repaired, {left} left",
            text::count(self.findings.len(), "finding")
        )?;
        if of_status(FindingStatus::Found).any(|finding| finding.repair.is_some()) {
            writeln!(out, "`vrs doctor --repair` carries repairs out")?;
        }
        Ok(())
    }
}
