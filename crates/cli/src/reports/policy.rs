//! What `vrs policy` answers.

use std::io::{self, Write};

use serde::Serialize;
use vrs_engine::policy::Policy;
use vrs_engine::retention::Rules;
use vrs_engine::snapshot::Snapshot;

use crate::printer::Report;
use crate::text;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "policy")]
pub struct PolicyReport {
    /// In which days begin.
    time_zone: String,
    repository: Rules,
    machines: Vec<MachineRules>,
}

#[derive(Debug, Serialize)]
struct MachineRules {
    machine_id: String,
    /// As in its latest snapshot.
    machine_name: Option<String>,
    rules: Rules,
}

impl PolicyReport {
    pub fn new(policy: &Policy, snapshots: &[Snapshot]) -> Self {
        let machines = policy.machines.iter().map(|(id, rules)| MachineRules {
            machine_id: id.to_string(),
            machine_name: snapshots
                .iter()
                .rev()
                .find(|snapshot| snapshot.machine == *id)
                .map(|snapshot| snapshot.machine_name.clone()),
            rules: rules.clone(),
        });
        Self {
            time_zone: policy.time_zone.clone(),
            repository: policy.repository.clone(),
            machines: machines.collect(),
        }
    }
}

impl Report for PolicyReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "every machine: {}", self.repository)?;
        for machine in &self.machines {
            let name = machine.machine_name.as_deref();
            let name = text::name(name.unwrap_or(&machine.machine_id));
            writeln!(out, "{name}: {}", machine.rules)?;
        }
        writeln!(out, "days begin in the time zone {}", self.time_zone)
    }
}
