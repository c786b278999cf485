//! `vrs doctor` as people see it.

use std::fs;

use vrs_testkit::{FakeVBoxManage, SampleMachine};

use crate::environment::{Environment, MIB, Run, settings};

/// A machine whose base image is gone, and which is in the repository.
fn broken() -> (Environment, SampleMachine) {
    let (environment, machine) = Environment::with_snapshot("web");
    fs::remove_file(&machine.chain(0)[0]).unwrap();
    (environment, machine)
}

/// Exit code, stdout and stderr, without what differs from run to run.
fn shown(environment: &Environment, run: &Run) -> String {
    let list = environment.json(&["list"]);
    let id = list["snapshots"][0]["id"].as_str().unwrap();
    let text = format!("{}\n{}{}", run.code, run.stdout, run.stderr);
    let text = text.replace(&id[..8], "ID");
    match (text.find("('first') of "), text.find(" UTC")) {
        (Some(from), Some(to)) => format!("{}('first') of TIME{}", &text[..from], &text[to + 4..]),
        _ => text,
    }
}

#[test]
fn findings_are_shown_and_nothing_is_done() {
    let (environment, machine) = broken();
    let path = settings(&machine);
    for arguments in [
        &["doctor", &path][..],
        &["doctor", &path, "--repair", "--dry-run"],
    ] {
        let run = environment.run(arguments);
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&environment, &run), @r"
            4
            machine 'web': the image 'FOLDER/machines/web/disk0.vdi' is not there
              repair: fetch 'FOLDER/machines/web/disk0.vdi' from the repository
              note: it is as of snapshot ID ('first') of TIME: what the guest wrote to it later is lost
            1 machine (no VirtualBox): 1 finding, 0 repaired, 1 left
            `vrs doctor --repair` carries repairs out
            ");
        }
        assert!(!machine.chain(0)[0].exists());
    }
}

#[test]
fn repairs_are_told_and_leave_nothing() {
    let (environment, machine) = broken();
    let path = settings(&machine);
    let run = environment.run(&["doctor", &path, "--repair", "--yes"]);
    insta::assert_snapshot!(shown(&environment, &run), @r"
    0
    machine 'web': the image 'FOLDER/machines/web/disk0.vdi' is not there
      done: fetch 'FOLDER/machines/web/disk0.vdi' from the repository
      note: it is as of snapshot ID ('first') of TIME: what the guest wrote to it later is lost
    1 machine (no VirtualBox): 1 finding, 1 repaired, 0 left
    ");
    insta::assert_snapshot!(shown(&environment, &environment.run(&["doctor", &path])), @r"
    0
    1 machine (no VirtualBox): nothing is wrong
    ");
}

#[test]
fn nothing_is_repaired_without_anybody_s_consent() {
    let (environment, machine) = broken();
    let path = settings(&machine);
    insta::assert_snapshot!(environment.fails(&["doctor", &path, "--repair"]), @r"
    2
    error: there is nobody to ask whether this is right; look at it with --dry-run, then say --yes
    ");
    insta::assert_snapshot!(environment.fails(&["doctor", &path, "--repair", "--yes", "--allow", "x"]), @r"
    2
    error: there is no repair that --allow x could mean; `vrs doctor` shows what there is
    ");
    assert!(!machine.chain(0)[0].exists());
}

#[test]
fn a_virtualbox_without_machines_is_named() {
    let environment = Environment::new();
    let virtualbox = FakeVBoxManage::new();
    let mut command = environment.bare_command(&["doctor"]);
    command
        .env("VRS_VBOXMANAGE", virtualbox.program())
        .env("USER", "me")
        .env("VBOX_USER_HOME", "/elsewhere");
    insta::assert_snapshot!(environment.finish(command).stdout, @r"
    VirtualBox 7.2.22_Debianr175245 of user me, VBOX_USER_HOME=/elsewhere knows no machine; each user has a VirtualBox of their own, and so has each VBOX_USER_HOME
    0 machines (VirtualBox 7.2.22_Debianr175245 of user me, VBOX_USER_HOME=/elsewhere): nothing is wrong
    ");
}

/// The journal is what a crash after the first step of a repair leaves.
#[test]
fn a_repair_that_was_cut_is_finished_by_recover_without_a_repository() {
    let environment = Environment::new();
    let machine = environment.machine("web", MIB);
    let whole = fs::read_to_string(machine.settings_path()).unwrap();
    fs::write(machine.settings_path(), "").unwrap();
    let intent = serde_json::json!({
        "operation": "repair",
        "machine": machine.id(),
        "machine_name": "web",
        "settings_file": machine.settings_path(),
        "source": null,
        "actions": [{
            "action": "put-settings",
            "content": whole,
            "origin": "a copy",
            "registered": false,
        }],
        "keep_in": environment.path().join("state/repairs/one"),
    });
    let begun = "2026-11-24T12:00:00Z";
    let lines = [
        serde_json::json!({"intent": {"version": 1, "begun": begun, "intent": intent}}),
        serde_json::json!({"step": {"step": "settle", "at": begun}}),
    ];
    let journal = format!("state/journal/{}.journal", machine.id());
    environment.write(
        &environment.path().join(journal),
        &format!("{}\n{}\n", lines[0], lines[1]),
    );
    let run = |arguments: &[&str]| environment.finish(environment.bare_command(arguments));
    insta::assert_snapshot!(run(&["recover", "--dry-run"]).stdout, @"repairing machine 'web', begun 2026-11-24 12:00:00: to be finished");
    insta::assert_snapshot!(run(&["recover"]).stdout, @"repairing machine 'web', begun 2026-11-24 12:00:00: finished");
    assert_eq!(fs::read_to_string(machine.settings_path()).unwrap(), whole);
    assert_eq!(
        fs::read(environment.path().join("state/repairs/one/web.vbox")).unwrap(),
        b""
    );
    insta::assert_snapshot!(run(&["recover"]).stdout, @"nothing is owed");
}
