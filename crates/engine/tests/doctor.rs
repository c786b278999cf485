//! Repairs that are cut at every step, and damage of any kind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;
mod registered;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use common::{MIB, Scene, Tree, assert_same, tree};
use proptest::prelude::*;
use registered::{assert_listed, recover_all, small_machine, virtualbox, with_virtualbox};
use vrs_engine::doctor::{self, Finding, RepairAction, Scope};
use vrs_engine::recover;
use vrs_progress::{NoProgress, Progress};
use vrs_testkit::{SampleMachine, random_bytes, run_at_every_step};

/// A machine with a VirtualBox snapshot and a saved state that is in the repository as it is.
fn stored_machine(folder: &Path) -> (Scene, SampleMachine) {
    let scene = Scene::with_repository(folder);
    let mut machine = small_machine(&scene, "web");
    machine.take_virtualbox_snapshot("early");
    machine.fill(0, MIB, 200_000, 5);
    machine.save_state(b"ram");
    scene.take(&machine);
    (scene, machine)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

fn settings_path(scene: &Scene) -> String {
    let file = scene.folder.join("machines/web/web.vbox");
    file.to_str().unwrap().to_owned()
}

fn examine(scene: &Scene) -> Vec<Finding> {
    let scope = Scope::Machine(settings_path(scene));
    doctor::examine(&scene.host, Some(scene.store()), &scope, &NoProgress)
        .unwrap()
        .findings
}

fn kinds(findings: &[Finding]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = findings
        .iter()
        .map(|finding| finding.problem.kind())
        .collect();
    kinds.sort_unstable();
    kinds
}

/// Carries out all that can be repaired.
fn repair(scene: &Scene, progress: &dyn Progress) {
    for finding in examine(scene)
        .iter()
        .filter(|finding| finding.plan().is_some())
    {
        doctor::execute(&scene.host, Some(scene.store()), finding, progress).unwrap();
    }
}

/// Breaks a registered machine, and crashes the repair everywhere.
fn crash_repair(test: &str, damage: impl Fn(&Scene, &SampleMachine)) {
    let whole = RefCell::new(Tree::new());
    let scene_in = |folder: &Path| with_virtualbox(Scene::new(folder));
    let crashes = run_at_every_step(
        test,
        |folder| {
            let (scene, machine) = stored_machine(folder);
            *whole.borrow_mut() = tree(&scene.machines());
            virtualbox(folder).register(&machine.settings_path());
            damage(&scene, &machine);
        },
        |folder, progress| repair(&scene_in(folder), progress),
        |folder, crash| {
            let what = format!("{crash:?}");
            let scene = scene_in(folder);
            recover_all(&scene);
            assert!(recover::owed(&scene.host).unwrap().is_empty(), "{what}");
            repair(&scene, &NoProgress);
            assert_eq!(kinds(&examine(&scene)), Vec::<&str>::new(), "{what}");
            let mut now = tree(&scene.machines());
            now.retain(|path, _| !path.to_str().unwrap().contains(".damaged-"));
            assert_same(&now, &whole.borrow(), &what);
            assert_listed(&scene, &["web"], &what);
        },
    );
    assert!(crashes.iter().any(|crash| crash.step == "journal-record"));
}

#[test]
fn images_at_every_step() {
    crash_repair("images_at_every_step", |scene, machine| {
        let [leaf, base] = &machine.chain(0)[..] else {
            panic!("two images")
        };
        overwrite(base, 0, &random_bytes(1, 512));
        fs::remove_file(leaf).unwrap();
        let scene = with_virtualbox(Scene::new(&scene.folder));
        assert_eq!(kinds(&examine(&scene)), ["image_damaged", "image_missing"]);
    });
}

#[test]
fn a_saved_state_at_every_step() {
    crash_repair("a_saved_state_at_every_step", |scene, machine| {
        let saved = machine.files().into_iter();
        let mut saved = saved.filter(|path| path.extension().is_some_and(|end| end == "sav"));
        overwrite(&saved.next().unwrap(), 100, b"garbage");
        let scene = with_virtualbox(Scene::new(&scene.folder));
        let id = machine.id().to_string();
        let named = doctor::examine(&scene.host, None, &Scope::Machine(id), &NoProgress);
        assert_eq!(kinds(&named.unwrap().findings), ["state_damaged"]);
    });
}

#[test]
fn settings_at_every_step() {
    crash_repair("settings_at_every_step", |scene, machine| {
        fs::write(machine.settings_path(), "").unwrap();
        virtualbox(&scene.folder).set_state(machine.id(), "inaccessible");
        let scene = with_virtualbox(Scene::new(&scene.folder));
        assert_eq!(kinds(&examine(&scene)), ["settings_unreadable"]);
    });
}

#[test]
fn a_machine_that_runs_is_not_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, machine) = stored_machine(folder.path());
    virtualbox(folder.path()).register(&machine.settings_path());
    let scene = with_virtualbox(scene);
    overwrite(&machine.chain(0)[1], 0, &random_bytes(1, 512));
    let findings = examine(&scene);
    virtualbox(folder.path()).set_state(machine.id(), "running");
    let before = tree(&scene.machines());
    let error = doctor::execute(&scene.host, Some(scene.store()), &findings[0], &NoProgress);
    insta::assert_snapshot!(error.unwrap_err(), @"machine 'web' is running, so it cannot be repaired now; power it off first");
    assert_same(&tree(&scene.machines()), &before, "running");
    assert!(recover::owed(&scene.host).unwrap().is_empty());
}

