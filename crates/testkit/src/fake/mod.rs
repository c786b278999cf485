//! A fake `VBoxManage` that stands beside the real one: it keeps a registry of machines, read from
//! real settings files, and answers in the real one's words, as recorded from version 7.2.22.
//!
//! It can be made to fail in ways that the real one fails only now and then: see [`Fault`]. It
//! knows the calls that vrs makes and VDI images; a machine that runs does what a test has its guest
//! do. Tests on the rig give both the same calls and compare what they say and write.

mod answer;
mod clock;
mod document;
mod execution;
mod extra_data;
mod fault;
mod machine;
mod media;
mod merging;
mod program;
mod registry;
mod saved_state;
mod settings;
mod show;
mod snapshot_deletion;
mod snapshot_restoring;
mod snapshots;
mod virtual_machine;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use uuid::Uuid;

pub use fault::{Fault, FaultKind};
pub use program::run as fake_vboxmanage;
use registry::Registry;

use crate::image;

/// A fake VirtualBox of one test.
#[derive(Debug)]
pub struct FakeVBoxManage {
    home: PathBuf,
    _temporary: Option<TempDir>,
}

impl Default for FakeVBoxManage {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeVBoxManage {
    /// A VirtualBox without machines.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            home: Self::at(folder.path()).home,
            _temporary: Some(folder),
        }
    }

    /// The VirtualBox whose machines are kept in the folder `home`; all that are made there share
    /// them, also those of other processes.
    #[must_use]
    pub fn at(home: &Path) -> Self {
        fs::create_dir_all(home).expect("the folder of the fake");
        let program = home.join("VBoxManage");
        if !program.exists() {
            link(&built_program(), &program);
        }
        Self {
            home: home.to_owned(),
            _temporary: None,
        }
    }

    /// What to hand to the tested code as `VBoxManage`.
    pub fn program(&self) -> PathBuf {
        self.home.join("VBoxManage")
    }

    /// Calls it, whatever comes of it.
    pub fn output<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        Command::new(self.program())
            .args(arguments)
            .output()
            .expect("the fake starts")
    }

    /// Calls it and returns what it prints.
    ///
    /// # Panics
    /// When the call fails.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("Unicode")
    }

    /// Registers a machine.
    pub fn register(&self, settings: &Path) {
        self.run([OsStr::new("registervm"), settings.as_os_str()]);
    }

    /// Puts a machine into a state, by the name that `VMState` has for it. Its settings file is left
    /// alone.
    pub fn set_state(&self, machine: Uuid, state: &str) {
        Registry::change(&self.home, |registry| {
            registry
                .by_id_mut(machine)
                .expect("a registered machine")
                .put_into_state(state);
        });
    }

    /// VirtualBox's service ends and starts anew: what it did not write down is forgotten, and machines
    /// with settings that it does not accept are inaccessible.
    pub fn restart_service(&self) {
        Registry::change(&self.home, Registry::read_anew);
    }

    /// The guest of a machine writes to its attached hard disk number `disk`.
    pub fn write_as_guest(&self, machine: Uuid, disk: usize, offset_bytes: u64, bytes: &[u8]) {
        self.with_chain(machine, disk, |chain| {
            image::write(chain, offset_bytes, bytes)
        });
    }

    /// What the guest of a machine sees of its attached hard disk number `disk`.
    pub fn guest_bytes(&self, machine: Uuid, disk: usize) -> Vec<u8> {
        self.with_chain(machine, disk, image::guest_bytes)
    }

    /// While nobody else, a merge for example, touches its images.
    fn with_chain<T>(&self, machine: Uuid, disk: usize, work: impl FnOnce(&[PathBuf]) -> T) -> T {
        Registry::change(&self.home, |registry| {
            let machine = registry.by_id_mut(machine);
            work(&machine.expect("a registered machine").chain_of_disk(disk))
        })
    }

    /// Whether a call made the machine's guest stand still for good.
    pub fn is_frozen(&self, machine: Uuid) -> bool {
        Registry::change(&self.home, |registry| {
            let machine = registry.by_id_mut(machine);
            machine.expect("a registered machine").is_frozen
        })
    }

    /// The state of a machine, by the name that `VMState` has for it.
    pub fn state(&self, machine: Uuid) -> String {
        Registry::change(&self.home, |registry| {
            let machine = registry.by_id_mut(machine);
            machine.expect("a registered machine").state.clone()
        })
    }

    /// Makes later calls go wrong.
    pub fn inject(&self, fault: &Fault) {
        fault::inject(&self.home, fault);
    }

    /// The calls so far, each as its arguments joined by blanks.
    pub fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.join(program::CALLS)).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// A copy would do, too, but a file that was just written cannot always be executed while other
/// threads start processes.
#[cfg(unix)]
fn link(program: &Path, link: &Path) {
    std::os::unix::fs::symlink(program, link).expect("a link to the fake");
}

#[cfg(not(unix))]
fn link(program: &Path, copy: &Path) {
    fs::copy(program, copy).expect("a copy of the fake");
}

/// The program beside the test's own, built on demand: `cargo test -p` of another crate does not.
fn built_program() -> PathBuf {
    let test = env::current_exe().expect("the test binary");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let program = folder.join("fake-vboxmanage");
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "-p",
            "vrs-testkit",
            "--bin",
            "fake-vboxmanage",
            "--target-dir",
        ]);
        cargo
            .arg(folder.parent().expect("the target folder"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo starts").success(),
            "the fake VBoxManage does not build"
        );
    }
    program
}
