//! What tests of the driver share: the driver on the rig, and its warnings.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Mutex;

use vrs_progress::{Counter, Phase, Progress};
use vrs_testkit::{Rig, RigMachine};
use vrs_virtualbox::{LocateOptions, MachineId, VBoxManage};

/// The driver for the registry of a rig.
pub fn driver(rig: &Rig) -> VBoxManage {
    VBoxManage::locate(&LocateOptions {
        program: Some(rig.program()),
        ..LocateOptions::default()
    })
    .unwrap()
}

pub fn id_of(machine: &RigMachine<'_>) -> MachineId {
    machine.id().into()
}

/// What was warned of.
#[derive(Default)]
pub struct Warnings {
    list: Mutex<Vec<String>>,
}

impl Warnings {
    pub fn text(&self) -> String {
        self.list.lock().unwrap().join("\n")
    }
}

impl Progress for Warnings {
    fn phase(&self, _phase: Phase) {}
    fn add(&self, _counter: Counter, _bytes: u64) {}
    fn warn(&self, warning: &str) {
        self.list.lock().unwrap().push(warning.to_owned());
    }
    fn note(&self, note: &str) {
        self.warn(note);
    }
}
