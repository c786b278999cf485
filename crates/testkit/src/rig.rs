//! The real VirtualBox for one test: a registry, a daemon and a folder of its own.
//!
//! Tests that use it run under `rig/run`, which names `VBoxManage` and the folder in the
//! environment. They are marked `#[ignore = "needs the VirtualBox rig; scripts/test runs it"]`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::contents::sha256;
use crate::loop_disk::LoopDisk;
use crate::script::write_script;
use crate::tiny_disk::TinyDisk;

const PATIENCE: Duration = Duration::from_secs(60);
/// What `VBoxManage` says when a lock is in its way, or the service is not there for a moment.
const PASSING: &[&str] = &[
    "Failed to create the VirtualBox object",
    "already locked",
    "already has a lock request pending",
    "was unlocked unexpectedly",
    "The session is not locked",
    "The object is not ready",
];

/// A registry with its running daemon. Dropping it ends the daemon and every machine, and removes
/// the folder.
#[derive(Debug)]
pub struct Rig {
    vboxmanage: PathBuf,
    socket: String,
    folder: TempDir,
}

impl Rig {
    /// Starts a daemon for a new, empty registry.
    ///
    /// # Panics
    /// When the environment names no rig, or its daemon does not start.
    #[must_use]
    pub fn start() -> Self {
        let work = from_environment("VRS_TEST_VBOX_WORK");
        let folder = tempfile::Builder::new()
            .prefix("rig-")
            .tempdir_in(work)
            .expect("a folder for the test");
        let socket = folder
            .path()
            .file_name()
            .expect("a name")
            .to_str()
            .expect("an ASCII name")
            .to_owned();
        let rig = Self {
            vboxmanage: from_environment("VRS_TEST_VBOXMANAGE"),
            socket,
            folder,
        };
        rig.start_daemon();
        rig
    }

    /// Lets VirtualBox forget everything and read it again: some of what it shows before that is
    /// not in its files (fractions of seconds, defaults of another settings version).
    pub fn reread(&self) {
        self.daemon("stop");
        self.start_daemon();
    }

    /// Kills VirtualBox's service.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_daemon(&self) {
        let file = self.folder.path().join("home/svc.pid");
        let id = fs::read_to_string(file).expect("the service's process id");
        let killed = Command::new("kill").args(["-KILL", id.trim()]).status();
        assert!(killed.expect("kill starts").success(), "VBoxSVC {id}");
    }

    fn start_daemon(&self) {
        let started = self.daemon("start");
        let stderr = String::from_utf8_lossy(&started.stderr);
        assert!(started.status.success(), "VBoxSVC does not start: {stderr}");
    }

    /// The program to hand to whatever is tested.
    pub fn vboxmanage(&self) -> &Path {
        &self.vboxmanage
    }

    /// A program to hand to code of this process: the environment with which it is called need not
    /// name this registry. The process id of its last call is in `VBoxManage.pid` beside it.
    #[cfg(unix)]
    pub fn program(&self) -> PathBuf {
        let program = self.folder().join("VBoxManage");
        let export =
            |(name, value): (&str, PathBuf)| format!("export {name}='{}'\n", value.display());
        let environment: String = self.environment().map(export).concat();
        let note_id = format!("echo $$ > '{}'\n", program.with_extension("pid").display());
        let call = format!("exec '{}' \"$@\"\n", self.vboxmanage.display());
        write_script(
            &program,
            &format!("#!/bin/sh\n{environment}{note_id}{call}"),
        );
        program
    }

    /// What has to be in the environment of a process that is to use this registry.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("VBOX_USER_HOME", self.folder.path().join("home")),
            ("VBOX_IPC_SOCKETID", PathBuf::from(&self.socket)),
        ]
    }

    /// A folder that VirtualBox sees too. Machines are made in its subfolder `machines`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Calls `VBoxManage`, whatever comes of it.
    pub fn output<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let output = self.command(arguments).output();
        output.expect("VBoxManage starts")
    }

    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&self.vboxmanage);
        command
            .args(arguments)
            .current_dir(self.folder())
            .envs(self.environment());
        command
    }

    /// Calls `VBoxManage` and returns what it prints.
    ///
    /// # Panics
    /// When the call fails, also after waiting for whoever has the machine locked.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned())
            .collect();
        let output = self.patient_output(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "VBoxManage {arguments:?}: {}\n{stderr}",
            output.status
        );
        String::from_utf8(output.stdout).expect("VBoxManage prints Unicode")
    }

    /// Someone else may have the machine locked for a moment, for example a `VBoxManage` whose caller
    /// was killed, and a service that ends with its last client is started again.
    fn patient_output(&self, arguments: &[OsString]) -> Output {
        let start = Instant::now();
        loop {
            let output = self.output(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let is_passing = PASSING.iter().any(|text| stderr.contains(text));
            if !is_passing || start.elapsed() > PATIENCE {
                return output;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The bytes that a guest sees of a disk (a path or UUID), by VirtualBox's own reading of the
    /// whole chain.
    pub fn guest_bytes(&self, medium: impl AsRef<OsStr>) -> Vec<u8> {
        let raw = self.folder().join("flattened.raw");
        self.run([
            "clonemedium".as_ref(),
            "disk".as_ref(),
            medium.as_ref(),
            raw.as_ref(),
            "--format".as_ref(),
            OsStr::new("RAW"),
        ]);
        let bytes = fs::read(&raw).expect("the flattened disk");
        self.run([
            "closemedium".as_ref(),
            "disk".as_ref(),
            raw.as_os_str(),
            OsStr::new("--delete"),
        ]);
        bytes
    }

    /// The SHA-256 of [`Rig::guest_bytes`].
    pub fn guest_sha256(&self, medium: impl AsRef<OsStr>) -> String {
        sha256(&self.guest_bytes(medium))
    }

    /// A file system that is full soon, which VirtualBox sees at the same path.
    #[must_use]
    pub fn tiny_disk(&self, size_bytes: u64) -> TinyDisk {
        TinyDisk::mount_seen_from(self.folder(), &self.installation().join("sid"), size_bytes)
    }

    /// A file system of a kind, which VirtualBox sees at the same path; see [`LoopDisk::mount`].
    #[must_use]
    pub fn loop_disk(&self, kind: &str) -> LoopDisk {
        LoopDisk::mount_seen_from(self.folder(), &self.installation().join("sid"), kind)
    }

    /// Where rig/setup put VirtualBox and the guests.
    pub(crate) fn installation(&self) -> PathBuf {
        let usual = || self.vboxmanage.with_file_name("../.rig");
        env::var_os("VRS_RIG").map_or_else(usual, PathBuf::from)
    }

    fn daemon(&self, action: &str) -> Output {
        let mut svc = Command::new(self.vboxmanage.with_file_name("svc"));
        svc.arg(action)
            .envs(self.environment())
            .output()
            .expect("rig/svc starts")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let running =
            String::from_utf8_lossy(&self.output(["list", "runningvms"]).stdout).into_owned();
        for id in running.lines().filter_map(|line| line.rsplit(' ').next()) {
            self.output([
                "startvm",
                id.trim_matches(['{', '}']),
                "--type",
                "emergencystop",
            ]);
        }
        self.daemon("stop");
    }
}

fn from_environment(name: &str) -> PathBuf {
    env::var_os(name)
        .unwrap_or_else(|| {
            panic!("{name} is not set; run this test with scripts/test or under rig/run")
        })
        .into()
}
