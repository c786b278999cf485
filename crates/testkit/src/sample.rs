//! Sample machines: a folder with a settings file and real VDI images, made and changed without
//! VirtualBox.
//!
//! They have the shape that VirtualBox gives its machines, so that `registervm` accepts them, and
//! can be changed in the ways that matter to snapshots: guest writes, VirtualBox snapshots taken,
//! restored and deleted, growth and compaction, a saved state.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::contents::random_bytes;
use crate::image;
use crate::machine::{Machine, Medium, Snapshot};
use crate::sample_builder::SampleMachineBuilder;
use crate::saved_state::SavedStateFile;
use crate::settings;

const NOISE_BYTES: usize = 8192;

/// A machine on disk. Nothing is removed when it is dropped; it lives in a folder of the test.
#[derive(Debug, Clone)]
pub struct SampleMachine {
    machine: Machine,
}

impl SampleMachine {
    /// Starts the description of a machine whose folder will be in `parent_folder`.
    #[must_use]
    pub fn builder(parent_folder: &Path, name: &str) -> SampleMachineBuilder {
        SampleMachineBuilder::new(parent_folder, name)
    }

    pub(crate) fn new(machine: Machine) -> Self {
        let sample = Self { machine };
        sample.save();
        sample
    }

    /// The machine's UUID.
    pub fn id(&self) -> Uuid {
        self.machine.id
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        &self.machine.folder
    }

    /// The settings file.
    pub fn settings_path(&self) -> PathBuf {
        self.machine.settings_path()
    }

    /// The images of disk `disk`, the one that the guest writes to first, the base last.
    pub fn chain(&self, disk: usize) -> Vec<PathBuf> {
        self.machine
            .chain(self.attached(disk))
            .into_iter()
            .map(|id| self.machine.path(id))
            .collect()
    }

    /// The UUID of the image that the guest writes to.
    pub fn attached(&self, disk: usize) -> Uuid {
        self.machine.state.attachments[disk]
    }

