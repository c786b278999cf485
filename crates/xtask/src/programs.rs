//! vrs, restic, rustic and borg, each with a repository of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use serde_json::Value;
use tempfile::TempDir;
use vrs_testkit::SampleMachine;

use crate::files::bytes_below;
use crate::measured::{Measured, measure};
use crate::storage::{Protocol, Storage};

const PASSWORD: &str = "only for this benchmark";
/// Has a machine of the benchmark tracked.
const TRACKED: &str = "[machines.bench]\ntrack = true\n";
/// Where vrs keeps clones of images, beside them. They are no part of the machine, and the others would read each
/// image twice.
const CLONES: &str = ".vrs-tracking";
/// Of the mount point, the archive and the folder. `borg mount` stays in the foreground, so that what it
/// needs is counted, too.
const MOUNT_AND_RSYNC: &str = r#"
set -e
borg mount --foreground "$2" "$1" &
until mountpoint -q "$1"; do kill -0 $!; sleep 0.02; done
mkdir -p "$3"
rsync -a --inplace --no-whole-file --delete "$1$3/" "$3/"
borg umount "$1"
wait
"#;

/// A program with an empty repository.
pub(crate) struct Program {
    kind: Kind,
    /// Its password, its cache and whatever else it remembers.
    folder: Rc<TempDir>,
    storage: Rc<Storage>,
    vrs: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vrs,
    /// It leaves a clone of each image beside it.
    TrackingVrs,
    /// Without what it remembers on the host.
    UncachedVrs,
    Restic,
    Rustic,
    /// With chunks of the size that vrs cuts disks into.
    FixedRustic,
    Borg,
    /// What the one before it stored, mounted by `borg mount` and brought back by `rsync`.
    MountedBorg,
}

/// Where the repositories are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    /// In a folder.
    Here,
    /// On a server, behind a line that counts.
    Elsewhere,
}

/// Where a machine is, for a program that stores or restores it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) settings: &'a Path,
}

impl Program {
    /// vrs and those of the others that this system has.
    pub(crate) fn installed(vrs: &Path) -> Vec<Self> {
        let all = [Kind::Vrs, Kind::Restic, Kind::Rustic, Kind::Borg];
        Self::those_of(&all, vrs, Distance::Here)
    }

    /// The same and more ways to use them: vrs without its cache, and borg with `rsync`.
    pub(crate) fn contenders(vrs: &Path, distance: Distance) -> Vec<Self> {
        let all = [
            Kind::Vrs,
            Kind::UncachedVrs,
            Kind::Restic,
            Kind::Rustic,
            Kind::FixedRustic,
            Kind::Borg,
            Kind::MountedBorg,
        ];
        Self::those_of(&all, vrs, distance)
    }

    /// For machines on a file system with clones: vrs that tracks them comes first, then vrs that does not, and
    /// those of the others that this system has.
    pub(crate) fn trackers(vrs: &Path) -> Vec<Self> {
        let all = [
            Kind::TrackingVrs,
            Kind::Vrs,
            Kind::Restic,
            Kind::Rustic,
            Kind::FixedRustic,
            Kind::Borg,
        ];
        Self::those_of(&all, vrs, Distance::Here)
    }

    /// One that begins each step, where memory and disk count.
    pub(crate) fn first(vrs: &Path, distance: Distance) -> Option<Self> {
        (distance == Distance::Here).then(|| Self::of(Kind::Vrs, vrs, distance))
    }

    fn those_of(kinds: &[Kind], vrs: &Path, distance: Distance) -> Vec<Self> {
        let is_there = |kind: &&Kind| {
            let mut command = Command::new(kind.program(vrs));
            command.arg("--version").output().is_ok()
        };
        let mut programs: Vec<Self> = Vec::new();
        for kind in kinds.iter().filter(is_there) {
            let program = match (kind, programs.last()) {
                (Kind::MountedBorg, Some(borg)) => borg.mounted(),
                _ => Self::of(*kind, vrs, distance),
            };
            programs.push(program);
        }
        programs
    }

