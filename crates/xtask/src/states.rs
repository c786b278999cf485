//! States of one machine: a disk with an ext4 that is in use, and a saved state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vrs_testkit::{SampleDisk, SampleMachine, write_raw_to_image};

use crate::files::bytes_below;
use crate::guest_files::GuestFiles;
use crate::guest_memory::GuestMemory;
use crate::page_cache::forget;

/// How many there are, see [`States`].
const COUNT: usize = 3;

/// How large a machine is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Virtual size of its disk.
    pub disk_mebibytes: u64,
    /// Its memory.
    pub memory_mebibytes: u64,
}

/// Two states of a machine, and the second once more as VirtualBox compacts it: with its blocks in another
/// order. They are kept aside; one of them at a time is in the machine's folder.
pub struct States {
    folder: PathBuf,
    /// What is known of the machine in each state.
    machines: [SampleMachine; COUNT],
}

impl States {
    /// Makes them, in a folder that is removed by the caller.
    ///
    /// # Panics
    /// Without room for them, or e2fsprogs.
    #[must_use]
    pub fn make(folder: &Path, size: Size) -> Self {
        let mut guest = GuestFiles::new(folder, size.disk_mebibytes);
        let mut memory = GuestMemory::new(size.memory_mebibytes);
        let mut machine = SampleMachine::builder(&folder.join("now"), "bench")
            .disk(SampleDisk::dynamic(size.disk_mebibytes << 20))
            .nvram(540_000)
            .build();
        let keep = |machine: &mut SampleMachine, guest: &GuestFiles, memory: &GuestMemory, name| {
            write_raw_to_image(&machine.chain(0)[0], guest.raw());
            machine.save_pages(memory.pages());
            copy(machine.folder(), &folder.join(name));
            machine.clone()
        };
        let first = keep(&mut machine, &guest, &memory, "state 0");
        guest.change(1);
        memory.change();
        let second = keep(&mut machine, &guest, &memory, "state 1");
        machine.compact(0);
        copy(machine.folder(), &folder.join("state 2"));
        fs::remove_file(guest.raw()).expect("the raw image");
        fs::remove_dir_all(machine.folder()).expect("the machine's folder");
        Self {
            folder: folder.to_owned(),
            machines: [first, second, machine],
        }
    }

    pub(crate) fn machine_folder(&self) -> &Path {
        self.machines[0].folder()
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.machines[0].settings_path()
    }

    /// The disk's image in a state.
    pub(crate) fn image(&self, state: u8) -> PathBuf {
        let image = self.image_in_use();
        let within = image.strip_prefix(self.machine_folder());
        self.path(state).join(within.expect("the machine's folder"))
    }

    fn image_in_use(&self) -> PathBuf {
        self.machines[0].chain(0)[0].clone()
    }

    /// The folder in which the machine is kept in a state.
    pub(crate) fn path(&self, state: u8) -> PathBuf {
        self.folder.join(format!("state {state}"))
    }

    /// How much all states take.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_below(&self.folder)
    }

    /// Has the machine powered off in each state, without its saved state.
    pub(crate) fn power_off(&mut self) {
        for (state, mut machine) in (0..).zip(self.machines.clone()) {
            self.with(state, || machine.discard_state());
        }
    }

    /// Runs something with the machine in a state. What it changes stays changed.
    pub(crate) fn with<T>(&self, state: u8, run: impl FnOnce() -> T) -> T {
        let kept = self.path(state);
        fs::rename(&kept, self.machine_folder()).expect("a kept state");
        let done = run();
        fs::rename(self.machine_folder(), &kept).expect("the machine's folder");
        forget(&kept);
        done
    }

    /// Runs something with a copy of the machine in a state, or with nothing at its place. Afterwards
    /// the machine must be in another state.
    pub(crate) fn restoring<T>(&self, from: Option<u8>, to: u8, run: impl FnOnce() -> T) -> T {
        if let Some(state) = from {
            copy(&self.path(state), self.machine_folder());
            forget(&self.path(state));
        }
        let done = run();
        self.require(to, &self.image_in_use());
        forget(&self.path(to));
        fs::remove_dir_all(self.machine_folder()).expect("the machine's folder");
        done
    }

    /// Panics unless an image is as in a state.
    pub(crate) fn require(&self, state: u8, image: &Path) {
        let same = Command::new("cmp")
            .arg("-s")
            .arg(image)
            .arg(self.image(state))
            .status();
        assert!(
            same.expect("cmp").success(),
            "{} is not as in state {state}",
            image.display()
        );
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp");
    assert!(
        copied.success(),
        "cp -a {} {}",
        from.display(),
        to.display()
    );
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use vrs_progress::NoProgress;
    use vrs_virtualbox::SavedState;

    use super::*;

    #[test]
    fn a_saved_state_has_the_memory_and_is_sound() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut machine = SampleMachine::builder(folder.path(), "saved").build();
        let memory = GuestMemory::new(4);
        machine.save_pages(memory.pages());
        let path = machine.saved_state().expect("a saved state");
        let state = SavedState::verify(&path, &NoProgress).expect("a sound saved state");
        assert!(state.processor.is_some() && state.unit("pgm").is_some());
        let bytes: usize = memory.pages().map(|page| page.len()).sum();
        assert!(state.length_bytes > bytes as u64);
    }
}
