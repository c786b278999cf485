//! Policy, pins and pruning, without VirtualBox and any machine.

use serde_json::Value;

use crate::environment::{Environment, MIB, settings};
use crate::json::documented;

/// Three snapshots of one machine: `first`, one without a name, `last`.
fn three_snapshots() -> Environment {
    let (environment, mut machine) = Environment::with_snapshot("web");
    environment.succeeds(&["take", &settings(&machine)]);
    machine.fill(0, 0, MIB, 100);
    environment.succeeds(&["take", &settings(&machine), "--name", "last"]);
    // From now on there is no machine, as where the repository lies.
    std::fs::remove_dir_all(environment.path().join("machines")).unwrap();
    environment
}

fn names(document: &Value) -> Vec<&str> {
    let snapshots = document["snapshots"].as_array().unwrap();
    snapshots
        .iter()
        .map(|one| one["name"].as_str().unwrap_or("-"))
        .collect()
}

#[test]
fn a_stored_policy_is_applied_and_pins_stay() {
    let environment = three_snapshots();
    let shown = environment.succeeds(&["policy", "set", "--keep-last", "1"]);
    assert!(
        shown.starts_with("every machine: --keep-last 1\n"),
        "{shown}"
    );
    environment.succeeds(&["edit", "web@first", "--pin"]);
    let plan = environment.json(&["prune", "--dry-run"]);
    assert_eq!(names(&plan), ["last", "-", "first"]);
    let kept: Vec<_> = plan["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["reasons"].to_string())
        .collect();
    assert_eq!(kept, [r#"["latest","last"]"#, "[]", r#"["pinned"]"#]);
    assert_eq!(names(&environment.json(&["list"])), ["first", "-", "last"]);

    let run = environment.run(&["prune"]);
    assert_eq!(run.code, 2, "nobody to ask: {}", run.stderr);
    let text = environment.succeeds(&["prune", "--yes"]);
    assert!(text.starts_with("deleted 1 of 3 snapshots\n"), "{text}");
    assert_eq!(names(&environment.json(&["list"])), ["first", "last"]);
    environment.succeeds(&["check", "--read-data"]);
    // The policy's own snapshot is none of a machine.
    let id = environment.json(&["list"])["snapshots"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    environment.succeeds(&["show", &id]);

    environment.succeeds(&[
        "edit",
        "web@first",
        "--unpin",
        "--name",
        "was first",
        "--description",
        "",
        "--tag",
        "c",
        "--untag",
        "a",
    ]);
    let list = environment.json(&["list"]);
    assert_eq!(names(&list), ["was first", "last"]);
    assert_eq!(list["snapshots"][0]["tags"], serde_json::json!(["b", "c"]));
    assert_eq!(list["snapshots"][0]["description"], Value::Null);
    environment.succeeds(&["prune", "--yes"]);
    assert_eq!(names(&environment.json(&["list"])), ["last"]);
    environment.succeeds(&["policy", "remove"]);
    assert!(
        environment
            .succeeds(&["policy", "show"])
            .starts_with("every machine: keep everything\n")
    );
}

#[test]
fn a_machine_may_have_rules_of_its_own() {
    let environment = three_snapshots();
    environment.succeeds(&["policy", "set", "--keep-last", "1"]);
    let shown = environment.succeeds(&["policy", "set", "--machine", "web", "--keep-within", "1y"]);
    insta::assert_snapshot!(shown, @r"
    every machine: --keep-last 1
    web: --keep-within 1y
    days begin in the time zone UTC
    ");
    environment.succeeds(&["prune", "--yes"]);
    assert_eq!(names(&environment.json(&["list"])).len(), 3);
    environment.succeeds(&["policy", "remove", "--machine", "web"]);
    environment.succeeds(&["prune", "--yes", "--ignore-policy"]);
    assert_eq!(names(&environment.json(&["list"])).len(), 3);
    // Rules on the command line count instead.
    environment.succeeds(&["prune", "--yes", "--keep-last", "2"]);
    assert_eq!(names(&environment.json(&["list"])), ["-", "last"]);
    environment.succeeds(&["prune", "--yes"]);
    assert_eq!(names(&environment.json(&["list"])), ["last"]);
}

#[test]
fn without_a_policy_nothing_is_deleted() {
    let environment = three_snapshots();
    environment.succeeds(&["prune"]);
    assert_eq!(names(&environment.json(&["list"])).len(), 3);
    let run = environment.run(&["policy", "set"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("say what to keep"), "{}", run.stderr);
}

#[test]
fn the_calendar_shows_a_year() {
    let environment = three_snapshots();
    let calendar = environment.json(&[
        "prune",
        "--calendar",
        "--keep-daily",
        "7",
        "--keep-monthly",
        "12",
    ]);
    let machine = &calendar["machines"][0];
    // Taken at once: the shortest rhythm there is.
    assert_eq!(machine["rhythm_seconds"], 3600);
    let months = machine["months"].as_array().unwrap();
    assert_eq!(months.len(), 13);
    let kept = months[12]["kept"].as_array().unwrap().len();
    assert!((18..=19).contains(&kept), "{kept}");
    let text = environment.succeeds(&["prune", "--calendar", "--keep-last", "2"]);
    assert!(text.starts_with("web: a snapshot every 1 hour\n"), "{text}");
    assert_eq!(names(&environment.json(&["list"])).len(), 3, "only shown");
}

#[test]
fn documents() {
    let environment = three_snapshots();
    let set = environment.json(&["policy", "set", "--machine", "web", "--keep-last", "1"]);
    insta::assert_snapshot!(documented(&set));
    insta::assert_snapshot!(documented(&environment.json(&[
        "edit",
        "web@first",
        "--pin"
    ])));
    insta::assert_snapshot!(documented(&environment.json(&["prune", "--dry-run"])));
    insta::assert_snapshot!(documented(&environment.json(&["prune", "--calendar"])));
}
