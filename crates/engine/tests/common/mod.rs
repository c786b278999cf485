//! A host without VirtualBox, a repository, and a machine that is named by its settings file.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vrs_engine::clone::CloneOptions;
use vrs_engine::machine::Machine;
use vrs_engine::manifest::FileRecord;
use vrs_engine::restore::{self, RestoreOptions, RestorePlan, Restored};
use vrs_engine::snapshot::Snapshot;
use vrs_engine::take::{self, TakeOptions, TakePlan, Taken};
use vrs_engine::{Host, Result, catalog, clone, selection};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::store::{
    CheckOptions, Chunking, FileSource, SnapshotLabel, SnapshotStore, TreePath,
};
use vrs_repository::{InitOptions, Location, OpenOptions, Password, ResticRepository};
use vrs_testkit::{REPOSITORY_PASSWORD, SampleDisk, SampleMachine, make_repository};

pub const MIB: u64 = 1 << 20;

/// How images are cut.
pub const CHUNK_BYTES: u64 = 512 << 10;

/// A folder with a repository, a state folder and machines.
pub struct Scene {
    pub folder: PathBuf,
    pub host: Host,
    repository: &'static str,
    cache_folder: Option<PathBuf>,
    // Opening derives a key on purpose slowly.
    store: OnceCell<ResticRepository>,
}

impl Scene {
    pub fn new(folder: &Path) -> Self {
        let host = Host {
            virtualbox: Err("not installed in this test".to_owned()),
            state_folder: folder.join("state"),
            name: "testhost".to_owned(),
        };
        Self {
            folder: folder.to_owned(),
            host,
            repository: "repository",
            cache_folder: None,
            store: OnceCell::new(),
        }
    }

    pub fn with_repository(folder: &Path) -> Self {
        let scene = Self::new(folder);
        make_repository(scene.location().folder().expect("a folder"));
        scene
    }

    /// The same machines without VirtualBox, and a second repository.
    pub fn elsewhere(&self) -> Self {
        let scene = Self {
            repository: "elsewhere",
            cache_folder: self.cache_folder.clone(),
            ..Self::new(&self.folder)
        };
        // The ready-made ones have the same id.
        if !scene.location().folder().unwrap().exists() {
            let options = InitOptions::default();
            ResticRepository::init(&scene.location(), &password(), &options).unwrap();
        }
        scene
    }

    /// Opens the repository with a cache.
    pub fn with_cache(self) -> Self {
        let cache_folder = Some(self.folder.join("cache"));
        Self {
            cache_folder,
            ..self
        }
    }

    pub fn location(&self) -> Location {
        Location::parse(self.folder.join(self.repository).to_str().unwrap()).unwrap()
    }

    pub fn store(&self) -> &ResticRepository {
        self.store.get_or_init(|| {
            let mut options = OpenOptions::default();
            options.cache_folder.clone_from(&self.cache_folder);
            ResticRepository::open(&self.location(), &password(), &options).unwrap()
        })
    }

