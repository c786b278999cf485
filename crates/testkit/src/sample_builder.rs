//! The description of a sample machine that is to be made.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_vdisk::VdiVariant;

use crate::contents::random_bytes;
use crate::image;
use crate::machine::{Machine, Medium, State, folder_name, location};
use crate::sample::SampleMachine;

/// A disk that a sample machine is to have.
#[derive(Debug, Clone)]
pub struct SampleDisk {
    capacity_bytes: u64,
    variant: VdiVariant,
    path: Option<PathBuf>,
    contents: Option<PathBuf>,
}

impl SampleDisk {
    /// An empty disk whose image grows.
    #[must_use]
    pub fn dynamic(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            variant: VdiVariant::Dynamic,
            path: None,
            contents: None,
        }
    }

    /// An empty disk whose image has its full size from the start.
    #[must_use]
    pub fn fixed(capacity_bytes: u64) -> Self {
        Self {
            variant: VdiVariant::Fixed,
            ..Self::dynamic(capacity_bytes)
        }
    }

    /// A disk with the bytes of a raw image.
    #[must_use]
    pub fn from_raw(raw: &Path) -> Self {
        let capacity_bytes = fs::metadata(raw).expect("a raw image").len();
        Self {
            contents: Some(raw.to_owned()),
            ..Self::dynamic(capacity_bytes)
        }
    }

    /// Puts the image at `path`, relative to the machine's folder or anywhere else.
    #[must_use]
    pub fn at(self, path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..self
        }
    }
}

/// Describes a sample machine that is to be made.
#[derive(Debug, Clone)]
pub struct SampleMachineBuilder {
    parent_folder: PathBuf,
    name: String,
    disks: Vec<SampleDisk>,
    nvram_bytes: Option<usize>,
}

impl SampleMachineBuilder {
    pub(crate) fn new(parent_folder: &Path, name: &str) -> Self {
        Self {
            parent_folder: parent_folder.to_owned(),
            name: name.to_owned(),
            disks: Vec::new(),
            nvram_bytes: None,
        }
    }

    /// Adds a disk; the first has the number 0.
    #[must_use]
    pub fn disk(mut self, disk: SampleDisk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Gives the machine EFI firmware and an nvram file.
    #[must_use]
    pub fn nvram(mut self, length_bytes: usize) -> Self {
        self.nvram_bytes = Some(length_bytes);
        self
    }

    /// Makes the machine.
    #[must_use]
    pub fn build(self) -> SampleMachine {
        let folder = self.parent_folder.join(folder_name(&self.name));
        fs::create_dir_all(&folder).expect("the machine's folder");
        let mut machine = empty_machine(folder, self.name);
        self.disks
            .iter()
            .for_each(|disk| add_disk(&mut machine, disk));
        if let Some(length_bytes) = self.nvram_bytes {
            add_nvram(&mut machine, length_bytes);
        }
        SampleMachine::new(machine)
    }
}

fn empty_machine(folder: PathBuf, name: String) -> Machine {
    let id = Uuid::new_v4();
    let mac = id.as_bytes()[..3]
        .iter()
        .fold("080027".to_owned(), |mac, byte| format!("{mac}{byte:02X}"));
    Machine {
        id,
        name,
        mac,
        folder,
        media: Vec::new(),
        snapshots: Vec::new(),
        current_snapshot: None,
        state: State::default(),
    }
}

fn add_disk(machine: &mut Machine, disk: &SampleDisk) {
    let number = machine.state.attachments.len();
    let default_path = || format!("disk{number}.vdi").into();
    let path = machine
        .folder
        .join(disk.path.clone().unwrap_or_else(default_path));
    fs::create_dir_all(path.parent().expect("the disk's folder")).expect("the disk's folder");
    let id = Uuid::new_v4();
    image::create(&path, disk.variant, disk.capacity_bytes, id);
    let location = location(&machine.folder, &path);
    machine.media.push(Medium {
        id,
        parent: None,
        location,
    });
    machine.state.attachments.push(id);
    if let Some(raw) = &disk.contents {
        image::write_raw(&[path], raw);
    }
}

fn add_nvram(machine: &mut Machine, length_bytes: usize) {
    let path = machine.settings_path().with_extension("nvram");
    fs::write(&path, random_bytes(1, length_bytes)).expect("room for the nvram file");
    machine.state.nvram = Some(location(&machine.folder, &path));
}
