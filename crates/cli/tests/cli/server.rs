//! Services for the machine where a repository lies. The real `systemd-analyze` reads the units; a
//! stand-in plays `systemctl`, as systemd itself does not run in tests.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use vrs_testkit::REPOSITORY_PASSWORD;

use crate::environment::{Environment, Run};
use crate::json::documented;

const RULES: [&str; 4] = ["--keep-within", "3m", "--keep-tag", "a,b $HOME"];

struct Storage {
    environment: Environment,
    password: PathBuf,
}

impl Storage {
    /// With a snapshot in the repository.
    fn new() -> Self {
        let (environment, _) = Environment::with_snapshot("web");
        let password = environment.path().join("pass word");
        environment.write(&password, REPOSITORY_PASSWORD);
        let storage = Self {
            environment,
            password,
        };
        storage.permit(0o600);
        storage
    }

    fn permit(&self, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&self.password, mode).unwrap();
    }

    fn units(&self) -> PathBuf {
        self.environment.path().join("units")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.bare_command(&["server"]);
        command
            .args(arguments)
            .env("VRS_REPOSITORY", self.environment.repository())
            .arg("--password-file")
            .arg(&self.password);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.environment.finish(self.command(arguments))
    }

    /// With systemd's folder and a `systemctl` that notes what it is told.
    fn run_with_systemctl(&self, arguments: &[&str], state: &str) -> Run {
        let programs = self.environment.path().join("programs");
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> '{}'\n[ \"$VRS_PASSWORD_FILE$VRS_PASSWORD\" = '' ] || exit 9\n\
             case \"$3\" in show) printf '{state}' ;; esac\n",
            self.told().display()
        );
        let program = programs.join("systemctl");
        std::fs::create_dir_all(&programs).unwrap();
        vrs_testkit::write_script(&program, &script);
        let path = format!("{}:/usr/bin:/bin", programs.display());
        let mut command = self.command(arguments);
        command.env("PATH", path).env("VRS_PASSWORD", "hunter2");
        self.environment.finish(command)
    }

    fn told(&self) -> PathBuf {
        self.environment.path().join("told")
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What a service runs, as systemd would start it.
fn started(storage: &Storage, unit: &Path) -> Run {
    let text = std::fs::read_to_string(unit).unwrap();
    let setting = |name: &str| {
        let lines = text.lines().filter_map(move |line| line.strip_prefix(name));
        lines
            .map(|value| value.replace("%%", "%"))
            .collect::<Vec<_>>()
    };
    let command = setting("ExecStart=").concat().replace("$$", "$");
    let words = shell_words(&command);
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    for variable in setting("Environment=") {
        let (name, value) = shell_words(&variable)[0]
            .split_once('=')
            .map(|(name, value)| {
                (
                    name.to_owned(),
                    value.replace("%d", storage.environment.path().to_str().unwrap()),
                )
            })
            .unwrap();
        command.env(name, value);
    }
    storage.environment.finish(command)
}

/// Words in double quotes, or without.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim();
    }
    words
}