    pub fn machines(&self) -> PathBuf {
        let folder = self.folder.join("machines");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A machine with two disks, one outside its folder, and an nvram file.
    pub fn machine(&self, name: &str) -> SampleMachine {
        let outside = self.folder.join("outside disks");
        std::fs::create_dir_all(&outside).unwrap();
        let mut machine = SampleMachine::builder(&self.machines(), name)
            .disk(SampleDisk::dynamic(24 * MIB))
            .disk(SampleDisk::dynamic(8 * MIB).at(outside.join("data.vdi")))
            .nvram(3000)
            .build();
        machine.fill(0, 0, 5 * MIB as usize, 1);
        machine.fill(0, 9 * MIB, 3 * MIB as usize, 2);
        machine.fill(1, MIB, 2 * MIB as usize, 3);
        machine
    }

    pub fn find(&self, machine: &SampleMachine) -> Machine {
        Machine::find(&self.host, machine.settings_path().to_str().unwrap()).unwrap()
    }

    pub fn plan_take(&self, machine: &SampleMachine, options: TakeOptions) -> Result<TakePlan> {
        TakePlan::make(&self.host, self.store(), &self.find(machine), options)
    }

    pub fn take(&self, machine: &SampleMachine) -> Taken {
        self.try_take(machine, &NoProgress).unwrap()
    }

    pub fn try_take(&self, machine: &SampleMachine, progress: &dyn Progress) -> Result<Taken> {
        let plan = self.plan_take(machine, TakeOptions::default())?;
        take::execute(&self.host, self.store(), &plan, progress)
    }

    /// A file is stored with the bytes of `image`, in the chunks of a file of which nothing is known.
    #[track_caller]
    pub fn assert_as_scanned(&self, taken: &Taken, file: &FileRecord, image: &Path) {
        let path = TreePath::new(&file.path).unwrap();
        let wanted = std::fs::read(image).unwrap();
        let mut stored = vec![0; wanted.len()];
        let store = self.store();
        let mut reader = store.open_file(&taken.id, &path).unwrap();
        assert_eq!(reader.size_bytes(), wanted.len() as u64);
        reader.read_at(0, &mut stored).unwrap();
        assert!(stored == wanted, "{} differs", image.display());
        let header = vrs_vdisk::VdiHeader::read(image).unwrap();
        let source = FileSource {
            path: path.clone(),
            local: image.to_owned(),
            chunking: Chunking::Grid {
                chunk_bytes: CHUNK_BYTES as u32,
                phase_bytes: header.data_offset_bytes,
            },
            previous: None,
        };
        let mut ingest = store.ingest(&NoProgress).unwrap();
        ingest.file(&source).unwrap();
        let label = SnapshotLabel {
            time: Timestamp::now(),
            hostname: "scanned".to_owned(),
            tags: Vec::new(),
            description: None,
        };
        let (scanned, _) = ingest.commit(&label).unwrap();
        let lists = store.chunk_lists().unwrap();
        let (tracked, scanned) = ((&taken.id, &path), (&scanned, &path));
        assert_eq!(lists.differing_chunks(tracked, scanned).unwrap(), []);
        assert_eq!(lists.differing_chunks(scanned, tracked).unwrap(), []);
    }

    pub fn select(&self, wanted: &str) -> Snapshot {
        let snapshots = catalog::snapshots(self.store()).unwrap().snapshots;
        selection::select(&snapshots, wanted, &jiff::tz::TimeZone::UTC)
            .unwrap()
            .clone()
    }

    pub fn plan_restore(&self, wanted: &str) -> Result<RestorePlan> {
        let snapshot = self.select(wanted);
        RestorePlan::make(
            &self.host,
            self.store(),
            &snapshot,
            &RestoreOptions::default(),
            &NoProgress,
        )
    }

    pub fn restore(&self, wanted: &str) -> Restored {
        let plan = self.plan_restore(wanted).unwrap();
        restore::execute(&self.host, self.store(), &plan, &NoProgress).unwrap()
    }

    pub fn plan_clone(&self, wanted: &str, name: &str) -> Result<RestorePlan> {
        let options = CloneOptions {
            name: name.to_owned(),
            ..CloneOptions::default()
        };
        clone::plan(&self.host, self.store(), &self.select(wanted), &options)
    }
}

pub fn password() -> Password {
    Password::new(REPOSITORY_PASSWORD.to_owned())
}

/// Every file of a machine with its content.
pub fn contents(machine: &SampleMachine) -> Tree {
    machine
        .files()
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Every file below a folder with its content.
pub fn tree(folder: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Waits until files written before count as settled.
pub fn let_the_clock_move_on() {
    std::thread::sleep(std::time::Duration::from_millis(2100));
}

/// Files with their content.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Compares without printing megabytes.
pub fn assert_same(left: &Tree, right: &Tree, what: &str) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right), "{what}");
    for (path, bytes) in left {
        assert!(*bytes == right[path], "{what}: {} differs", path.display());
    }
}

/// The repository is whole, down to the last byte.
#[track_caller]
pub fn assert_sound(scene: &Scene, what: &str) {
    let options = CheckOptions::everything();
    let report = scene.store().check(&options, &NoProgress).unwrap();
    assert_eq!(report.errors, Vec::<String>::new(), "{what}");
}
