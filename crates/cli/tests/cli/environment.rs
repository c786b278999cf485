//! A user of `vrs`: a home folder, a repository, a machine, and nothing of the real user's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vrs_testkit::{REPOSITORY_PASSWORD, SampleDisk, SampleMachine, make_repository};

pub const MIB: usize = 1 << 20;

pub struct Environment {
    folder: tempfile::TempDir,
}

/// What a run of `vrs` left.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Environment {
    /// Without a repository.
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// With an empty repository.
    pub fn with_repository() -> Self {
        let environment = Self::new();
        make_repository(&environment.folder.path().join("repository"));
        environment
    }

    /// With a repository and a machine of which the snapshot `first` was taken before its disk
    /// changed.
    pub fn with_snapshot(name: &str) -> (Self, SampleMachine) {
        let environment = Self::with_repository();
        let mut machine = environment.machine(name, 3 * MIB);
        environment.succeeds(&[
            "take",
            &settings(&machine),
            "--name",
            "first",
            "--tag",
            "a,b",
            "--description",
            "the first",
        ]);
        machine.fill(0, 0, MIB, 99);
        (environment, machine)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A machine with one disk that holds `used_bytes` of noise.
    pub fn machine(&self, name: &str, used_bytes: usize) -> SampleMachine {
        let machines = self.path().join("machines");
        std::fs::create_dir_all(&machines).unwrap();
        let disk = SampleDisk::dynamic(2 * used_bytes as u64);
        let mut machine = SampleMachine::builder(&machines, name).disk(disk).build();
        machine.fill(0, 0, used_bytes, 7);
        machine
    }

    pub fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    pub fn config_file(&self) -> PathBuf {
        self.path().join("config/vrs/config.toml")
    }

    pub fn write(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// `vrs` with a repository and its password, without VirtualBox.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command(arguments);
        command
            .env("VRS_REPOSITORY", self.repository())
            .env("VRS_PASSWORD", REPOSITORY_PASSWORD);
        command
    }

    /// `vrs` that knows of nothing.
    pub fn bare_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vrs"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("VRS_STATE_DIR", self.path().join("state"))
            .env("VRS_CACHE_DIR", self.path().join("cache"))
            .env("VRS_VBOXMANAGE", "/nowhere/VBoxManage")
            .env("TZ", "UTC")
            .current_dir(self.path())
            .stdin(std::process::Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.finish(self.command(arguments))
    }

    /// Runs a command and gives what it wrote, with this environment's folder called FOLDER.
    pub fn finish(&self, command: Command) -> Run {
        let run = Run::of(command);
        let neutral = |text: String| text.replace(self.path().to_str().unwrap(), "FOLDER");
        Run {
            stdout: neutral(run.stdout),
            stderr: neutral(run.stderr),
            ..run
        }
    }

    /// Runs a command that must succeed without a word on stderr, and gives its stdout as it is.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let run = Run::of(self.command(arguments));
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (0, ""),
            "{arguments:?}: {}",
            run.stdout
        );
        run.stdout
    }

    /// Runs a command that must fail without a word on stdout, and gives its exit code and stderr.
    /// This environment's folder is called FOLDER there.
    pub fn fails(&self, arguments: &[&str]) -> String {
        self.finish(self.command(arguments)).failure()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        serde_json::from_str(&self.run(&arguments).stdout).unwrap()
    }
}

impl Run {
    fn of(mut command: Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: status.code().unwrap_or(-1),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Exit code and stderr of a run that failed.
    pub fn failure(&self) -> String {
        assert_eq!(self.stdout, "");
        format!("{}\n{}", self.code, self.stderr)
    }
}

pub fn settings(machine: &SampleMachine) -> String {
    machine.settings_path().to_str().unwrap().to_owned()
}
