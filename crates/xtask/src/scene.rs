//! A machine, a repository, and the programs that are measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vrs_testkit::{REPOSITORY_PASSWORD, SampleDisk, SampleMachine, make_repository};

use crate::measured::{Measured, measure};
use crate::workload;

/// As vrs cuts the disks of machines.
pub(crate) const CHUNK_BYTES: u64 = 512 << 10;

/// Where a vrs has its repository and all that it remembers. One knows nothing of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Main,
    Second,
}

impl Home {
    /// Below the scene's folder.
    const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Second => "second",
        }
    }
}

/// A temporary folder with a machine and an empty repository.
pub struct Scene {
    folder: tempfile::TempDir,
    vrs: PathBuf,
    machine: SampleMachine,
    /// Where the files begin.
    start_bytes: u64,
    used_mebibytes: u64,
}

/// Builds `vrs` with the given cargo profile and returns its path.
#[must_use]
pub fn build_vrs(profile: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", "vrs-cli"])
        .args(["--bin", "vrs", "--profile", profile])
        .args(["--message-format", "json"]);
    // What cargo tells a test of its package has `ring` built anew, and once more for whoever comes next.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            build.env_remove(name);
        }
    }
    let built = measure(&mut build);
    let mut messages = built.stdout.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    messages.next_back().expect("cargo names the program")
}

impl Scene {
    /// A machine with one disk whose first `used_mebibytes` the guest has used for files.
    #[must_use]
    pub fn new(vrs: &Path, disk: SampleDisk, used_mebibytes: u64) -> Self {
        let scene = Self::without_repository(vrs, None, disk, 0, used_mebibytes);
        scene.usual_repository(Home::Main);
        scene
    }

    /// The files come after `sprinkled_bytes` whose chunks are all in use and nowhere alike, but take
    /// little room on this host as long as they are not restored. All lies in a folder in `parent`, or
    /// among temporary files. There is no repository yet: see [`Self::empty_repository`].
    pub(crate) fn sprinkled(
        vrs: &Path,
        parent: Option<&Path>,
        disk: SampleDisk,
        sprinkled_bytes: u64,
        used_mebibytes: u64,
    ) -> Self {
        let mut scene =
            Self::without_repository(vrs, parent, disk, sprinkled_bytes, used_mebibytes);
        scene.machine.sprinkle(0, sprinkled_bytes, CHUNK_BYTES);
        scene
    }

    /// Begins with a new repository. It opens without deriving a key, which would need more memory
    /// than all the rest.
    pub(crate) fn empty_repository(&self, home: Home) {
        let repository = self.repository(home);
        if repository.exists() {
            std::fs::remove_dir_all(&repository).expect("a repository that can be removed");
        }
        make_repository(&repository);
    }

    /// Begins with a new repository as users make it.
    pub(crate) fn usual_repository(&self, home: Home) {
        self.vrs(home, &["init"]);
    }

    /// Makes a key as users have it, which [`Self::exchange_keys`] puts in the place of the present one.
    pub(crate) fn make_usual_key(&self, home: Home) {
        let (keys, others) = self.key_folders(home);
        std::fs::create_dir(&others).expect("a folder for keys");
        for key in std::fs::read_dir(&keys).expect("the keys") {
            let key = key.expect("a key");
            std::fs::copy(key.path(), others.join(key.file_name())).expect("room for a key");
        }
        let password = self.password_file();
        let password = password.to_str().expect("a plain path");
        self.vrs(home, &["key", "passwd", "--new-password-file", password]);
        self.exchange_keys(home);
    }

    /// Puts the keys of the repository aside, and those that were aside into it.
    pub(crate) fn exchange_keys(&self, home: Home) {
        let (keys, others) = self.key_folders(home);
        let between = self.path().join("exchanged");
        let moves = [(&keys, &between), (&others, &keys), (&between, &others)];
        for (from, to) in moves {
            std::fs::rename(from, to).expect("a folder with keys");
        }
    }

    fn key_folders(&self, home: Home) -> (PathBuf, PathBuf) {
        let others = self.path().join(home.name()).join("other keys");
        (self.repository(home).join("keys"), others)
    }

    fn repository(&self, home: Home) -> PathBuf {
        self.path().join(home.name()).join("repository")
    }

    fn without_repository(
        vrs: &Path,
        parent: Option<&Path>,
        disk: SampleDisk,
        start_bytes: u64,
        used_mebibytes: u64,
    ) -> Self {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        let mut machine = SampleMachine::builder(folder.path(), "bench")
            .disk(disk)
            .build();
        workload::fill(&mut machine, start_bytes, used_mebibytes);
        let scene = Self {
            folder,
            vrs: vrs.to_owned(),
            machine,
            start_bytes,
            used_mebibytes,
        };
        std::fs::write(scene.password_file(), REPOSITORY_PASSWORD).expect("room for a password");
        scene
    }

    /// The guest does something to its files.
    pub fn change(&mut self, seed: u64) {
        let (start_bytes, used_mebibytes) = (self.start_bytes, self.used_mebibytes);
        workload::change(&mut self.machine, start_bytes, used_mebibytes, seed);
    }

    pub(crate) fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The guest writes a page.
    pub(crate) fn touch(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let offset_bytes = random.u64(0..self.used_mebibytes << 8) << 12;
        let place = self.start_bytes + offset_bytes;
        self.machine.fill(0, place, 4096, seed);
    }

    /// Takes a snapshot.
    pub(crate) fn take(&self, home: Home) -> Measured {
        let settings = self.machine.settings_path();
        self.vrs(home, &["take", settings.to_str().expect("a plain path")])
    }

    pub(crate) fn machine_folder(&self) -> &Path {
        self.machine.folder()
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.machine.settings_path()
    }

    /// Lists the snapshots.
    pub(crate) fn list(&self, home: Home) -> Measured {
        self.vrs(home, &["list"])
    }

    /// Restores the machine in place.
    pub(crate) fn restore(&self, home: Home, snapshot: &str) -> Measured {
        self.vrs(home, &["restore", snapshot, "--yes"])
    }

    fn vrs(&self, home: Home, arguments: &[&str]) -> Measured {
        let home = self.path().join(home.name());
        measure(
            Command::new(&self.vrs)
                .args(arguments)
                .args(["--json", "--no-progress", "--quiet"])
                .env("VRS_REPOSITORY", home.join("repository"))
                .env("VRS_PASSWORD_FILE", self.password_file())
                .env("VRS_STATE_DIR", home.join("state"))
                .env("VRS_CACHE_DIR", home.join("cache"))
                .env("XDG_CONFIG_HOME", home.join("config"))
                // Found or not, VirtualBox must make no difference to the figures.
                .env("VRS_VBOXMANAGE", self.path().join("no VBoxManage")),
        )
    }
}
