//! Where the repository and its password come from.

use crate::environment::Environment;

#[test]
fn the_nearest_source_of_the_password_counts() {
    let environment = Environment::with_repository();
    let right = environment.path().join("right");
    let wrong = environment.path().join("wrong");
    environment.write(&right, "correct horse\n");
    environment.write(&wrong, "wrong\n");
    let opens = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = environment.bare_command(&[&["list"], arguments].concat());
        command
            .env("VRS_REPOSITORY", environment.repository())
            .envs(variables.iter().copied());
        environment.finish(command).code == 0
    };
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    assert!(opens(
        &["--password-file", right],
        &[("VRS_PASSWORD_FILE", wrong), ("VRS_PASSWORD", "wrong")]
    ));
    assert!(!opens(
        &["--password-file", wrong],
        &[
            ("VRS_PASSWORD_FILE", right),
            ("VRS_PASSWORD", "correct horse")
        ]
    ));
    assert!(opens(
        &["--password-command", "echo correct horse"],
        &[("VRS_PASSWORD_COMMAND", "echo wrong")]
    ));
    assert!(opens(
        &[],
        &[("VRS_PASSWORD_FILE", right), ("VRS_PASSWORD", "wrong")]
    ));
    assert!(opens(
        &[],
        &[
            ("VRS_PASSWORD_COMMAND", "printf 'correct horse'"),
            ("VRS_PASSWORD", "wrong")
        ]
    ));
    assert!(opens(&[], &[("VRS_PASSWORD", "correct horse")]));
    assert!(!opens(&[], &[("RESTIC_PASSWORD", "correct horse")]));
}

#[test]
fn the_config_file_names_repositories_and_their_passwords() {
    let environment = Environment::with_repository();
    let location = environment.repository();
    let text = format!(
        "default_repository = 'nas'\n[repositories.nas]\nlocation = '{}'\npassword_command = 'echo correct horse'\n",
        location.display()
    );
    environment.write(&environment.config_file(), &text);
    for arguments in [&["list"][..], &["list", "--repo", "nas"]] {
        assert_eq!(
            environment.finish(environment.bare_command(arguments)).code,
            0,
            "{arguments:?}"
        );
    }
    assert_eq!(
        environment
            .finish(environment.bare_command(&["list", "-r", "usb"]))
            .code,
        1
    );
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let environment = Environment::with_repository();
    let mut command = environment.bare_command(&["list"]);
    command.env("VRS_REPOSITORY", environment.repository());
    insta::assert_snapshot!(environment.finish(command).failure(), @r"
    1
    error: a password is needed and there is no terminal to ask on; use --password-file, --password-command or VRS_PASSWORD
    ");
}

#[test]
fn no_output_ever_holds_the_password() {
    let environment = Environment::with_repository();
    for arguments in [
        &["list", "-v"][..],
        &["list", "--json", "-v"],
        &["check", "-v"],
        &["init", "-v"],
    ] {
        let run = environment.run(arguments);
        assert!(
            !run.stdout.contains("correct horse") && !run.stderr.contains("correct horse"),
            "{arguments:?}"
        );
    }
}
