//! Machines that are tracked, and what happens to them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use uuid::Uuid;
use vrs_engine::Result;
use vrs_engine::take::{self, TakeOptions, Taken};
use vrs_engine::tracking::{self, TrackingReport};
use vrs_progress::{NoProgress, Progress};
use vrs_repository::id::RepositoryId;
use vrs_repository::store::SnapshotStore;
use vrs_testkit::{LoopDisk, SampleDisk, SampleMachine};

use crate::common::{MIB, Scene};

/// What happens to a machine between two takes.
#[derive(Debug, Clone)]
pub enum Event {
    Write {
        disk: usize,
        at: u64,
        bytes: usize,
    },
    Zero {
        at: u64,
    },
    TakeVirtualBoxSnapshot,
    /// Merges an image into its parent.
    DeleteVirtualBoxSnapshot,
    RestoreVirtualBoxSnapshot,
    Compact,
    Grow,
    SaveState,
    /// Takes without the second disk, and with it again.
    LeaveOut,
    /// Another file with the same bytes.
    Replace,
    /// Another file with the same bytes, that shares them.
    ReplaceByClone,
    /// The file system lays the image down elsewhere.
    Rewrite,
    /// Takes go into the other repository from now on.
    ChangeRepository,
}

pub fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let write = (0..2usize, 0..7 * MIB, 1..700_000usize);
    prop_oneof![
        6 => write.prop_map(|(disk, at, bytes)| Write { disk, at, bytes }),
        2 => (0..7u64).prop_map(|block| Zero { at: block * MIB }),
        2 => Just(TakeVirtualBoxSnapshot),
        2 => Just(DeleteVirtualBoxSnapshot),
        1 => Just(RestoreVirtualBoxSnapshot),
        1 => Just(Compact),
        1 => Just(Grow),
        1 => Just(SaveState),
        1 => Just(LeaveOut),
        1 => Just(Replace),
        1 => Just(ReplaceByClone),
        1 => Just(Rewrite),
        5 => Just(ChangeRepository),
    ]
}

/// A machine and what is known about it.
pub struct Story<'a> {
    pub scene: &'a Scene,
    /// Another repository, if there is one.
    pub elsewhere: Option<&'a Scene>,
    pub machine: SampleMachine,
    pub virtualbox_snapshots: Vec<Uuid>,
    pub capacity_bytes: u64,
    pub seed: u64,
    /// Whether nothing is known by a file's times.
    pub touches: bool,
}

impl<'a> Story<'a> {
    pub fn new(scene: &'a Scene) -> Self {
        let name = format!("machine {}", Uuid::new_v4());
        let outside = scene.folder.join("outside disks");
        std::fs::create_dir_all(&outside).unwrap();
        let mut machine = SampleMachine::builder(&scene.machines(), &name)
            .disk(SampleDisk::dynamic(12 * MIB))
            .disk(SampleDisk::dynamic(8 * MIB).at(outside.join(format!("{name}.vdi"))))
            .build();
        machine.fill(0, 0, 9 * MIB as usize, 1);
        machine.fill(1, MIB, 2 * MIB as usize, 3);
        Self {
            scene,
            elsewhere: None,
            machine,
            virtualbox_snapshots: Vec::new(),
            capacity_bytes: 12 * MIB,
            seed: 10,
            touches: true,
        }
    }

    pub fn take(&self, options: TakeOptions) -> Taken {
        let options = TakeOptions {
            track: true,
            ..options
        };
        self.try_take(options, &NoProgress).unwrap()
    }

    pub fn try_take(&self, options: TakeOptions, progress: &dyn Progress) -> Result<Taken> {
        if self.touches {
            self.touch();
        }
        let plan = self.scene.plan_take(&self.machine, options)?;
        take::execute(&self.scene.host, self.scene.store(), &plan, progress)
    }

    pub fn touch(&self) {
        for image in [self.machine.chain(0), self.machine.chain(1)].concat() {
            let image = std::fs::File::options().write(true).open(image).unwrap();
            image.set_modified(std::time::SystemTime::now()).unwrap();
        }
    }

    pub fn record(&self) -> PathBuf {
        let name = format!("tracking/{}.record", self.machine.id());
        self.scene.host.state_folder.join(name)
    }

    pub fn clones(&self) -> Vec<PathBuf> {
        clones(&self.scene.folder, &self.machine)
    }

