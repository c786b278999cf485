//! A stolen host that may only add, and the storage side that prunes.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use vrs_progress::NoProgress;
use vrs_repository::store::SnapshotLabel;
use vrs_repository::{
    Access, Location, OpenOptions, Password, ResticRepository, S3Key, SnapshotStore,
};
use vrs_testkit::{ServerKind, StorageServer};

use crate::environment::{Environment, MIB, Run, settings};

struct Scene {
    server: StorageServer,
    environment: Environment,
    /// The host's key on servers where it differs from that of the storage side.
    host: &'static str,
}

impl Scene {
    fn new(kind: ServerKind, host: &'static str) -> Self {
        let mut server = StorageServer::start(kind);
        let environment = Environment::new();
        if host.is_empty() {
            vrs_testkit::make_repository(&server.root().join("repo"));
        } else {
            let made = environment.finish(on(&server, environment.command(&["init"])));
            assert_eq!(made.code, 0, "{}", made.stderr);
            server.log_in_as(host);
        }
        Self {
            server,
            environment,
            host,
        }
    }

    /// What the host does, or whoever stole its key.
    fn host(&self, arguments: &[&str]) -> Run {
        let command = on(&self.server, self.environment.command(arguments));
        self.environment.finish(command)
    }

    /// What the storage side does: on its own folder, or with a key that may do everything.
    fn storage(&mut self, arguments: &[&str]) -> String {
        let command = self.environment.command(arguments);
        let command = if self.host.is_empty() {
            let mut command = command;
            command.env("VRS_REPOSITORY", self.server.root().join("repo"));
            command
        } else {
            self.server.log_in_as("owner");
            let command = on(&self.server, command);
            self.server.log_in_as(self.host);
            command
        };
        let run = self.environment.finish(command);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    }

    /// Adds snapshots that pretend to be of the same machine, at other times.
    fn add_fakes(&self, ages: &[SignedDuration]) {
        let mut options = OpenOptions::default();
        options.access = Access::default();
        let (user, password) = self.server.rest_login();
        options.access.rest_login = Some((user.to_owned(), Password::new(password.to_owned())));
        let (id, secret) = self.server.s3_key();
        options.access.s3_key = Some(S3Key {
            id: id.to_owned(),
            secret: Password::new(secret.to_owned()),
            session_token: None,
        });
        let location = Location::parse(&self.server.location("repo")).unwrap();
        let password = Password::new(vrs_testkit::REPOSITORY_PASSWORD.to_owned());
        let repository = ResticRepository::open(&location, &password, &options).unwrap();
        let real = repository.snapshots().unwrap().snapshots.remove(0);
        for age in ages {
            let ingest = repository.ingest(&NoProgress).unwrap();
            let label = SnapshotLabel {
                time: Timestamp::now().checked_sub(*age).unwrap(),
                hostname: real.hostname.clone(),
                tags: real.tags.clone(),
                description: None,
            };
            ingest.commit(&label).unwrap();
        }
    }
}

fn on(server: &StorageServer, mut command: Command) -> Command {
    command
        .env("VRS_REPOSITORY", server.location("repo"))
        .envs(server.environment());
    command
}

#[rstest]
#[case(ServerKind::AppendOnlyRest, "")]
#[case(ServerKind::GuardedMoto, "adding")]
fn a_stolen_key_removes_no_snapshot_and_has_none_removed(
    #[case] kind: ServerKind,
    #[case] host: &'static str,
) {
    let mut scene = Scene::new(kind, host);
    let mut machine = scene.environment.machine("web", MIB);
    let disk = machine.guest_bytes(0);
    let take = |scene: &Scene, machine: &vrs_testkit::SampleMachine, name: &str| {
        let run = scene.host(&["take", &settings(machine), "--name", name]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{name}");
    };
    take(&scene, &machine, "real");
    // The fakes will have its name, too.
    let list: serde_json::Value =
        serde_json::from_str(&scene.host(&["list", "--json"]).stdout).unwrap();
    let real = list["snapshots"][0]["id"].as_str().unwrap().to_owned();

    // From here on somebody else does it.
    machine.fill(0, 0, MIB, 66);
    take(&scene, &machine, "fake");
    for refused in [
        &["delete", "web@real", "--yes"][..],
        &["edit", "web@real", "--name", "gone"],
        &["prune", "--yes", "--keep-last", "1"],
    ] {
        let run = scene.host(refused);
        assert_eq!(run.code, 1, "{refused:?}");
        let told = "the server does not permit to remove snapshot";
        assert!(run.stderr.contains(told), "{refused:?}: {}", run.stderr);
    }
    // Also when there is one already that cannot be removed.
    for rule in ["2", "1"] {
        let run = scene.host(&["policy", "set", "--keep-last", rule]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    }
    assert!(scene.storage(&["policy", "show"]).contains("--keep-last 1"));
    let years = |years: i64| SignedDuration::from_hours(years * 365 * 24);
    scene.add_fakes(&[
        years(-70),
        years(-1),
        SignedDuration::from_mins(-50),
        SignedDuration::from_secs(1),
    ]);

    let pruned = scene.storage(&["prune", "--yes", "--keep-within", "1m"]);
    assert!(pruned.starts_with("deleted 0 of "), "{pruned}");
    let pruned = scene.storage(&["prune", "--yes", "--ignore-policy"]);
    assert!(pruned.starts_with("deleted 0 of "), "{pruned}");
    scene.storage(&["restore", &real, "--yes"]);
    assert_eq!(machine.guest_bytes(0), disk);
    take(&scene, &machine, "after");
}