#[test]
fn an_image_that_changed_since_the_examination_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, machine) = stored_machine(folder.path());
    let base = machine.chain(0)[1].clone();
    overwrite(&base, 0, &random_bytes(1, 512));
    let findings = examine(&scene);
    let file = fs::OpenOptions::new().append(true).open(&base).unwrap();
    file.set_len(file.metadata().unwrap().len() + MIB).unwrap();
    let before = tree(&scene.machines());
    let error = doctor::execute(&scene.host, Some(scene.store()), &findings[0], &NoProgress);
    let text = error.unwrap_err().to_string();
    let text = text.replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(text, @"repairing machine 'web' was stopped: 'FOLDER/machines/web/disk0.vdi' has changed meanwhile; nothing was changed, `vrs doctor` looks again");
    assert_same(&tree(&scene.machines()), &before, "changed");
    assert!(recover::owed(&scene.host).unwrap().is_empty());
}

#[test]
fn a_stored_copy_that_is_damaged_too_is_not_put_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, machine) = stored_machine(folder.path());
    let mut saved = machine.files();
    saved.retain(|path| path.extension().is_some_and(|end| end == "sav"));
    overwrite(&saved[0], 100, b"garbage");
    scene.take(&machine);
    let before = tree(&scene.machines());
    let findings = examine(&scene);
    let error = doctor::execute(&scene.host, Some(scene.store()), &findings[0], &NoProgress);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("' cannot be used either: its directory is damaged: at byte 64 there is a unit with a name too long"), "{text}");
    assert_same(&tree(&scene.machines()), &before, "stopped");
    assert!(recover::owed(&scene.host).unwrap().is_empty());
}

#[test]
fn what_did_not_help_says_what_is_left() {
    let error = vrs_engine::Error::NotCured {
        title: "repairing machine 'web'".to_owned(),
        what: "the image '/web/disk.vdi' is not there".to_owned(),
    };
    insta::assert_snapshot!(error, @"repairing machine 'web' did not help: the image '/web/disk.vdi' is not there; a copy of what was changed is kept, and `vrs restore` brings the whole machine back to a snapshot");
}

#[test]
fn without_a_repository_it_is_said_that_one_would_help() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, machine) = stored_machine(folder.path());
    fs::remove_file(&machine.chain(0)[1]).unwrap();
    let scope = Scope::Machine(settings_path(&scene));
    let examination = doctor::examine(&scene.host, None, &scope, &NoProgress).unwrap();
    let doctor::Cure::Advice(advice) = &examination.findings[0].cure else {
        panic!("{examination:?}")
    };
    insta::assert_snapshot!(advice, @"name the repository that has snapshots of the machine with --repo: it may have the missing piece; otherwise `vrs restore` brings the whole machine back to a snapshot");
}

/// One file of the machine is damaged.
#[derive(Debug, Clone)]
enum Damage {
    Overwrite(usize, u64, Vec<u8>),
    Cut(usize, u64),
    Remove(usize),
}

fn damages() -> impl Strategy<Value = Damage> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..64);
    prop_oneof![
        3 => (0_usize..8, 0_u64..1200, bytes).prop_map(|(file, at, bytes)| Damage::Overwrite(file, at, bytes)),
        1 => (0_usize..8, 0_u64..4 * MIB).prop_map(|(file, length)| Damage::Cut(file, length)),
        1 => (0_usize..8).prop_map(Damage::Remove),
    ]
}

fn strike(files: &[PathBuf], damage: &Damage) {
    let file = |number: &usize| &files[number % files.len()];
    match damage {
        Damage::Overwrite(number, offset, bytes) if file(number).exists() => {
            overwrite(file(number), *offset, bytes);
        }
        Damage::Cut(number, length) if file(number).exists() => {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(file(number))
                .unwrap();
            let length = (*length).min(file.metadata().unwrap().len());
            file.set_len(length).unwrap();
        }
        Damage::Remove(number) => drop(fs::remove_file(file(number))),
        _ => {}
    }
}

/// The files that a repair may change.
fn targets(finding: &Finding) -> Vec<PathBuf> {
    let intent = &finding.plan().unwrap().intent;
    let of_action = |action: &RepairAction| match action {
        RepairAction::Fetch { target, aside, .. } => {
            aside.iter().cloned().chain([target.clone()]).collect()
        }
        RepairAction::WriteHead { image, .. } | RepairAction::SetParent { image, .. } => {
            vec![image.clone()]
        }
        _ => vec![intent.settings_file.clone()],
    };
    intent.actions.iter().flat_map(of_action).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happened to the files: no panic, looking changes nothing, and repairs change what
    /// they say and nothing else.
    #[test]
    fn any_damage_is_looked_at_and_repaired_within_the_plan(
        damages in proptest::collection::vec(damages(), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (scene, machine) = stored_machine(folder.path());
        let mut files = machine.files();
        files.push(machine.settings_path());
        fs::copy(machine.settings_path(), machine.settings_path().with_extension("vbox-prev")).unwrap();
        files.push(machine.settings_path().with_extension("vbox-prev"));
        damages.iter().for_each(|damage| strike(&files, damage));
        let scope = Scope::Machine(settings_path(&scene));
        let before = tree(&scene.machines());
        let examination = doctor::examine(&scene.host, Some(scene.store()), &scope, &NoProgress);
        assert_same(&tree(&scene.machines()), &before, "looking");
        // A settings file without any copy that can be read names no machine.
        let Ok(examination) = examination else { return Ok(()) };
        let mut allowed = BTreeSet::new();
        for finding in examination.findings.iter().filter(|finding| finding.plan().is_some()) {
            allowed.extend(targets(finding));
            let _ = doctor::execute(&scene.host, Some(scene.store()), finding, &NoProgress);
        }
        let mut now = tree(&scene.machines());
        let mut untouched = before;
        now.retain(|path, _| !allowed.contains(path));
        untouched.retain(|path, _| !allowed.contains(path));
        assert_same(&now, &untouched, "repairing");
    }
}
