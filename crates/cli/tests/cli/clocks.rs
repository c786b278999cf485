//! Computers whose clocks are years ahead or behind, played by `faketime`.

use std::process::Command;

use rstest::rstest;
use vrs_testkit::{SampleMachine, ServerKind, StorageServer};

use crate::environment::{Environment, MIB, Run, settings};

/// Runs `vrs` at another time, such as `+3y`.
fn at(time: &str, environment: &Environment, command: &Command) -> Run {
    let mut fake = Command::new("faketime");
    fake.args(["-f", time]).arg(command.get_program());
    fake.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        fake.envs(value.map(|value| (name, value)));
    }
    fake.current_dir(environment.path());
    environment.finish(fake)
}

fn succeeds_at(time: &str, environment: &Environment, arguments: &[&str]) -> String {
    let run = at(time, environment, &environment.command(arguments));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
    run.stdout
}

fn assert_comes_back(environment: &Environment, machine: &SampleMachine, disk: &[u8], name: &str) {
    environment.succeeds(&["restore", &format!("web@{name}"), "--yes"]);
    assert!(machine.guest_bytes(0) == disk, "{name}");
}

#[rstest]
#[case("+3y", "--keep-last", "1")]
#[case("+3y", "--keep-within", "1d")]
#[case("-3y", "--keep-within", "4y")]
fn a_host_with_a_wrong_clock_takes_and_pushes_nobody_out(
    #[case] time: &str,
    #[case] rule: &str,
    #[case] value: &str,
) {
    let environment = Environment::with_repository();
    let mut machine = environment.machine("web", MIB);
    environment.succeeds(&["take", &settings(&machine), "--name", "right"]);
    let right = machine.guest_bytes(0);
    machine.fill(0, 0, MIB, 5);
    succeeds_at(
        time,
        &environment,
        &["take", &settings(&machine), "--name", "wrong"],
    );
    let wrong = machine.guest_bytes(0);
    environment.succeeds(&["prune", "--yes", rule, value]);
    assert_comes_back(&environment, &machine, &right, "right");
    assert_comes_back(&environment, &machine, &wrong, "wrong");
    environment.succeeds(&["take", &settings(&machine)]);
    environment.succeeds(&["check", "--read-data"]);
}

/// Whatever the clock of the storage machine says in between: what was marked too early, or by a clock that
/// was ahead, is taken back by who needs it.
#[rstest]
#[case(&["+0", "+3y"])]
#[case(&["+3y", "+0"])]
#[case(&["-3y", "+0", "-3y"])]
fn a_storage_machine_whose_clock_jumps_loses_nothing(#[case] prunes: &[&str]) {
    let environment = Environment::with_repository();
    let mut machine = environment.machine("web", MIB);
    environment.succeeds(&["take", &settings(&machine), "--name", "kept"]);
    let kept = machine.guest_bytes(0);
    machine.fill(0, 0, MIB, 5);
    environment.succeeds(&["take", &settings(&machine), "--name", "gone"]);
    let again = machine.guest_bytes(0);
    environment.succeeds(&["delete", "web@gone", "--yes"]);
    for time in prunes {
        succeeds_at(time, &environment, &["prune", "--yes"]);
        environment.succeeds(&["check", "--read-data"]);
    }
    // The same content again, of which something is marked, or gone.
    environment.succeeds(&["take", &settings(&machine), "--name", "again"]);
    succeeds_at("+3y", &environment, &["prune", "--yes"]);
    environment.succeeds(&["prune", "--yes"]);
    assert_comes_back(&environment, &machine, &kept, "kept");
    assert_comes_back(&environment, &machine, &again, "again");
    environment.succeeds(&["check", "--read-data"]);
}

#[test]
fn s3_servers_want_the_right_time() {
    let (server, environment) = (
        StorageServer::start(ServerKind::GuardedMoto),
        Environment::new(),
    );
    for (time, said) in [("+1h", "not valid yet"), ("-2h", "has expired")] {
        let mut command = environment.command(&["list"]);
        command
            .env("VRS_REPOSITORY", server.location("repo"))
            .envs(server.environment());
        let text = at(time, &environment, &command).failure();
        assert!(
            text.contains(
                "refused the login; check user, key or password of the storage, and the clock"
            ) && text.contains(said),
            "{text}"
        );
    }
}
