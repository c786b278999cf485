//! Texts and exit codes of what goes wrong.

use crate::environment::{Environment, MIB, settings};

#[test]
fn requests_that_make_no_sense_exit_with_2() {
    let environment = Environment::with_repository();
    for arguments in [
        &["take"][..],
        &["nonsense"],
        &["list", "--nonsense"],
        &["take", "--all", "x"],
        &[],
    ] {
        assert_eq!(environment.run(arguments).code, 2, "{arguments:?}");
    }
    let machine = environment.machine("web", MIB);
    insta::assert_snapshot!(environment.fails(&["take", &settings(&machine), "--name", "latest"]), @r"
    2
    error: 'latest' cannot be the name of a snapshot: 'latest' always means the last one
    ");
    insta::assert_snapshot!(environment.fails(&["restore", "web@latest"]), @r"
    2
    error: there is nobody to ask whether this is right; look at it with --dry-run, then say --yes
    ");
    insta::assert_snapshot!(environment.fails(&["recover", "web"]), @r"
    2
    error: nothing is owed to a machine 'web'; `vrs recover --dry-run` shows what is
    ");
    insta::assert_snapshot!(environment.finish(environment.bare_command(&["list"])).failure(), @r"
    2
    error: no repository is given; use --repo or VRS_REPOSITORY, or set default_repository in the config file
    ");
    insta::assert_snapshot!(environment.finish(environment.bare_command(&["init"])).failure(), @r"
    2
    error: say with --repo where the repository is to be created
    ");
}

#[test]
fn failures_exit_with_1_and_say_what_to_do() {
    let environment = Environment::new();
    insta::assert_snapshot!(environment.fails(&["list"]), @r"
    1
    error: there is no repository at FOLDER/repository: nothing exists there; check the location, or create one with 'vrs init'
    ");
    insta::assert_snapshot!(environment.fails(&["list", "--repo", "sftp:me:secret@host:/srv"]), @r#"
    1
    error: "sftp:..." is not a repository location: it seems to hold a password, which ssh does not take; use a key; give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH
    "#);
    environment.succeeds(&["init"]);
    insta::assert_snapshot!(environment.fails(&["init"]), @r"
    1
    error: there is a repository at FOLDER/repository already; it was not touched; choose another place, or use it as it is
    ");
    insta::assert_snapshot!(environment.fails(&["show", "web@latest"]), @r"
    1
    error: no snapshot 'web@latest': no machine of that name or id has one, and no snapshot's id begins so; `vrs list` shows what there is
    ");
    insta::assert_snapshot!(environment.fails(&["take", "web"]), @r"
    1
    error: this needs VirtualBox: '/nowhere/VBoxManage' is not a program that can be run; give the path of VBoxManage
    hint: a machine can also be named by the path of its .vbox file, which needs no VirtualBox
    ");
    insta::assert_snapshot!(environment.fails(&["vms"]), @r"
    1
    error: this needs VirtualBox: '/nowhere/VBoxManage' is not a program that can be run; give the path of VBoxManage
    hint: a machine can also be named by the path of its .vbox file, which needs no VirtualBox
    ");
    insta::assert_snapshot!(environment.fails(&["take", "./none.vbox"]), @r"
    1
    error: cannot read 'FOLDER/none.vbox'
      caused by: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(environment.fails(&["disk", "info", "none.vdi"]), @r"
    1
    error: cannot open none.vdi
      caused by: No such file or directory (os error 2)
    ");
    let mut wrong = environment.command(&["list"]);
    wrong.env("VRS_PASSWORD", "wrong");
    insta::assert_snapshot!(environment.finish(wrong).failure(), @r"
    1
    error: wrong password for the repository at FOLDER/repository: it opens none of its keys; check the password and try again
    hint: the password came from the variable VRS_PASSWORD
    ");
}

#[test]
fn a_machine_that_another_vrs_works_on_is_busy() {
    let (environment, machine) = Environment::with_snapshot("web");
    let locks = environment.path().join("state/locks");
    let lock = std::fs::File::open(locks.join(format!("{}.lock", machine.id()))).unwrap();
    lock.lock().unwrap();
    insta::assert_snapshot!(environment.fails(&["take", &settings(&machine)]), @r"
    5
    error: another vrs is working on machine 'web'; wait until it is done
    ");
}

#[test]
fn config_mistakes_name_file_and_line() {
    let environment = Environment::with_repository();
    environment.write(&environment.config_file(), "# mine\nrepository = 'x'\n");
    insta::assert_snapshot!(environment.fails(&["list"]), @r"
    1
    error: the config file 'FOLDER/config/vrs/config.toml' is wrong in line 2: unknown field `repository`, expected one of `default_repository`, `vboxmanage`, `vboxmanage_patience_seconds`, `ssh_command`, `rclone_command`, `repositories`, `machines`
    ");
    insta::assert_snapshot!(environment.fails(&["list", "--config", "/nowhere/x.toml"]), @r"
    1
    error: could not read the config file '/nowhere/x.toml'
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn a_snapshot_that_cannot_be_read_is_a_warning_and_the_others_are_listed() {
    let (environment, _) = Environment::with_snapshot("web");
    let broken = environment
        .repository()
        .join("snapshots")
        .join("ab".repeat(32));
    environment.write(&broken, "nonsense");
    let run = environment.run(&["list"]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.starts_with("warning: "), "{}", run.stderr);
    assert!(run.stdout.ends_with("\n1 snapshot\n"), "{}", run.stdout);
}

#[test]
fn damage_is_an_error_of_check() {
    let (environment, _) = Environment::with_snapshot("web");
    let packs = walk(&environment.repository().join("data"));
    for pack in &packs {
        std::fs::remove_file(pack).unwrap();
    }
    let run = environment.run(&["check"]);
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout
            .contains("these of 1 snapshot cannot be restored completely:"),
        "{}",
        run.stdout
    );
    assert!(!environment.json(&["check"])["sound"].as_bool().unwrap());
}

pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