    /// Every file that makes up the machine, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let machine = &self.machine;
        let states = machine
            .snapshots
            .iter()
            .map(|snapshot| &snapshot.state)
            .chain([&machine.state]);
        let others = states
            .flat_map(|state| state.saved.iter().chain(&state.nvram))
            .map(|file| machine.resolve(file));
        let media = machine
            .media
            .iter()
            .map(|medium| machine.resolve(&medium.location));
        let mut files: Vec<_> = media.chain(others).chain([self.settings_path()]).collect();
        files.sort();
        files.dedup();
        files
    }

    /// What the guest sees of disk `disk`.
    pub fn guest_bytes(&self, disk: usize) -> Vec<u8> {
        image::guest_bytes(&self.chain(disk))
    }

    /// The guest writes `bytes`.
    pub fn write(&mut self, disk: usize, offset_bytes: u64, bytes: &[u8]) {
        image::write(&self.chain(disk), offset_bytes, bytes);
    }

    /// The guest writes incompressible contents.
    pub fn fill(&mut self, disk: usize, offset_bytes: u64, length_bytes: usize, seed: u64) {
        self.write(disk, offset_bytes, &random_bytes(seed, length_bytes));
    }

    /// The guest writes 8 KiB of noise at the beginning of every `step_bytes` of the first
    /// `length_bytes`: all of it differs, yet a fixed image stays sparse on this host.
    pub fn sprinkle(&mut self, disk: usize, length_bytes: u64, step_bytes: u64) {
        let pages = (0..length_bytes / step_bytes)
            .map(|number| (number * step_bytes, random_bytes(number, NOISE_BYTES)));
        image::write_all(&self.chain(disk), pages);
    }

    /// Enlarges a disk as `modifymedium --resize` does.
    pub fn grow(&mut self, disk: usize, capacity_bytes: u64) {
        image::grow(&self.machine.path(self.attached(disk)), capacity_bytes);
    }

    /// Drops the zero blocks of a disk's image and moves others into the gaps, as `modifymedium
    /// --compact` does.
    pub fn compact(&mut self, disk: usize) {
        image::compact(&self.machine.path(self.attached(disk)));
    }

    /// Changes a setting that concerns neither disks nor VirtualBox snapshots: the first network
    /// adapter's address.
    pub fn set_mac_address(&mut self, mac: &str) {
        mac.clone_into(&mut self.machine.mac);
        self.save();
    }

    /// Gives the machine a saved state with `memory` in it.
    pub fn save_state(&mut self, memory: &[u8]) {
        self.save_state_as(&SavedStateFile {
            memory: memory.to_vec(),
            ..SavedStateFile::of_this_computer()
        });
    }

    /// Gives the machine a saved state.
    pub fn save_state_as(&mut self, saved_state: &SavedStateFile) {
        self.write_state(|file| saved_state.write(file));
    }

    /// Gives the machine a saved state whose memory consists of these records of a page each. None of them stays
    /// in memory here.
    pub fn save_pages(&mut self, pages: impl IntoIterator<Item: AsRef<[u8]>>) {
        self.write_state(|file| SavedStateFile::of_this_computer().write_with(file, pages));
    }

    fn write_state(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        // VirtualBox names a saved state by the time: it never has the name of the one before.
        let location = self.new_file_in_snapshots("sav");
        self.discard_state();
        let path = self.machine.resolve(&location);
        let mut file = BufWriter::new(File::create(path).expect("a new file"));
        write(&mut file)
            .and_then(|()| file.flush())
            .expect("room for the saved state");
        self.machine.state.saved = Some(location);
        self.save();
    }

    /// The saved state, if there is one.
    #[must_use]
    pub fn saved_state(&self) -> Option<PathBuf> {
        let location = self.machine.state.saved.as_ref();
        location.map(|location| self.machine.resolve(location))
    }

    /// Takes the saved state away, if there is one; its file stays as long as a VirtualBox snapshot
    /// has it too.
    pub fn discard_state(&mut self) {
        let Some(file) = self.machine.state.saved.take() else {
            return;
        };
        let shared = self
            .machine
            .snapshots
            .iter()
            .any(|snapshot| snapshot.state.saved.as_ref() == Some(&file));
        if !shared {
            fs::remove_file(self.machine.resolve(&file)).expect("the saved state");
        }
        self.save();
    }

    /// Takes a VirtualBox snapshot.
    pub fn take_virtualbox_snapshot(&mut self, name: &str) -> Uuid {
        let id = Uuid::new_v4();
        let mut state = self.machine.state.clone();
        state.nvram = state.nvram.map(|file| self.copy_nvram(&file));
        self.attach_children(&state.attachments.clone());
        let parent = self.machine.current_snapshot.replace(id);
        self.machine.snapshots.push(Snapshot {
            id,
            parent,
            name: name.to_owned(),
            state,
        });
        self.save();
        id
    }

    /// Restores a VirtualBox snapshot; what was written since the last one is lost.
    pub fn restore_virtualbox_snapshot(&mut self, id: Uuid) {
        self.discard_state();
        let state = self.machine.snapshot(id).state.clone();
        for medium in std::mem::take(&mut self.machine.state.attachments) {
            self.remove_medium(medium);
        }
        self.attach_children(&state.attachments);
        self.machine.state.saved = state.saved;
        if let (Some(from), Some(to)) = (state.nvram, &self.machine.state.nvram) {
            fs::copy(self.machine.resolve(&from), self.machine.resolve(to))
                .expect("room for the nvram file");
        }
        self.machine.current_snapshot = Some(id);
        self.save();
    }

    /// Deletes a VirtualBox snapshot that has at most one child, merging each of its images with
    /// the one on top.
    pub fn delete_virtualbox_snapshot(&mut self, id: Uuid) {
        let node = self.machine.snapshot(id).clone();
        for medium in &node.state.attachments {
            self.absorb_child(*medium);
        }
        if let Some(file) = &node.state.nvram {
            fs::remove_file(self.machine.resolve(file))
                .expect("the VirtualBox snapshot's nvram file");
        }
        self.machine.snapshots.retain(|snapshot| snapshot.id != id);
        for snapshot in &mut self.machine.snapshots {
            if snapshot.parent == Some(id) {
                snapshot.parent = node.parent;
            }
        }
        if self.machine.current_snapshot == Some(id) {
            self.machine.current_snapshot = node.parent;
        }
        self.save();
    }

    fn copy_nvram(&self, file: &str) -> String {
        let copy = self.new_file_in_snapshots("nvram");
        fs::copy(self.machine.resolve(file), self.machine.resolve(&copy))
            .expect("room for the nvram file");
        copy
    }

    fn new_file_in_snapshots(&self, extension: &str) -> String {
        fs::create_dir_all(self.machine.resolve("Snapshots")).expect("the Snapshots folder");
        (0..1_000_000_000)
            .map(|nanoseconds| {
                format!("Snapshots/2026-11-21T03-16-18-{nanoseconds:09}Z.{extension}")
            })
            .find(|file| !self.machine.resolve(file).exists())
            .expect("an unused name")
    }

    fn attach_children(&mut self, parents: &[Uuid]) {
        fs::create_dir_all(self.machine.resolve("Snapshots")).expect("the Snapshots folder");
        self.machine.state.attachments = parents
            .iter()
            .map(|parent| self.add_child(*parent))
            .collect();
    }

    fn add_child(&mut self, parent: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        let location = format!("Snapshots/{{{id}}}.vdi");
        image::create_child(
            &self.machine.resolve(&location),
            &self.machine.path(parent),
            id,
        );
        self.machine.media.push(Medium {
            id,
            parent: Some(parent),
            location,
        });
        id
    }

    fn remove_medium(&mut self, id: Uuid) {
        assert!(
            !self.machine.has_children(id),
            "an image that others stand on stays"
        );
        fs::remove_file(self.machine.path(id)).expect("the image");
        self.machine.media.retain(|medium| medium.id != id);
    }

    fn absorb_child(&mut self, id: Uuid) {
        let children: Vec<_> = self
            .machine
            .media
            .iter()
            .filter(|medium| medium.parent == Some(id))
            .map(|medium| medium.id)
            .collect();
        let [child] = children[..] else {
            panic!(
                "VirtualBox merges an image with one child only, here are {}",
                children.len()
            )
        };
        image::merge(&self.machine.path(child), &self.machine.path(id));
        for grandchild in self
            .machine
            .media
            .iter_mut()
            .filter(|medium| medium.parent == Some(child))
        {
            grandchild.parent = Some(id);
            image::set_parent(&self.machine.folder.join(&grandchild.location), id);
        }
        for attachment in self
            .machine
            .states_mut()
            .flat_map(|state| &mut state.attachments)
        {
            if *attachment == child {
                *attachment = id;
            }
        }
        self.remove_medium(child);
    }

    fn save(&self) {
        let path = self.settings_path();
        if path.exists() {
            fs::rename(&path, path.with_extension("vbox-prev")).expect("the earlier settings file");
        }
        fs::write(path, settings::render(&self.machine)).expect("room for the settings file");
    }
}

/// Lets the guest of a machine without VirtualBox snapshots change the disk in `image` until it
/// equals the raw image, which has its size.
pub fn write_raw_to_image(image: &Path, raw: &Path) {
    image::write_raw(&[image.to_owned()], raw);
}
