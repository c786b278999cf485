//! Repositories that are not on this computer, with the real servers.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;
use vrs_testkit::{Proxy, ServerKind, StorageServer};

use crate::environment::{Environment, MIB, settings};
use crate::interruption::send;

const PATIENCE: Duration = Duration::from_secs(60);

fn on(server: &StorageServer, mut command: Command) -> Command {
    command
        .env("VRS_REPOSITORY", server.location("repo"))
        .envs(server.environment());
    if server.certificate().exists() {
        command.arg("--cacert").arg(server.certificate());
    }
    command
}

#[rstest]
fn a_machine_comes_back_from_another_computer(
    #[values(
        ServerKind::Sshd,
        ServerKind::RcloneRest,
        ServerKind::Moto,
        ServerKind::MotoOverTls,
        ServerKind::RcloneClient
    )]
    kind: ServerKind,
) {
    let (server, environment) = (StorageServer::start(kind), Environment::new());
    let run = |arguments: &[&str]| {
        let run = environment.finish(on(&server, environment.command(arguments)));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    };
    let mut machine = environment.machine("web", 3 * MIB);
    let disk = machine.guest_bytes(0);
    let location = server.location("repo");
    let made = run(&["init"]);
    assert!(made.contains(&location), "{made} {location}");
    run(&["take", &settings(&machine), "--limit-upload", "100000"]);
    machine.fill(0, 0, MIB, 99);
    assert!(run(&["list"]).ends_with("\n1 snapshot\n"));
    run(&[
        "restore",
        "web@latest",
        "--yes",
        "--limit-download",
        "100000",
    ]);
    assert_eq!(machine.guest_bytes(0), disk);
    let check = run(&["check", "--read-data"]);
    assert!(
        check.ends_with("no damage found; 1 snapshot can be restored\n"),
        "{check}"
    );
}