    pub(crate) const fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Vrs | Kind::TrackingVrs | Kind::UncachedVrs)
    }

    fn of(kind: Kind, vrs: &Path, distance: Distance) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = match (distance, kind) {
            (Distance::Here, _) => Storage::folder(),
            (Distance::Elsewhere, Kind::Borg) => Storage::elsewhere(Protocol::Ssh),
            (Distance::Elsewhere, _) => Storage::elsewhere(Protocol::Rest),
        };
        let program = Self {
            kind,
            folder: Rc::new(folder),
            storage: Rc::new(storage),
            vrs: vrs.to_owned(),
        };
        fs::write(program.path("password"), PASSWORD).expect("room for a password");
        fs::create_dir(program.path("files")).expect("a folder");
        if kind == Kind::TrackingVrs {
            let folder = program.path("config/vrs");
            fs::create_dir_all(&folder).expect("a folder for the configuration");
            fs::write(folder.join("config.toml"), TRACKED).expect("room for it");
        }
        program.run(match kind {
            Kind::Borg => &["init", "--encryption", "repokey-blake2"],
            Kind::FixedRustic => &[
                "init",
                "--set-chunker",
                "fixed_size",
                "--set-chunk-size",
                "512KiB",
            ],
            _ => &["init"],
        });
        program
    }

    fn mounted(&self) -> Self {
        fs::create_dir(self.path("mounted")).expect("a folder");
        Self {
            kind: Kind::MountedBorg,
            folder: Rc::clone(&self.folder),
            storage: Rc::clone(&self.storage),
            vrs: self.vrs.clone(),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What it is called by its command for storing.
    pub(crate) const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Vrs => "vrs take",
            Kind::TrackingVrs => "vrs take, tracked",
            Kind::UncachedVrs => "vrs take --no-cache",
            Kind::Restic => "restic backup",
            Kind::Rustic => "rustic backup",
            Kind::FixedRustic => "rustic backup, fixed 512 KiB",
            Kind::Borg => "borg create --compression zstd",
            Kind::MountedBorg => "borg mount, rsync --inplace",
        }
    }

    /// Stores a state and returns by how much the repository grows, in bytes.
    pub(crate) fn store(&self, state: &Path) -> u64 {
        let before = self.repository_bytes();
        if self.is_peer() {
            let files = self.path("files");
            fs::copy(state, files.join("state.sav")).expect("room for the state");
            self.store_folder(&files, "::{now:%s.%f}");
        } else {
            self.take(state);
        }
        self.repository_bytes() - before
    }

    /// Stores a machine as a snapshot. `name` is one of its own. Nothing, where another program stores.
    pub(crate) fn store_machine(&self, machine: Place<'_>, name: &str) -> Option<Measured> {
        match self.kind {
            Kind::MountedBorg => None,
            Kind::Vrs | Kind::TrackingVrs | Kind::UncachedVrs => {
                Some(self.run(&["take", "--name", name, text(machine.settings)]))
            }
            _ => Some(self.store_folder(machine.folder, &format!("::{name}"))),
        }
    }

    fn store_folder(&self, folder: &Path, archive: &str) -> Measured {
        let folder = text(folder);
        match self.kind {
            Kind::Borg => {
                let pattern = format!("*/{CLONES}");
                let compressed = ["create", "--compression", "zstd"];
                self.run(&[&compressed[..], &["--exclude", &pattern, archive, folder]].concat())
            }
            Kind::Restic => self.run(&["backup", "--exclude", CLONES, folder]),
            _ => self.run(&["backup", "--glob", &format!("!{CLONES}"), folder]),
        }
    }

    /// Brings a machine back where it was, whatever is there. `name` is that of the snapshot,
    /// `steps_back` how many came after it.
    pub(crate) fn restore_machine(
        &self,
        machine: Place<'_>,
        name: &str,
        steps_back: usize,
    ) -> Measured {
        let folder = text(machine.folder);
        match self.kind {
            Kind::Vrs | Kind::TrackingVrs | Kind::UncachedVrs => {
                self.run(&["restore", &format!("bench@{name}"), "--yes"])
            }
            Kind::Restic => {
                let id = self.resticlike_id(&["snapshots", "--json"], steps_back);
                self.run(&["restore", &id, "--target", "/"])
            }
            Kind::Rustic | Kind::FixedRustic => {
                let id = self.resticlike_id(&["snapshots", "--json", "--group-by", ""], steps_back);
                fs::create_dir_all(machine.folder).expect("the machine's folder");
                self.run(&["restore", &format!("{id}:{folder}"), folder, "--delete"])
            }
            Kind::Borg => {
                let mut command = self.command(&["extract", &format!("::{name}")]);
                measure(command.current_dir("/"))
            }
            Kind::MountedBorg => {
                let mut command = self.command(&[]);
                let mount = self.path("mounted");
                let arguments = [text(&mount), &format!("::{name}"), folder];
                command.args(["-c", MOUNT_AND_RSYNC, "sh"]).args(arguments);
                measure(&mut command)
            }
        }
    }

    /// The id of the snapshot after which so many came.
    fn resticlike_id(&self, list: &[&str], steps_back: usize) -> String {
        let listed: Value = serde_json::from_str(&self.run(list).stdout).expect("JSON");
        let mut snapshots = Vec::new();
        collect_snapshots(&listed, &mut snapshots);
        snapshots.sort();
        let (_, id) = snapshots
            .into_iter()
            .rev()
            .nth(steps_back)
            .expect("a snapshot");
        id
    }

    /// How large the repository is.
    pub(crate) fn repository_bytes(&self) -> u64 {
        bytes_below(&self.storage.path())
    }

    /// A machine without disks, in this state. It is another one each time, which makes no difference
    /// to the chunks.
    fn take(&self, state: &Path) {
        let folder = tempfile::tempdir_in(self.path("files")).expect("a temporary folder");
        let mut machine = SampleMachine::builder(folder.path(), "saved").build();
        machine.save_state(b"");
        let own = machine.saved_state().expect("the saved state");
        fs::copy(state, own).expect("room for the state");
        self.run(&["take", text(&machine.settings_path())]);
    }

    fn run(&self, arguments: &[&str]) -> Measured {
        measure(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.kind.program(&self.vrs));
        command.args(self.kind.quiet());
        let location = self.storage.location();
        let with_login = self.storage.location_with_login();
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("VRS_REPOSITORY", &location)
            .env("VRS_PASSWORD_FILE", self.path("password"))
            .env("VRS_STATE_DIR", self.path("state"))
            .env("VRS_CACHE_DIR", self.path("cache"))
            .env("VRS_VBOXMANAGE", self.path("no VBoxManage"))
            .env("RESTIC_REPOSITORY", &with_login)
            .env("RESTIC_PASSWORD_FILE", self.path("password"))
            .env("RUSTIC_REPOSITORY", &with_login)
            .env("RUSTIC_PASSWORD_FILE", self.path("password"))
            .env("BORG_REPO", &location)
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_BASE_DIR", self.folder.path())
            .envs(self.storage.environment());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Kind {
    fn program(self, vrs: &Path) -> &Path {
        match self {
            Self::Vrs | Self::TrackingVrs | Self::UncachedVrs => vrs,
            Self::Restic => Path::new("restic"),
            Self::Rustic | Self::FixedRustic => rustic(),
            Self::Borg => Path::new("borg"),
            Self::MountedBorg => Path::new("sh"),
        }
    }

    const fn quiet(self) -> &'static [&'static str] {
        match self {
            Self::Vrs | Self::TrackingVrs => &["--quiet", "--json"],
            Self::UncachedVrs => &["--quiet", "--json", "--no-cache"],
            Self::Restic => &["--quiet"],
            Self::Rustic | Self::FixedRustic => &["--no-progress", "--log-level", "error"],
            Self::Borg => &["--error"],
            Self::MountedBorg => &[],
        }
    }
}

/// The one of scripts/setup-bench, or that of the system.
fn rustic() -> &'static Path {
    let own = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/rustic/bin/rustic"
    ));
    if own.exists() {
        own
    } else {
        Path::new("rustic")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// All objects with an id and a time, wherever they are: programs nest them differently.
fn collect_snapshots(value: &Value, found: &mut Vec<(String, String)>) {
    let (id, time) = (value["id"].as_str(), value["time"].as_str());
    if let Some((id, time)) = id.zip(time) {
        found.push((time.to_owned(), id.to_owned()));
        return;
    }
    match value {
        Value::Array(all) => all.iter().for_each(|one| collect_snapshots(one, found)),
        Value::Object(all) => all.values().for_each(|one| collect_snapshots(one, found)),
        _ => {}
    }
}
