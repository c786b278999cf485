//! vrs, restic, rustic and borg, each with a repository of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vrs_testkit::SampleMachine;

use crate::measured::measure;

const PASSWORD: &str = "only for this benchmark";

/// A program with an empty repository.
pub(super) struct Program {
    kind: Kind,
    folder: TempDir,
    vrs: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Vrs,
    Restic,
    Rustic,
    Borg,
}

impl Program {
    /// vrs and those of the others that this system has.
    pub(super) fn installed(vrs: &Path) -> Vec<Self> {
        let others = [Kind::Restic, Kind::Rustic, Kind::Borg].into_iter();
        let is_there = |kind: &Kind| {
            let mut command = Command::new(kind.program(vrs));
            command.arg("--version").output().is_ok()
        };
        std::iter::once(Kind::Vrs)
            .chain(others.filter(is_there))
            .map(|kind| Self::of(kind, vrs))
            .collect()
    }

    fn of(kind: Kind, vrs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = Self {
            kind,
            folder,
            vrs: vrs.to_owned(),
        };
        fs::write(program.path("password"), PASSWORD).expect("room for a password");
        fs::create_dir(program.path("files")).expect("a folder");
        program.run(match kind {
            Kind::Vrs | Kind::Restic | Kind::Rustic => &["init"],
            Kind::Borg => &["init", "--encryption", "repokey-blake2"],
        });
        program
    }

    pub(super) const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Vrs => "vrs take",
            Kind::Restic => "restic backup",
            Kind::Rustic => "rustic backup",
            Kind::Borg => "borg create --compression zstd",
        }
    }

    /// Stores a state and returns by how much the repository grows, in bytes.
    pub(super) fn store(&self, state: &Path) -> u64 {
        let before = bytes_below(&self.path("repository"));
        let files = self.path("files");
        let files = files.to_str().expect("a plain path");
        if !matches!(self.kind, Kind::Vrs) {
            fs::copy(state, self.path("files/state.sav")).expect("room for the state");
        }
        match self.kind {
            Kind::Vrs => self.take(state),
            Kind::Restic | Kind::Rustic => self.run(&["backup", files]),
            Kind::Borg => self.run(&["create", "--compression", "zstd", "::{now:%s.%f}", files]),
        }
        bytes_below(&self.path("repository")) - before
    }

    /// A machine without disks, in this state. It is another one each time, which makes no difference
    /// to the chunks.
    fn take(&self, state: &Path) {
        let folder = tempfile::tempdir_in(self.path("files")).expect("a temporary folder");
        let mut machine = SampleMachine::builder(folder.path(), "saved").build();
        machine.save_state(b"");
        let snapshots = machine.folder().join("Snapshots");
        let own = fs::read_dir(snapshots)
            .expect("its files")
            .find_map(|file| {
                let path = file.expect("a file").path();
                (path.extension()? == "sav").then_some(path)
            });
        fs::copy(state, own.expect("the saved state")).expect("room for the state");
        let settings = machine.settings_path();
        self.run(&["take", settings.to_str().expect("a plain path")]);
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(self.kind.program(&self.vrs));
        command.args(self.kind.quiet());
        let repository = self.path("repository");
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("VRS_REPOSITORY", &repository)
            .env("VRS_PASSWORD_FILE", self.path("password"))
            .env("VRS_STATE_DIR", self.path("state"))
            .env("VRS_CACHE_DIR", self.path("cache"))
            .env("VRS_VBOXMANAGE", self.path("no VBoxManage"))
            .env("RESTIC_REPOSITORY", &repository)
            .env("RESTIC_PASSWORD_FILE", self.path("password"))
            .env("RUSTIC_REPOSITORY", &repository)
            .env("RUSTIC_PASSWORD_FILE", self.path("password"))
            .env("BORG_REPO", &repository)
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_BASE_DIR", self.folder.path());
        measure(&mut command);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Kind {
    fn program(self, vrs: &Path) -> &Path {
        match self {
            Self::Vrs => vrs,
            Self::Restic => Path::new("restic"),
            Self::Rustic => Path::new("rustic"),
            Self::Borg => Path::new("borg"),
        }
    }

    const fn quiet(self) -> &'static [&'static str] {
        match self {
            Self::Vrs | Self::Restic => &["--quiet"],
            Self::Rustic => &["--no-progress", "--log-level", "error"],
            Self::Borg => &["--error"],
        }
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let bytes = entries.map(|entry| {
        let entry = entry.expect("an entry of the repository");
        let metadata = entry.metadata().expect("its size");
        if metadata.is_dir() {
            bytes_below(&entry.path())
        } else {
            metadata.len()
        }
    });
    bytes.sum()
}