#[test]
fn what_is_wrong_with_a_server_is_told_without_secrets() {
    let environment = Environment::new();
    let mut server = StorageServer::start(ServerKind::RcloneRest);
    let failure = |server: &StorageServer, password: &str| {
        let mut command = on(server, environment.command(&["list"]));
        command.env("RESTIC_REST_PASSWORD", password);
        let text = environment.finish(command).failure();
        assert!(!text.contains("hunter2"), "{text}");
        text.replace(&server.port().to_string(), "PORT")
    };
    insta::assert_snapshot!(failure(&server, "rest secret"), @r"
    1
    error: rest:http://127.0.0.1:PORT/repo/ is not a repository: it holds no 'config'; check the location, or create a repository with 'vrs init'
    ");
    insta::assert_snapshot!(failure(&server, "hunter2"), @r"
    1
    error: the server of the repository at rest:http://127.0.0.1:PORT/repo/ refused the login; check user, key or password of the storage, and the clock
      caused by: the server answered with status 401
    ");
    server.stop();
    insta::assert_snapshot!(failure(&server, "rest secret"), @r"
    1
    error: cannot reach the repository at rest:http://127.0.0.1:PORT/repo/; check the address, the network and that its server runs, then try again: what was stored so far will be reused
      caused by: Connection refused (os error 111)
    ");
}

#[test]
fn programs_that_are_missing_are_told() {
    let environment = Environment::new();
    let failure = |location: &str| {
        let mut command = environment.command(&["list"]);
        command
            .env("VRS_REPOSITORY", location)
            .env("PATH", "/nowhere");
        environment.finish(command).failure()
    };
    insta::assert_snapshot!(failure("sftp:me@127.0.0.1:/srv"), @r"
    1
    error: the repository at sftp:me@127.0.0.1:/srv needs a program that could not be started; install it, or say where it is
      caused by: cannot start ssh: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(failure("rclone:remote:path"), @r"
    1
    error: the repository at rclone:remote:path needs a program that could not be started; install it, or say where it is
      caused by: cannot start rclone: No such file or directory (os error 2)
    ");
}

#[test]
fn a_location_in_the_config_file_may_be_elsewhere() {
    let (server, environment) = (StorageServer::start(ServerKind::Sshd), Environment::new());
    let ssh = server.ssh().join(" ");
    let config = format!(
        "ssh_command = \"{ssh}\"\ndefault_repository = \"nas\"\n[repositories.nas]\nlocation = \"{}\"\n",
        server.location("repo")
    );
    environment.write(&environment.config_file(), &config);
    for arguments in [["init"], ["list"]] {
        let mut command = environment.bare_command(&arguments);
        command.env("VRS_PASSWORD", "p");
        let run = environment.finish(command);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    }
}

#[rstest]
#[case(ServerKind::Sshd)]
#[case(ServerKind::RcloneRest)]
#[case(ServerKind::Moto)]
fn a_laptop_that_sleeps_in_mid_take_goes_on(#[case] kind: ServerKind) {
    let (mut server, environment) = (StorageServer::start(kind), Environment::new());
    let mut machine = environment.machine("web", 6 * MIB);
    let disk = machine.guest_bytes(0);
    let proxy = Proxy::slow(server.port(), Duration::ZERO);
    server.reach_through(&proxy);
    let run = |arguments: &[&str]| {
        let run = environment.finish(on(&server, environment.command(arguments)));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    };
    run(&["init"]);
    let taken = ["take", &settings(&machine), "--limit-upload", "1500"];
    let mut command = on(&server, environment.command(&taken));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let before = proxy.sent_bytes();
    let mut take = command.spawn().unwrap();
    let begun = Instant::now();
    while proxy.sent_bytes() < before + MIB as u64 {
        assert!(begun.elapsed() < PATIENCE, "nothing is sent");
        assert!(take.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    send("-STOP", &take);
    proxy.cut_all();
    // What was under way is answered with a reset, not kept for later.
    std::thread::sleep(Duration::from_millis(300));
    send("-CONT", &take);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut take.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!((take.wait().unwrap().code(), said.as_str()), (Some(0), ""));
    machine.fill(0, 0, MIB, 99);
    run(&["restore", "web@latest", "--yes"]);
    assert_eq!(machine.guest_bytes(0), disk);
}

/// Two S3 servers, neither of which knows the key of the other, and a REST server.
#[test]
fn copies_and_repairs_from_one_server_to_another_with_credentials_of_their_own() {
    let (first, environment) = (
        StorageServer::start(ServerKind::RcloneRest),
        Environment::new(),
    );
    let [second, third] = [(); 2].map(|()| StorageServer::start(ServerKind::GuardedMoto));
    let profile = |name: &str, server: &StorageServer| {
        let (id, secret) = server.s3_key();
        format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    let credentials = profile("second", &second) + &profile("third", &third);
    environment.write(&environment.path().join(".aws/credentials"), &credentials);
    let config = format!(
        "[repositories.second]\nlocation = \"{}\"\naws_profile = \"second\"\n",
        second.location("repo")
    );
    environment.write(&environment.config_file(), &config);
    let run = |arguments: &[&str]| {
        let run = environment.finish(on(&first, environment.command(arguments)));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    };
    vrs_testkit::make_repository(&first.root().join("repo"));
    let machine = environment.machine("web", MIB);
    run(&["take", &settings(&machine)]);
    run(&["init", "--repo", "second"]);
    let mut init = environment.command(&["init"]);
    init.env("VRS_REPOSITORY", third.location("repo"))
        .env("AWS_PROFILE", "third");
    assert_eq!(environment.finish(init).code, 0);

    run(&["copy", "--to", "second"]);
    let third_location = third.location("repo");
    let to_third = ["--to", &third_location, "--other-aws-profile", "third"];
    run(&[&["copy", "--repo", "second"], &to_third[..]].concat());
    // The key of another server is no key here.
    let arguments = ["copy", "--repo", "second", "--to", &third_location];
    let refused = environment.finish(on(&first, environment.command(&arguments)));
    assert!(
        refused.stderr.contains("refused the login"),
        "{}",
        refused.stderr
    );
    let keys = run(&["key", "list", "--repo", "second"]);
    assert_eq!(keys.lines().count(), 2, "{keys}");

    let folders = std::fs::read_dir(first.root().join("repo/data")).unwrap();
    let packs = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let packs = packs.map(|pack| pack.unwrap().path());
    let largest = packs.max_by_key(|file| file.metadata().unwrap().len());
    std::fs::remove_file(largest.unwrap()).unwrap();
    let from = ["--from", &third_location, "--other-aws-profile", "third"];
    let repaired = run(&[&["check", "--repair"], &from[..]].concat());
    assert!(repaired.contains("chunks came from s3:"), "{repaired}");
    run(&["check", "--read-data"]);
}

#[test]
fn rclone_ends_with_a_vrs_that_is_killed() {
    let environment = Environment::new();
    let server = StorageServer::start(ServerKind::RcloneClient);
    let location = server.location("repo");
    vrs_testkit::make_repository(&server.root().join("repo"));
    let machine = environment.machine("web", 4 * MIB);
    let taken = ["take", &settings(&machine), "--limit-upload", "200"];
    let mut take = on(&server, environment.command(&taken)).spawn().unwrap();
    let remote = location.strip_prefix("rclone:").unwrap();
    let is_running = || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let commands = processes
            .filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok());
        let mut commands = commands.map(|command| String::from_utf8_lossy(&command).into_owned());
        commands.any(|command| command.contains(remote))
    };
    let wait_until = |wanted: bool| {
        let begun = Instant::now();
        while is_running() != wanted {
            assert!(begun.elapsed() < PATIENCE, "rclone runs: {}", !wanted);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_until(true);
    let locks = || {
        std::fs::read_dir(server.root().join("repo/locks"))
            .unwrap()
            .count()
    };
    let begun = Instant::now();
    while locks() == 0 {
        assert!(begun.elapsed() < PATIENCE && take.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    take.kill().unwrap();
    take.wait().unwrap();
    wait_until(false);
}
