//! What is looked at before a machine of a fake VirtualBox is captured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod registered;

use std::path::Path;
use std::sync::Mutex;

use common::Scene;
use registered::{small_machine, virtualbox, with_virtualbox};
use vrs_engine::capture::CaptureMode;
use vrs_engine::inventory::{Inventory, Missing};
use vrs_engine::machine::Machine;
use vrs_engine::preflight::{self, Level, PreflightRequest, Verdict};
use vrs_engine::{ErrorKind, Result};
use vrs_progress::{Counter, Phase, Progress};
use vrs_testkit::SampleMachine;

/// A scene with a machine that the fake says is running.
fn running(folder: &Path) -> (Scene, SampleMachine) {
    let scene = with_virtualbox(Scene::new(folder));
    let sample = small_machine(&scene, "web");
    virtualbox(folder).register(&sample.settings_path());
    virtualbox(folder).set_state(sample.id(), "running");
    (scene, sample)
}

fn examine(scene: &Scene, sample: &SampleMachine, force: &[&str]) -> Result<Vec<Verdict>> {
    let machine = Machine::find(&scene.host, &sample.id().to_string())?;
    let inventory = Inventory::of(&scene.host, &machine, Missing::Refuse)?;
    let request = PreflightRequest {
        mode: CaptureMode::Memory,
        skip_disks: Vec::new(),
        force: force.iter().map(|name| (*name).to_owned()).collect(),
    };
    preflight::examine(&scene.host, &machine, &inventory, &request)
}

fn forbid_saving(sample: &SampleMachine) {
    let text = std::fs::read_to_string(sample.settings_path()).unwrap();
    let item = r#"<ExtraData><ExtraDataItem name="VBoxInternal2/DisableSaveState" value="1"/></ExtraData></Machine>"#;
    std::fs::write(sample.settings_path(), text.replace("</Machine>", item)).unwrap();
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn phase(&self, _: Phase) {}
    fn add(&self, _: Counter, _: u64) {}
    fn step(&self, _: &'static str) {}
    fn warn(&self, warning: &str) {
        self.0.lock().unwrap().push(warning.to_owned());
    }
    fn interrupted(&self) -> bool {
        false
    }
}

#[test]
fn each_check_says_that_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, sample) = running(folder.path());
    let verdicts = examine(&scene, &sample, &[]).unwrap();
    let table: Vec<_> = verdicts
        .iter()
        .map(|verdict| format!("{:<20}{}", verdict.name, verdict.level))
        .collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    machine-state       ok
    session-lock        ok
    stray-snapshot      ok
    save-state-disabled ok
    zero-blocks         ok
    disk-kind           ok
    other-children      ok
    media-access        ok
    nvram               ok
    free-space          ok
    ");
    let json = serde_json::to_string(&verdicts[0]).unwrap();
    insta::assert_snapshot!(json, @r#"{"name":"machine-state","subject":"web","level":"ok","reason":"the machine is running","advice":""}"#);
}

#[test]
fn a_refusal_stops_unless_it_is_forced() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, sample) = running(folder.path());
    forbid_saving(&sample);
    let machine = Machine::find(&scene.host, &sample.id().to_string()).unwrap();
    let warnings = Warnings::default();
    let verdicts = examine(&scene, &sample, &[]).unwrap();
    let error = preflight::refuse_or_warn(&machine, &verdicts, &warnings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    insta::assert_snapshot!(error, @"machine 'web' is not taken, because that could hurt it: save-state-disabled: web: its extra data 'VBoxInternal2/DisableSaveState' forbids VirtualBox to save its memory; take it with --disks-only, or remove that extra data; `--force NAME` overrides a verdict of that name");

    let verdicts = examine(&scene, &sample, &["save-state-disabled"]).unwrap();
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict.level < Level::Refused)
    );
    preflight::refuse_or_warn(&machine, &verdicts, &warnings).unwrap();
    insta::assert_snapshot!(warnings.0.into_inner().unwrap().join("\n"), @"save-state-disabled: web: its extra data 'VBoxInternal2/DisableSaveState' forbids VirtualBox to save its memory (forced); take it with --disks-only, or remove that extra data");
}

#[test]
fn a_machine_at_rest_that_somebody_holds_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, sample) = running(folder.path());
    // On the way down the machine's state is known before its session is closed.
    let machine = Machine {
        state: "poweroff".parse().unwrap(),
        ..Machine::find(&scene.host, &sample.id().to_string()).unwrap()
    };
    let inventory = Inventory::of(&scene.host, &machine, Missing::Refuse).unwrap();
    let request = PreflightRequest {
        mode: CaptureMode::Memory,
        skip_disks: Vec::new(),
        force: Vec::new(),
    };
    let verdicts = preflight::examine(&scene.host, &machine, &inventory, &request).unwrap();
    let refused: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict.level == Level::Refused)
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(refused.join("\n"), @"session-lock: web: the machine is locked by 'headless', which may be changing it; close its settings, or wait until that program is done");
}