#[test]
fn units_are_written_and_do_what_they_say() {
    let storage = Storage::new();
    let units = storage.units();
    let place = ["--units", units.to_str().unwrap()];
    let shown = storage.run(&[&["install", "--dry-run"], &place[..], &RULES[..]].concat());
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(!units.exists(), "a dry run wrote something");
    let run = storage.run(&[&["install"], &place[..], &RULES[..]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let written = files(&units);
    assert_eq!(written.len(), 4);
    for file in &written {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.replace(storage.environment.path().to_str().unwrap(), "FOLDER");
        assert!(
            shown.stdout.contains(text.trim()),
            "{}\n{text}",
            shown.stdout
        );
        assert!(!text.contains(REPOSITORY_PASSWORD));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .args(&written)
        .output()
        .expect("these tests need systemd-analyze; run scripts/setup-tests");
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours = said.lines().filter(|line| line.contains("vrs-"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(verified.status.success(), "{said}");

    // The credential lies where the test says systemd put it.
    let credential = storage.environment.path().join("vrs-password");
    storage.environment.write(&credential, REPOSITORY_PASSWORD);
    let service = |verb: &str| {
        let of_verb = |file: &&PathBuf| {
            let name = file.to_str().unwrap();
            name.contains(&format!("vrs-{verb}-")) && name.ends_with(".service")
        };
        written.iter().find(of_verb).unwrap()
    };
    let pruned = started(&storage, service("prune"));
    assert_eq!((pruned.code, pruned.stderr.as_str()), (0, ""));
    assert!(
        pruned.stdout.starts_with("deleted 0 of 1 snapshot"),
        "{}",
        pruned.stdout
    );
    let checked = started(&storage, service("check"));
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert!(
        checked.stdout.contains("no damage found"),
        "{}",
        checked.stdout
    );

    // What somebody else wrote is left alone.
    std::fs::write(&written[0], "[Unit]\n").unwrap();
    for verb in ["install", "uninstall"] {
        let run = storage.run(&[&[verb], &place[..]].concat());
        assert_eq!(run.code, 1);
        assert!(
            run.stderr.contains("was not written by vrs"),
            "{}",
            run.stderr
        );
    }
    assert_eq!(files(&units).len(), 4);
    std::fs::remove_file(&written[0]).unwrap();
    let run = storage.run(&[&["uninstall"], &place[..]].concat());
    assert_eq!(
        (run.code, run.stdout.lines().count()),
        (0, 3),
        "{}",
        run.stderr
    );
    assert_eq!(files(&units), Vec::<PathBuf>::new());
}

#[test]
fn rules_of_the_storage_side_keep_the_stored_policy_out() {
    let storage = Storage::new();
    let prune = |arguments: &[&str]| {
        let run = storage.run(&[&["install", "--user", "--dry-run"], arguments].concat());
        let mut lines = run
            .stdout
            .lines()
            .filter(|line| line.starts_with("ExecStart="));
        let line = lines.find(|line| line.contains(" prune ")).unwrap();
        line.split_once(" prune ").unwrap().1.to_owned()
    };
    assert_eq!(prune(&[]), "--yes --no-progress");
    assert_eq!(
        prune(&["--ignore-policy"]),
        "--yes --ignore-policy --no-progress"
    );
    assert_eq!(
        prune(&RULES),
        r#"--yes --ignore-policy "--keep-within=3m" "--keep-tag=a,b $$HOME" --no-progress"#
    );
}

const WELL: &str = "UnitFileState=enabled\\nActiveState=active\\nLastTriggerUSec=n/a\\n\
    NextElapseUSecRealtime=Fri 2026-11-27 00:00:00 UTC\\nResult=success\\nExecMainStatus=0\\n";
const GONE: &str = "UnitFileState=\\nActiveState=inactive\\n";
const FAILED: &str = "UnitFileState=enabled\\nActiveState=active\\nLastTriggerUSec=yesterday\\n\
    NextElapseUSecRealtime=\\nResult=exit-code\\nExecMainStatus=1\\n";

#[test]
fn timers_are_started_looked_at_and_stopped() {
    let storage = Storage::new();
    let run = storage.run_with_systemctl(&["install", "--user", "--json"], WELL);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let report = serde_json::from_str(&run.stdout).unwrap();
    insta::assert_snapshot!(documented(&report), @r#"
    timers: array
    timers[].active: string
    timers[].enabled: string
    timers[].exit_code: null
    timers[].last: null
    timers[].next: string
    timers[].result: null
    timers[].timer: string
    type: "server"
    "#);
    let folder = storage.environment.path().join("config/systemd/user");
    assert_eq!(files(&folder).len(), 4);
    let told = std::fs::read_to_string(storage.told()).unwrap();
    let timers = |line: &str| line.matches(".timer").count();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "--user --no-pager daemon-reload");
    assert!(
        lines[1].starts_with("--user --no-pager enable --now "),
        "{told}"
    );
    assert_eq!(timers(lines[1]), 2);

    let run = storage.run_with_systemctl(&["status", "--user"], FAILED);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("exit-code (1)"), "{}", run.stdout);
    let run = storage.run_with_systemctl(&["status", "--user"], WELL);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));

    let run = storage.run_with_systemctl(&["uninstall", "--user", "--json"], GONE);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let report = serde_json::from_str(&run.stdout).unwrap();
    insta::assert_snapshot!(documented(&report), @r#"
    outcome: string
    type: "units"
    units: array
    units[].path: string
    units[].text: null
    "#);
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
    let run = storage.run_with_systemctl(&["status", "--user"], GONE);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.contains("there are no timers of vrs"),
        "{}",
        run.stdout
    );
}

#[test]
fn what_systemd_does_not_do_is_told() {
    let storage = Storage::new();
    let failure = |state: &str| {
        let run = storage.run_with_systemctl(&["install", "--user"], state);
        assert_eq!(run.code, 1);
        run.stderr
    };
    let said = failure(GONE);
    assert!(
        said.contains("is unknown, inactive; `systemctl status"),
        "{said}"
    );
    let mut command = storage.command(&["install", "--user"]);
    command.env("PATH", "/nowhere");
    let said = storage.environment.finish(command).failure();
    insta::assert_snapshot!(said, @r"
    1
    error: systemd did not do it: `systemctl daemon-reload`: systemctl could not be started: No such file or directory (os error 2); run this where systemd runs, as root or with --user, or write the units to a folder with --units
    ");
}

#[test]
fn a_service_needs_a_password_of_its_own_and_a_folder() {
    let storage = Storage::new();
    storage.permit(0o644);
    insta::assert_snapshot!(storage.run(&["install", "--dry-run"]).failure(), @r"
    1
    error: others than its owner can read the password file 'FOLDER/pass word'; run `chmod 600` on it first
    ");
    storage.permit(0o600);
    storage.environment.write(&storage.password, "wrong");
    let run = storage.run(&["install", "--dry-run"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("the password came from the file"),
        "{}",
        run.stderr
    );
    let said = storage.environment.fails(&["server", "install"]);
    insta::assert_snapshot!(said, @r"
    2
    error: a service can ask nobody for the password; put it into a file that only its owner can read, and name that with --password-file
    ");
    let run = storage.run(&["install", "--repo", "sftp:nas:/srv"]);
    insta::assert_snapshot!(run.failure(), @r"
    2
    error: sftp:nas:/srv is no folder of this computer; run this where the repository lies, with its folder as --repo
    ");
    let run = storage.run(&[
        "install",
        "--dry-run",
        "--prune-at",
        "daily\nExecStart=/bin/rm",
    ]);
    insta::assert_snapshot!(run.failure(), @r"
    2
    error: 'daily\nExecStart=/bin/rm' cannot stand in a unit of systemd: it holds control characters
    ");
}