    pub fn happens(&mut self, event: &Event) {
        self.seed += 1;
        match *event {
            Event::Write { disk, at, bytes } => self.machine.fill(disk, at, bytes, self.seed),
            Event::Zero { at } => self.machine.write(0, at, &vec![0; MIB as usize]),
            Event::TakeVirtualBoxSnapshot => {
                let id = self.machine.take_virtualbox_snapshot("by the user");
                self.virtualbox_snapshots.push(id);
            }
            Event::DeleteVirtualBoxSnapshot => {
                if !self.virtualbox_snapshots.is_empty() {
                    let id = self.virtualbox_snapshots.remove(0);
                    self.machine.delete_virtualbox_snapshot(id);
                }
            }
            Event::RestoreVirtualBoxSnapshot => {
                if let Some(id) = self.virtualbox_snapshots.last() {
                    self.machine.restore_virtualbox_snapshot(*id);
                }
            }
            Event::Compact => self.machine.compact(0),
            Event::Grow => {
                self.capacity_bytes += 3 * MIB;
                self.machine.grow(0, self.capacity_bytes);
            }
            Event::SaveState => self.machine.save_state(b"ram"),
            Event::LeaveOut => {
                let skip_disks = vec![self.machine.attached(1).to_string()];
                self.take(TakeOptions {
                    skip_disks,
                    ..TakeOptions::default()
                });
            }
            Event::Replace => replace(&self.base(), "never"),
            Event::ReplaceByClone => replace(&self.base(), "always"),
            Event::ChangeRepository => {
                if let Some(elsewhere) = &mut self.elsewhere {
                    std::mem::swap(&mut self.scene, elsewhere);
                }
            }
            Event::Rewrite => {
                let bytes = std::fs::read(self.base()).unwrap();
                std::fs::write(self.base(), bytes).unwrap();
            }
        }
    }

    pub fn base(&self) -> PathBuf {
        self.machine.chain(0).pop().unwrap()
    }

    /// A snapshot that is taken now is what it has to be, whatever it was told.
    pub fn assert_taken_right(&self) -> Taken {
        let taken = self.take(TakeOptions::default());
        let files = taken.manifest.files.iter();
        for image in files.filter(|file| file.grid_bytes.is_some()) {
            self.scene.assert_as_scanned(&taken, image, &image.original);
        }
        self.assert_nothing_left(&taken);
        taken
    }

    /// There is one clone of each image for this repository, and no other but those of the other one.
    fn assert_nothing_left(&self, taken: &Taken) {
        let disks = taken.manifest.files.iter();
        let disks = disks.filter(|file| file.grid_bytes.is_some());
        let id = self.scene.store().id();
        assert_eq!(known_clones(&self.record(), Some(id)).len(), disks.count());
        let mut known = known_clones(&self.record(), None);
        let mut there = self.clones();
        known.sort();
        there.sort();
        assert_eq!(there, known);
    }

    /// Makes room for the next one; what was kept for it goes, too.
    pub fn take_away(self) {
        let images = self.machine.files();
        images
            .iter()
            .for_each(|file| std::fs::remove_file(file).unwrap());
        tracking::sweep(&self.scene.host).unwrap();
        assert_eq!(
            clones(&self.scene.folder, &self.machine),
            Vec::<PathBuf>::new()
        );
        let _ = std::fs::remove_dir_all(self.machine.folder());
    }
}

/// Clones of a machine's images, anywhere.
pub fn clones(folder: &Path, machine: &SampleMachine) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let is_clone = folder.ends_with(".vrs-tracking");
            if path.is_dir() {
                folders.push(path);
            } else if is_clone
                && entry
                    .file_name()
                    .to_str()
                    .unwrap()
                    .starts_with(&machine.id().to_string())
            {
                found.push(path);
            }
        }
    }
    found
}

pub fn replace(image: &Path, reflink: &str) {
    let copy = image.with_extension("copy");
    let mut cp = std::process::Command::new("cp");
    let status = cp
        .arg(format!("--reflink={reflink}"))
        .args([image, &copy])
        .status();
    assert!(status.unwrap().success());
    std::fs::rename(copy, image).unwrap();
}

pub fn vouched_bytes(taken: &Taken, image: &Path) -> u64 {
    let mut images = report(taken).images.iter();
    images
        .find(|vouched| vouched.path == image)
        .unwrap()
        .vouched_bytes
}

pub const NONE: [PathBuf; 0] = [];

pub fn report(taken: &Taken) -> &TrackingReport {
    taken.tracking.as_ref().unwrap()
}

pub fn on_each(test: impl Fn(&Scene, Story<'_>)) {
    for kind in ["btrfs", "xfs"] {
        let disk = LoopDisk::mount(kind, "");
        let scene = Scene::with_repository(disk.path());
        test(&scene, Story::new(&scene));
    }
}

/// Settings and the like.
pub const SMALL_BYTES: u64 = 64 << 10;

pub const NO_NOTES: [&str; 0] = [];

/// The clones that a record names, for one repository or for all.
pub fn known_clones(record: &Path, repository: Option<RepositoryId>) -> Vec<PathBuf> {
    let wanted = repository.map(|repository| repository.to_string());
    let mut clones = Vec::new();
    for known in read_record(record)["known"].as_array().unwrap() {
        if wanted.is_none() || known["repository"].as_str() == wanted.as_deref() {
            let images = known["images"].as_array().unwrap().iter();
            let paths = images.map(|image| image["method"]["path"].as_str().unwrap().into());
            clones.extend(paths);
        }
    }
    clones
}

fn read_record(record: &Path) -> serde_json::Value {
    let content = std::fs::read_to_string(record).unwrap();
    serde_json::from_str(content.split_once('\n').unwrap().1).unwrap()
}

/// Changes what is known for the first repository as somebody would who knows the record's checksum.
pub fn forge(record: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = read_record(record);
    change(&mut value["known"][0]);
    let text = serde_json::to_string(&value).unwrap();
    let sum = blake3::hash(text.as_bytes());
    std::fs::write(record, format!("{}\n{text}", sum.to_hex())).unwrap();
}
