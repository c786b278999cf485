//! What the verbs do and print.

use std::process::Stdio;

use vrs_testkit::SampleMachine;

use crate::environment::{Environment, MIB, settings};

/// Ids and times are different in each run.
fn normalised(text: &str) -> String {
    let words = text.split_inclusive(|character: char| character.is_whitespace());
    words.map(normalised_word).collect()
}

fn normalised_word(word: &str) -> String {
    let bare = word.trim();
    let is_id = bare.len() == 8 && bare.chars().all(|digit| digit.is_ascii_hexdigit());
    let is_date = bare.len() == 10 && bare.starts_with("20") && bare.matches('-').count() == 2;
    let is_time = bare.len() == 8 && bare.matches(':').count() == 2;
    let replaced = if is_id {
        "IDENTITY"
    } else if is_date {
        "YYYY-MM-DD"
    } else if is_time {
        "HH:MM:SS"
    } else {
        return word.to_owned();
    };
    word.replace(bare, replaced)
}

fn content(machine: &SampleMachine) -> Vec<Vec<u8>> {
    machine
        .files()
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

#[test]
fn a_machine_comes_back_byte_for_byte() {
    let environment = Environment::with_repository();
    let mut machine = environment.machine("web", 3 * MIB);
    let before = (machine.guest_bytes(0), content(&machine));
    environment.succeeds(&["take", &settings(&machine)]);
    machine.fill(0, MIB as u64, 2 * MIB, 1);
    machine.set_mac_address("080027ABCDEF");
    environment.succeeds(&["take", &settings(&machine), "--name", "changed"]);
    let changed = content(&machine);

    environment.succeeds(&["restore", &format!("{}@1", settings(&machine)), "--yes"]);
    assert_eq!((machine.guest_bytes(0), content(&machine)), before);
    environment.succeeds(&["restore", "web@changed", "--yes"]);
    assert_eq!(content(&machine), changed);

    std::fs::remove_dir_all(machine.folder()).unwrap();
    environment.succeeds(&["restore", "web@changed", "--yes"]);
    assert_eq!(content(&machine), changed);
}

#[test]
fn list_shows_what_there_is() {
    let (environment, machine) = Environment::with_snapshot("web");
    environment.succeeds(&["take", &settings(&machine)]);
    let list = environment.succeeds(&["list", "web"]);
    let hostname = gethostname::gethostname().into_string().unwrap();
    let columns: Vec<String> = normalised(&list)
        .lines()
        .map(|line| line.replace(&hostname, "HOST"))
        .collect();
    assert!(
        columns[0].starts_with("ID        Time                 Machine  Name"),
        "{list}"
    );
    assert!(
        columns[1].starts_with("IDENTITY  YYYY-MM-DD HH:MM:SS  web      first"),
        "{list}"
    );
    assert!(
        columns[1].contains("HOST") && columns[1].ends_with("the first"),
        "{list}"
    );
    assert_eq!(columns[4], "2 snapshots");
    assert_eq!(environment.succeeds(&["list", "other"]), "0 snapshots\n");
    assert_eq!(environment.succeeds(&["list", &settings(&machine)]), list);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let (environment, machine) = Environment::with_snapshot("web");
    let before = content(&machine);
    let list = environment.succeeds(&["list"]);
    insta::assert_snapshot!(normalised(&environment.run(&["restore", "web@first", "--dry-run"]).stdout), @r"
    machine 'web' to snapshot IDENTITY of YYYY-MM-DD HH:MM:SS (first)
      settings: FOLDER/machines/web/web.vbox
      1 file, 5.00 MiB in all:
          3.50 MiB in place already
               0 B copied from files on this computer
               0 B zeros
          1.50 MiB fetched from the repository
    ");
    insta::assert_snapshot!(normalised(&environment.run(&["clone", "web@first", "--name", "two", "-n"]).stdout), @r"
    new machine 'two' from snapshot IDENTITY of YYYY-MM-DD HH:MM:SS (first)
      settings: FOLDER/machines/two/two.vbox
      1 file, 5.00 MiB in all:
               0 B in place already
          2.50 MiB copied from files on this computer
          1.00 MiB zeros
          1.50 MiB fetched from the repository
    ");
    let take = environment.succeeds(&["take", &settings(&machine), "-n"]);
    assert!(
        take.starts_with("machine 'web': 5.00 MiB would be read\n"),
        "{take}"
    );
    assert!(
        take.ends_with("disk0.vdi  5.00 MiB  to be read\n"),
        "{take}"
    );
    assert!(
        environment
            .succeeds(&["delete", "web@first", "-n"])
            .ends_with("to be deleted: 1 snapshot\n")
    );
    assert_eq!(content(&machine), before);
    assert_eq!(environment.succeeds(&["list"]), list);
    assert!(!machine.folder().with_file_name("two").exists());
}

#[test]
fn restore_keeps_the_present_state_if_it_is_told_to() {
    let (environment, machine) = Environment::with_snapshot("web");
    let present = content(&machine);
    let run = environment.run(&["restore", "web@first", "--yes", "--before", "kept"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    insta::assert_snapshot!(normalised(&run.stderr), @"note: kept the present state as snapshot IDENTITY ('kept')");
    assert_ne!(content(&machine), present);
    environment.succeeds(&["restore", "web@kept", "--yes"]);
    assert_eq!(content(&machine), present);
}

#[test]
fn a_clone_stands_beside_the_machine() {
    let (environment, machine) = Environment::with_snapshot("web");
    let before = content(&machine);
    environment.succeeds(&["restore", "web@first", "--yes"]);
    let guest = machine.guest_bytes(0);
    environment.succeeds(&["clone", "web@first", "--name=-two"]);
    assert_ne!(content(&machine), before);
    let copy = machine.folder().with_file_name("_two");
    let disk = std::fs::read_dir(&copy)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let disk = disk
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "vdi"))
        .unwrap();
    let exported = environment.path().join("two.raw");
    environment.succeeds(&[
        "disk",
        "export",
        disk.to_str().unwrap(),
        "-o",
        exported.to_str().unwrap(),
    ]);
    assert_eq!(std::fs::read(exported).unwrap(), guest);
}

#[test]
fn delete_and_check() {
    let (environment, machine) = Environment::with_snapshot("web");
    environment.succeeds(&["take", &settings(&machine)]);
    environment.succeeds(&["delete", "web@first", "--yes"]);
    assert!(environment.succeeds(&["list"]).ends_with("\n1 snapshot\n"));
    let check = environment.run(&["check", "--read-data"]);
    assert_eq!(
        check.stdout.lines().last(),
        Some("no damage found; 1 snapshot can be restored")
    );
}

#[test]
fn show_and_diff_tell_what_a_snapshot_holds() {
    let (environment, mut machine) = Environment::with_snapshot("web");
    machine.set_mac_address("080027ABCDEF");
    environment.succeeds(&["take", &settings(&machine)]);
    let show = environment.succeeds(&["show", "web@first"]);
    assert!(
        show.contains("Description  the first\nTags         a, b\nMachine      web ("),
        "{show}"
    );
    let diff = environment.succeeds(&["diff", "web@first", "web@latest"]);
    assert!(diff.contains("MACAddress=\"080027ABCDEF\""), "{diff}");
    let disk = machine.chain(0)[0]
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert!(diff.contains(&format!("M  web/{disk}")), "{diff}");
    let same = environment.succeeds(&["diff", "web@latest", "web@latest"]);
    assert!(same.ends_with("no difference\n"), "{same}");
}

#[test]
fn one_machine_that_fails_does_not_keep_the_others_from_being_taken() {
    let environment = Environment::with_repository();
    let good = environment.machine("good", MIB);
    let bad = environment.machine("bad", MIB);
    std::fs::remove_file(&bad.chain(0)[0]).unwrap();
    let run = environment.run(&["take", &settings(&bad), &settings(&good)]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.starts_with("machine 'good': took snapshot "),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.starts_with("error: 'FOLDER/machines/bad/"),
        "{}",
        run.stderr
    );
}

#[test]
fn odd_names_are_escaped_and_still_name_the_machine() {
    let environment = Environment::with_repository();
    let name = "a \"b\" 'c'\nd\u{202e} ünïcode";
    let machine = environment.machine(name, MIB);
    let taken = environment.succeeds(&["take", &settings(&machine)]);
    assert!(
        taken.starts_with(r#"machine 'a "b" 'c'\nd\u{202e} ünïcode': took"#),
        "{taken}"
    );
    assert!(!environment.succeeds(&["list"]).contains('\u{202e}'));
    environment.succeeds(&["restore", &format!("{name}@latest"), "--yes"]);
}

#[test]
fn names_may_begin_with_a_dash() {
    let environment = Environment::with_repository();
    let machine = environment.machine("web", MIB);
    let take = [
        "take",
        &settings(&machine),
        "--name",
        "-dash",
        "--tag",
        "-t",
    ];
    environment.succeeds(&[&take[..], &["--description", "- one"]].concat());
    environment.json(&["restore", "web@-dash", "--yes", "--before", "-before"]);
    environment.succeeds(&["restore", "web@-before", "--yes"]);
    let clone = environment.json(&["clone", "web@-dash", "--name", "-clone"]);
    assert_eq!(clone["machine_name"], "-clone");
    let machine = ["take", "--", "./machines/_clone/_clone.vbox"];
    environment.succeeds(&machine);
}

#[test]
fn quiet_says_nothing_and_a_reader_that_goes_away_is_no_error() {
    let (environment, machine) = Environment::with_snapshot("web");
    assert_eq!(
        environment.succeeds(&["take", &settings(&machine), "--quiet"]),
        ""
    );
    assert_ne!(environment.succeeds(&["list", "--quiet"]), "");
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let mut command = environment.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), output.stderr),
            (Some(0), Vec::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn colours_are_for_terminals_or_those_who_insist() {
    let environment = Environment::new();
    assert!(environment.fails(&["list"]).contains("\nerror: "));
    assert!(
        environment
            .fails(&["list", "--color", "always"])
            .contains("\u{1b}[1m\u{1b}[31merror:")
    );
}

#[test]
fn man_pages_and_completions_are_complete() {
    let environment = Environment::new();
    let folder = environment.path().join("man");
    environment.succeeds(&["man", "--dir", folder.to_str().unwrap()]);
    let count = std::fs::read_dir(&folder).unwrap().count();
    assert!(
        folder.join("vrs-restore.1").is_file() && count > 15,
        "{count} pages"
    );
    assert!(environment.succeeds(&["man"]).contains(".TH vrs 1"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            environment
                .succeeds(&["completions", shell])
                .contains("restore"),
            "{shell}"
        );
    }
}
