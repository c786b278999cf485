//! The documents and events of `--json`: each shape once, and all of it in `docs/json.md`.

use serde_json::Value;

use crate::environment::{Environment, MIB, settings};
use crate::shape::{shape, words};

#[track_caller]
pub fn documented(document: &Value) -> String {
    let docs = include_str!("../../../../docs/json.md");
    for word in words(document) {
        assert!(
            docs.contains(&format!("`{word}`")),
            "docs/json.md does not explain `{word}`"
        );
    }
    let kind = document["type"].as_str().unwrap();
    assert!(
        docs.contains(&format!("`\"{kind}\"`")),
        "docs/json.md does not explain \"{kind}\""
    );
    shape(document)
}

#[test]
fn init() {
    insta::assert_snapshot!(documented(&Environment::new().json(&["init"])), @r#"
    location: string
    type: "init"
    "#);
}

#[test]
fn snapshots() {
    let (environment, machine) = Environment::with_snapshot("web");
    environment.succeeds(&["take", &settings(&machine)]);
    let list = environment.json(&["list"]);
    insta::assert_snapshot!(documented(&list), @r#"
    snapshots: array
    snapshots[].added_bytes: number
    snapshots[].description: null or string
    snapshots[].hostname: string
    snapshots[].id: string
    snapshots[].machine_id: string
    snapshots[].machine_name: string
    snapshots[].name: null or string
    snapshots[].pinned: boolean
    snapshots[].size_bytes: number
    snapshots[].tags: array
    snapshots[].tags[]: string
    snapshots[].time: string
    type: "snapshots"
    unreadable: array
    "#);
    assert_eq!(list["snapshots"][0]["tags"], serde_json::json!(["a", "b"]));
}

#[test]
fn show() {
    let (environment, _) = Environment::with_snapshot("web");
    let show = environment.json(&["show", "web@first"]);
    assert_eq!(show["manifest"]["format"], "vrs-manifest");
    let without_manifest =
        serde_json::json!({ "type": show["type"], "snapshot": show["snapshot"], "manifest": null });
    insta::assert_snapshot!(documented(&without_manifest), @r#"
    manifest: null
    snapshot.added_bytes: number
    snapshot.description: string
    snapshot.hostname: string
    snapshot.id: string
    snapshot.machine_id: string
    snapshot.machine_name: string
    snapshot.name: string
    snapshot.pinned: boolean
    snapshot.size_bytes: number
    snapshot.tags: array
    snapshot.tags[]: string
    snapshot.time: string
    type: "snapshot"
    "#);
}

#[test]
fn diff() {
    let (environment, mut machine) = Environment::with_snapshot("web");
    machine.set_mac_address("080027ABCDEF");
    machine.save_state(b"state");
    environment.succeeds(&["take", &settings(&machine)]);
    insta::assert_snapshot!(documented(&environment.json(&["diff", "web@1", "web@0"])), @r#"
    files: array
    files[].change: string
    files[].changed_bytes: number
    files[].from_bytes: null or number
    files[].path: string
    files[].to_bytes: number
    from.added_bytes: number
    from.description: string
    from.hostname: string
    from.id: string
    from.machine_id: string
    from.machine_name: string
    from.name: string
    from.pinned: boolean
    from.size_bytes: number
    from.tags: array
    from.tags[]: string
    from.time: string
    settings: array
    settings[].change: string
    settings[].line: string
    to.added_bytes: number
    to.description: null
    to.hostname: string
    to.id: string
    to.machine_id: string
    to.machine_name: string
    to.name: null
    to.pinned: boolean
    to.size_bytes: number
    to.tags: array
    to.time: string
    type: "diff"
    "#);
}

#[test]
fn take() {
    let environment = Environment::with_repository();
    let machine = environment.machine("web", MIB);
    let path = settings(&machine);
    insta::assert_snapshot!(documented(&environment.json(&["take", &path, "--dry-run"])), @r#"
    machines: array
    machines[].capture: null
    machines[].files: array
    machines[].files[].local: string
    machines[].files[].path: string
    machines[].files[].role: string
    machines[].files[].size_bytes: number
    machines[].files[].unchanged: boolean
    machines[].files[].vouched_bytes: number
    machines[].machine: string
    machines[].machine_id: string
    machines[].machine_name: string
    machines[].not_included: array
    machines[].previous: null
    machines[].read_bytes: number
    machines[].status: "planned"
    machines[].tracking: null
    machines[].verdicts: array
    type: "take"
    "#);
    insta::assert_snapshot!(documented(&environment.json(&["take", &path])), @r#"
    machines: array
    machines[].capture: null
    machines[].files: number
    machines[].machine: string
    machines[].machine_id: string
    machines[].machine_name: string
    machines[].not_included: array
    machines[].read_bytes: number
    machines[].recognised_bytes: number
    machines[].reused_bytes: number
    machines[].sent_bytes: number
    machines[].set: null
    machines[].size_bytes: number
    machines[].snapshot: string
    machines[].status: "taken"
    machines[].tracking: null
    type: "take"
    "#);
    environment.write(&environment.config_file(), "[machines.web]\ntrack = true\n");
    let tracked = environment.json(&["take", &path]);
    let mut tracking = tracked["machines"][0]["tracking"].clone();
    tracking["type"] = "take".into();
    // A text where the file system makes no clones.
    tracking["notes"] = serde_json::json!([]);
    insta::assert_snapshot!(documented(&tracking), @r#"
    images: array
    is_scan: boolean
    leaves_virtualbox_snapshot: boolean
    notes: array
    type: "take"
    wrong_bytes: number
    "#);
    insta::assert_snapshot!(documented(&environment.json(&["take", "none.vbox"])), @r#"
    machines: array
    machines[].error.causes: array
    machines[].error.exit_code: number
    machines[].error.hint: string
    machines[].error.message: string
    machines[].error.virtualbox: null
    machines[].machine: string
    machines[].status: "failed"
    type: "take"
    "#);
}

#[test]
fn restore_and_clone() {
    let (environment, _) = Environment::with_snapshot("web");
    insta::assert_snapshot!(documented(&environment.json(&["restore", "web@first", "--dry-run"])), @r#"
    before: null
    files: array
    files[].path: string
    files[].target: string
    is_clone: boolean
    left_behind: array
    machine_id: string
    machine_name: string
    notes: array
    portability: array
    power_off: boolean
    register: boolean
    remove: array
    settings_file: string
    snapshot.added_bytes: number
    snapshot.description: string
    snapshot.hostname: string
    snapshot.id: string
    snapshot.machine_id: string
    snapshot.machine_name: string
    snapshot.name: string
    snapshot.pinned: boolean
    snapshot.size_bytes: number
    snapshot.tags: array
    snapshot.tags[]: string
    snapshot.time: string
    stats.fetched_bytes: number
    stats.files: number
    stats.in_place_bytes: number
    stats.local_bytes: number
    stats.total_bytes: number
    stats.zero_bytes: number
    status: "planned"
    type: "restore"
    "#);
    let done = environment.json(&["restore", "web@first", "--yes", "--before", "kept"]);
    assert_eq!(
        (&done["status"], done["is_clone"].as_bool()),
        (&"done".into(), Some(false))
    );
    let clone = environment.json(&["clone", "web@first", "--name", "two"]);
    assert_eq!(
        (clone["is_clone"].as_bool(), clone["machine_name"].as_str()),
        (Some(true), Some("two"))
    );
    assert_eq!(
        shape(&clone).replace("null", "string"),
        shape(&done).replace("null", "string")
    );
}

#[test]
fn delete() {
    let (environment, _) = Environment::with_snapshot("web");
    insta::assert_snapshot!(documented(&environment.json(&["delete", "web@first", "--yes"])), @r#"
    dry_run: boolean
    snapshots: array
    snapshots[].added_bytes: number
    snapshots[].description: string
    snapshots[].hostname: string
    snapshots[].id: string
    snapshots[].machine_id: string
    snapshots[].machine_name: string
    snapshots[].name: string
    snapshots[].pinned: boolean
    snapshots[].size_bytes: number
    snapshots[].tags: array
    snapshots[].tags[]: string
    snapshots[].time: string
    type: "delete"
    "#);
}

#[test]
fn check() {
    let (environment, _) = Environment::with_snapshot("web");
    insta::assert_snapshot!(documented(&environment.json(&["check"])), @r#"
    damaged: array
    errors: array
    losses: array
    planned: array
    repaired: array
    snapshots: number
    sound: boolean
    type: "check"
    warnings: array
    "#);
}

#[test]
fn recover() {
    insta::assert_snapshot!(documented(&Environment::new().json(&["recover"])), @r#"
    operations: array
    type: "recover"
    "#);
}

#[test]
fn doctor() {
    let (environment, machine) = Environment::with_snapshot("web");
    let path = settings(&machine);
    let healthy = environment.json(&["doctor", &path]);
    assert_eq!(healthy["findings"], serde_json::json!([]));
    std::fs::remove_file(&machine.chain(0)[0]).unwrap();
    insta::assert_snapshot!(documented(&environment.json(&["doctor", &path])), @r#"
    findings: array
    findings[].advice: null
    findings[].error: null
    findings[].machine_id: string
    findings[].machine_name: string
    findings[].medium: string
    findings[].message: string
    findings[].problem: string
    findings[].repair.actions: array
    findings[].repair.actions[]: string
    findings[].repair.consent: null
    findings[].repair.kept: array
    findings[].repair.notes: array
    findings[].repair.notes[]: string
    findings[].repair.snapshot: string
    findings[].status: string
    machines: number
    skipped: array
    type: "doctor"
    virtualbox: string
    "#);
    let repaired = environment.json(&["doctor", &path, "--repair", "--yes"]);
    assert_eq!(repaired["findings"][0]["status"], "repaired");
    assert_eq!(repaired["findings"][0]["problem"], "image_missing");
    assert!(machine.chain(0)[0].is_file());
}

#[test]
fn disks() {
    let (environment, mut machine) = Environment::with_snapshot("web");
    machine.take_virtualbox_snapshot("one");
    machine.fill(0, 0, MIB, 5);
    let leaf = machine.chain(0)[0].to_str().unwrap().to_owned();
    insta::assert_snapshot!(documented(&environment.json(&["disk", "info", &leaf])), @r#"
    block_map.allocated_blocks: number
    block_map.findings: array
    block_map.findings_total: number
    block_map.free_blocks: number
    block_map.zero_blocks: number
    file: string
    format: string
    header.allocated_blocks: number
    header.block_extra_bytes: number
    header.block_map_offset_bytes: number
    header.block_size_bytes: number
    header.blocks: number
    header.capacity_bytes: number
    header.comment: string
    header.data_offset_bytes: number
    header.flags: number
    header.geometry: string
    header.image_type: string
    header.logical_geometry: string
    header.modification_uuid: string
    header.parent_modification_uuid: string
    header.parent_uuid: string
    header.uuid: string
    header.version: string
    type: "disk_info"
    "#);
    insta::assert_snapshot!(documented(&environment.json(&["disk", "chain", &leaf])), @r#"
    links: array
    links[].capacity_bytes: number
    links[].file: string
    links[].image_type: string
    links[].modification_uuid: string
    links[].parent_modification_uuid: null or string
    links[].parent_uuid: null or string
    links[].parent_was_modified: boolean
    links[].uuid: string
    type: "disk_chain"
    "#);
    insta::assert_snapshot!(documented(&environment.json(&["disk", "map", &leaf])), @r#"
    capacity_bytes: number
    extents: array
    extents[].kind: string
    extents[].layer: null or number
    extents[].length_bytes: number
    extents[].offset_bytes: number
    layers: array
    layers[].data_bytes: number
    layers[].file: string
    layers[].zero_bytes: number
    type: "disk_map"
    unallocated_bytes: number
    "#);
    insta::assert_snapshot!(documented(&environment.json(&["disk", "export", &leaf, "-o", "out.raw"])), @r#"
    capacity_bytes: number
    file: string
    format: string
    output: string
    type: "disk_export"
    "#);
}

#[test]
fn events() {
    let (environment, machine) = Environment::with_snapshot("web");
    let run = environment.run(&["take", &settings(&machine), "none.vbox", "--json"]);
    let events: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = |kind: &str| {
        events
            .iter()
            .find(|event| event["type"] == kind)
            .unwrap_or_else(|| panic!("{kind}: {events:?}"))
    };
    insta::assert_snapshot!(documented(first("phase")), @r#"
    name: string
    subject: string
    total_bytes: number
    type: "phase"
    "#);
    insta::assert_snapshot!(documented(first("progress")), @r#"
    elapsed_seconds: number
    fetched_bytes: number
    name: string
    reused_bytes: number
    scanned_bytes: number
    sent_bytes: number
    subject: string
    total_bytes: number
    type: "progress"
    "#);
    insta::assert_snapshot!(documented(first("error")), @r#"
    causes: array
    exit_code: number
    hint: string
    message: string
    type: "error"
    virtualbox: null
    "#);
    let scanned = events
        .iter()
        .filter(|event| event["type"] == "progress")
        .map(|event| event["scanned_bytes"].as_u64().unwrap());
    assert!(scanned.max() >= Some(3 * MIB as u64));
}
