//! Keys, copies, and what a check says about damage.

use crate::environment::{Environment, MIB, settings};
use crate::json::documented;

/// An empty second repository of its own, and the file with its password.
fn second(environment: &Environment) -> (String, String) {
    let file = environment.path().join("second-password");
    environment.write(&file, "another\n");
    let folder = environment.path().join("second");
    let (folder, file) = (
        folder.to_str().unwrap().to_owned(),
        file.to_str().unwrap().to_owned(),
    );
    environment.succeeds(&["init", "--repo", &folder, "--password-file", &file]);
    (folder, file)
}

/// Changes a byte in the largest pack.
fn rot(environment: &Environment) {
    let mut packs = Vec::new();
    for folder in std::fs::read_dir(environment.repository().join("data")).unwrap() {
        for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            packs.push((path.metadata().unwrap().len(), path));
        }
    }
    let (size, path) = packs.into_iter().max().unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[usize::try_from(size / 2).unwrap()] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, content).unwrap();
}

#[test]
fn a_copy_repairs_what_is_lost() {
    let (environment, machine) = Environment::with_snapshot("web");
    environment.succeeds(&["take", &settings(&machine), "--name", "second"]);
    let (folder, file) = second(&environment);
    let with = ["--other-password-file", &file];
    let copy = environment.json(&[&["copy", "web@first", "--to", &folder], &with[..]].concat());
    insta::assert_snapshot!(documented(&copy));
    let text = environment.succeeds(&[&["copy", "--to", &folder], &with[..]].concat());
    assert!(
        text.ends_with("/second, 1 already there\n") && text.contains("1 snapshot copied to"),
        "{text}"
    );

    rot(&environment);
    let run = environment.run(&["check", "--read-data"]);
    assert_eq!(run.code, 1);
    let lost = run
        .stdout
        .lines()
        .find(|line| line.starts_with("lost of machine web, snapshot "))
        .unwrap();
    assert!(
        lost.contains(".vdi: ") && lost.contains(" bytes at offset "),
        "{lost}"
    );
    let run = environment.run(&["check", "--read-data", "--repair", "--dry-run"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.starts_with("to repair: pack "), "{}", run.stdout);
    let repair = ["check", "--read-data", "--repair", "--from", &folder];
    let text = environment.succeeds(&[&repair[..], &with[..]].concat());
    assert!(text.contains("chunks came from "), "{text}");
    assert!(
        text.contains("no damage found; 2 snapshots can be restored"),
        "{text}"
    );
    environment.succeeds(&["check", "--read-data=50%"]);
    environment.succeeds(&["restore", "web@first", "--yes"]);
    let run = environment.run(&["check", "--from", &folder]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = environment.run(&["check", "--read-data=0"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn the_next_take_brings_back_what_is_lost() {
    let environment = Environment::with_repository();
    let machine = environment.machine("web", 3 * MIB);
    environment.succeeds(&["take", &settings(&machine)]);
    rot(&environment);
    let run = environment.run(&["check", "--read-data", "--repair"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stdout.contains("repaired: pack "), "{}", run.stdout);
    // Its disk is as it was, but a file that must be read again is.
    environment.succeeds(&["take", &settings(&machine)]);
    environment.succeeds(&["check", "--read-data"]);
}

#[test]
fn passwords_are_added_and_changed() {
    let environment = Environment::with_repository();
    let (first, other) = (
        environment.path().join("first"),
        environment.path().join("other"),
    );
    environment.write(&first, "one\n");
    environment.write(&other, "two\n");
    let (first, other) = (first.to_str().unwrap(), other.to_str().unwrap());
    let keys = environment.json(&["key", "add", "--new-password-file", first]);
    insta::assert_snapshot!(documented(&keys));
    let keys = keys["keys"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 2);
    let used = keys.iter().find(|key| key["in_use"] == true).unwrap()["id"]
        .as_str()
        .unwrap();
    let run = environment.run(&["key", "remove", used]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("it is the key in use"),
        "{}",
        run.stderr
    );
    environment.succeeds(&[
        "key",
        "passwd",
        "--password-file",
        first,
        "--new-password-file",
        other,
    ]);
    assert_eq!(environment.run(&["list", "--password-file", first]).code, 1);
    environment.succeeds(&["key", "remove", &used[..8], "--password-file", other]);
    assert_eq!(environment.run(&["list"]).code, 1);
    let list = environment.succeeds(&["key", "list", "--password-file", other]);
    assert_eq!(list.lines().count(), 2, "{list}");
}
