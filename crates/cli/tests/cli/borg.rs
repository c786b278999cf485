//! Machines in borg repositories, with the real borg, sshd and rsync.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vrs_testkit::{SampleMachine, ServerKind, StorageServer};

use crate::environment::{Environment, MIB, Run, settings};

const PATIENCE: Duration = Duration::from_secs(120);

/// A user with a borg repository, here or on a server.
struct User {
    environment: Environment,
    server: Option<StorageServer>,
}

impl User {
    fn new(is_remote: bool) -> Self {
        Self {
            environment: Environment::new(),
            server: is_remote.then(|| StorageServer::start(ServerKind::Sshd)),
        }
    }

    fn location(&self) -> String {
        match &self.server {
            Some(server) => server.borg_location("repo"),
            None => format!("borg:{}", self.environment.path().join("repo").display()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.command(arguments);
        command.env("VRS_REPOSITORY", self.location());
        if let Some(server) = &self.server {
            command.envs(server.environment());
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.environment.finish(self.command(arguments))
    }

    /// Without progress, of which slow computers show more.
    fn succeeds(&self, arguments: &[&str]) -> String {
        let run = self.run(&[arguments, &["--no-progress"]].concat());
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (0, ""),
            "{arguments:?}: {}",
            run.stdout
        );
        run.stdout
    }

    /// Stores a folder with its whole path, as `borg create` does.
    fn store_as_the_script(&self, folder: &Path, archive: &str) {
        let mut command = Command::new("borg");
        let repository = self.environment.path().join("repo");
        command
            .arg("create")
            .arg(format!("{}::{archive}", repository.display()))
            .arg(folder)
            .env("HOME", self.environment.path())
            .env("BORG_PASSPHRASE", vrs_testkit::REPOSITORY_PASSWORD);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Kills `vrs` when it has come to `phase` and `is_far` says so.
    fn kill_in(&self, arguments: &[&str], phase: &str, is_far: impl Fn() -> bool) {
        let mut command = self.command(arguments);
        command
            .arg("--json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut events = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = format!(r#"{{"type":"phase","name":"{phase}""#);
        assert!(events.any(|line| line.unwrap().starts_with(&wanted)));
        std::thread::spawn(move || events.for_each(drop));
        wait_until(|| is_far() || child.try_wait().unwrap().is_some());
        assert!(
            child.try_wait().unwrap().is_none(),
            "it was not killed in time"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Each verb through sshd is in the tests of vrs-borg.
#[test]
fn a_machine_comes_back_from_a_borg_repository_on_a_server() {
    let user = User::new(true);
    let mut machine = user.environment.machine("web", 3 * MIB);
    let disk = machine.guest_bytes(0);
    user.succeeds(&["init"]);
    user.succeeds(&["take", &settings(&machine), "--name", "first"]);
    machine.fill(0, 0, MIB, 99);
    user.succeeds(&["restore", "web@first", "--yes"]);
    assert_eq!(machine.guest_bytes(0), disk);
    assert!(user.succeeds(&["list"]).ends_with("\n1 snapshot\n"));
}

#[test]
fn a_machine_lives_in_a_borg_repository() {
    let user = User::new(false);
    let mut machine = user.environment.machine("web", 3 * MIB);
    let disk = machine.guest_bytes(0);
    let made = user.succeeds(&["init"]);
    assert!(made.contains("borg:"), "{made}");
    user.succeeds(&["take", &settings(&machine), "--name", "first", "--tag", "a"]);
    machine.fill(0, 0, MIB, 99);
    user.succeeds(&["take", &settings(&machine), "--name", "second"]);
    assert!(user.succeeds(&["list"]).ends_with("\n2 snapshots\n"));
    let shown = user.succeeds(&["show", "web@first"]);
    assert!(
        shown.contains("web.vdi") || shown.contains("disk"),
        "{shown}"
    );
    user.succeeds(&["diff", "web@first", "web@second"]);
    user.succeeds(&["restore", "web@first", "--yes"]);
    assert_eq!(machine.guest_bytes(0), disk);
    user.succeeds(&["clone", "web@first", "--name", "two"]);
    // All but the header, which has the identity.
    let data = |image: &Path| std::fs::read(image).unwrap().split_off(MIB);
    let image = &machine.chain(0)[0];
    let clone = machine.folder().with_file_name("two");
    let cloned = clone.join(image.strip_prefix(machine.folder()).unwrap());
    assert!(data(&cloned) == data(image));
    user.succeeds(&["edit", "web@first", "--pin", "--tag", "b"]);
    user.succeeds(&["policy", "set", "--keep-last", "1"]);
    let pruned = user.succeeds(&["prune", "--dry-run"]);
    assert!(pruned.contains("pinned"), "{pruned}");
    user.succeeds(&["prune", "--keep-last", "1", "--yes"]);
    user.succeeds(&["delete", "web@second", "--yes"]);
    assert!(user.succeeds(&["list"]).ends_with("\n1 snapshot\n"));
    let checked = user.succeeds(&["check", "--read-data"]);
    assert!(
        checked.ends_with("no damage found; 1 snapshot can be restored\n"),
        "{checked}"
    );
}

#[test]
fn what_is_wrong_is_told_and_what_borg_cannot_do() {
    let user = User::new(false);
    let failure = |arguments: &[&str]| user.run(arguments).failure();
    insta::assert_snapshot!(failure(&["list"]), @r"
    1
    error: there is no repository at borg:FOLDER/repo: nothing exists there; check the location, or create one with 'vrs init'
    ");
    user.succeeds(&["init"]);
    let mut wrong = user.command(&["list"]);
    wrong.env("VRS_PASSWORD", "hunter2");
    insta::assert_snapshot!(user.environment.finish(wrong).failure(), @r"
    1
    error: wrong password for the repository at borg:FOLDER/repo: it opens none of its keys; check the password and try again
    hint: the password came from the variable VRS_PASSWORD
    ");
    insta::assert_snapshot!(failure(&["key", "list"]), @r"
    2
    error: vrs does that in repositories of restic's format only, and borg:FOLDER/repo is one of borg; `borg key --help` tells about its keys
    ");
    let mut without = user.command(&["list"]);
    without.env("PATH", "/nowhere");
    insta::assert_snapshot!(user.environment.finish(without).failure(), @r"
    1
    error: the repository at borg:FOLDER/repo needs a program that could not be started; install it, or say where it is
      caused by: cannot start borg: No such file or directory (os error 2)
    ");
    let mut odd = user.command(&["list"]);
    odd.env("VRS_REPOSITORY", "borg:nas:");
    insta::assert_snapshot!(user.environment.finish(odd).failure(), @r#"
    1
    error: "borg:nas:" is not a repository location: it names no path; give PATH, sftp:USER@HOST:PATH, s3:URL/BUCKET, rest:URL, rclone:REMOTE:PATH or borg:PATH
    "#);
}

#[test]
fn a_killed_take_leaves_nothing_and_the_next_one_works() {
    const DISK_BYTES: usize = 96 * MIB;
    let user = User::new(true);
    let machine = user.environment.machine("web", DISK_BYTES);
    let disk = machine.guest_bytes(0);
    user.succeeds(&["init"]);
    let repository = user.server.as_ref().unwrap().root().join("repo");
    let before = size_of(&repository);
    let take = ["take", &settings(&machine), "--limit-upload", "20000"];
    user.kill_in(&take, "reading", || {
        size_of(&repository) > before + 4 * MIB as u64
    });
    assert_eq!(user.succeeds(&["list"]), "0 snapshots\n");
    user.succeeds(&["take", &settings(&machine)]);
    std::fs::write(&machine.chain(0)[0], b"").unwrap();
    user.succeeds(&["restore", "web@latest", "--yes"]);
    assert_eq!(machine.guest_bytes(0), disk);
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn a_killed_restore_leaves_no_mount_and_goes_on() {
    const DISK_BYTES: usize = 32 * MIB;
    let user = User::new(true);
    let mut machine = user.environment.machine("web", DISK_BYTES);
    let disk = machine.guest_bytes(0);
    user.succeeds(&["init"]);
    user.succeeds(&["take", &settings(&machine), "--name", "first"]);
    machine.fill(0, 0, DISK_BYTES, 5);
    let image = machine.chain(0)[0].clone();
    let changed = std::fs::read(&image).unwrap();
    let differs = |image: &Path| {
        let now = std::fs::read(image).unwrap_or_default();
        let blocks = now.chunks(MIB).zip(changed.chunks(MIB));
        blocks.filter(|(now, before)| now != before).count()
    };
    let restore = ["restore", "web@first", "--yes", "--limit-download", "4000"];
    user.kill_in(&restore, "restoring", || differs(&image) > 2);
    let server = user.server.as_ref().unwrap();
    wait_until(|| server.borg_mounts().is_empty());
    let done = differs(&image);
    assert!((3..DISK_BYTES / MIB).contains(&done), "{done}");
    let run = user.run(&["restore", "web@first", "--yes"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(machine.guest_bytes(0), disk);
    assert!(server.borg_mounts().is_empty());
}

/// As the script stored it: the whole folder, frozen by a VirtualBox snapshot that is still in it.
#[test]
fn machines_that_the_original_script_stored_come_back() {
    let user = User::new(false);
    user.succeeds(&["init"]);
    let mut machine = user.environment.machine("we-b", 3 * MIB);
    let offline = with_content(machine.chain(0)[0].clone());
    user.store_as_the_script(machine.folder(), "we-b-2020-03-01_02:03-offline");
    machine.fill(0, 0, MIB, 5);
    machine.take_virtualbox_snapshot("mine");
    machine.fill(0, MIB as u64, MIB, 6);
    machine.save_state(b"the memory of a running machine");
    let frozen: Vec<_> = machine.chain(0).into_iter().map(with_content).collect();
    let memory = with_content(saved_state(&machine));
    let transient = machine.take_virtualbox_snapshot("vrs-temp");
    machine.discard_state();
    machine.fill(0, 0, MIB, 7);
    let growing = machine.attached(0).to_string();
    user.store_as_the_script(machine.folder(), "we-b-2020-03-02_02:03-online");
    machine.delete_virtualbox_snapshot(transient);
    // As VirtualBox does.
    std::fs::remove_file(&memory.0).unwrap();
    machine.fill(0, 0, 3 * MIB, 8);

    let list = user.succeeds(&["list"]);
    assert!(
        list.ends_with("\n2 snapshots\n") && list.contains("we-b"),
        "{list}"
    );
    user.succeeds(&["show", "we-b@latest"]);
    // Another processor than the sample's.
    let force = ["--force", "saved-state"];
    let restored = user.run(&[&["restore", "we-b@latest", "--yes"][..], &force].concat());
    assert!(matches!(restored.code, 0 | 3), "{}", restored.stderr);
    for (path, content) in frozen.iter().chain([&memory]) {
        assert!(
            std::fs::read(path).unwrap() == *content,
            "{}",
            path.display()
        );
    }
    let text = std::fs::read_to_string(machine.settings_path()).unwrap();
    assert!(text.contains("name=\"mine\""), "{text}");
    assert!(
        !text.contains("vrs-temp") && !text.contains(&growing),
        "{text}"
    );
    let state = memory.0.file_name().unwrap().to_str().unwrap();
    assert!(
        text.contains(&format!("stateFile=\"Snapshots/{state}\"")),
        "{text}"
    );
    // The one before the VirtualBox snapshot `mine`.
    let list = user.environment.finish({
        let mut list = user.command(&["list", "--json"]);
        list.stdin(Stdio::null());
        list
    });
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let first = list["snapshots"][0]["id"].as_str().unwrap();
    user.succeeds(&["restore", first, "--yes"]);
    let text = std::fs::read_to_string(machine.settings_path()).unwrap();
    assert!(
        !text.contains("<Snapshot ") && !text.contains("stateFile"),
        "{text}"
    );
    assert!(std::fs::read(&offline.0).unwrap() == offline.1);
    let checked = user.succeeds(&["check"]);
    assert!(
        checked.ends_with("2 snapshots can be restored\n"),
        "{checked}"
    );
    user.succeeds(&["delete", first, "--yes"]);
    assert!(user.succeeds(&["list"]).ends_with("\n1 snapshot\n"));
}

fn with_content(path: PathBuf) -> (PathBuf, Vec<u8>) {
    let content = std::fs::read(&path).unwrap();
    (path, content)
}

fn saved_state(machine: &SampleMachine) -> PathBuf {
    let is_state = |file: &PathBuf| file.extension().is_some_and(|end| end == "sav");
    machine.files().into_iter().find(is_state).unwrap()
}
