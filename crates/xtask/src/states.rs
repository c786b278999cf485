//! States of one machine: a disk with an ext4 that is in use, and a saved state.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use vrs_testkit::{SampleDisk, SampleMachine, write_raw_to_image};

use crate::guest_files::GuestFiles;
use crate::guest_memory::GuestMemory;

const MARK: &[u8] = b"\x7fVirtualBox SavedState V2.0\n\0\0\0\0";

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
    machine: SampleMachine,
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
            save_state(machine, memory);
            copy(machine.folder(), &folder.join(name));
        };
        keep(&mut machine, &guest, &memory, "state 0");
        guest.change(1);
        memory.change();
        keep(&mut machine, &guest, &memory, "state 1");
        machine.compact(0);
        copy(machine.folder(), &folder.join("state 2"));
        fs::remove_file(guest.raw()).expect("the raw image");
        fs::remove_dir_all(machine.folder()).expect("the machine's folder");
        Self {
            folder: folder.to_owned(),
            machine,
        }
    }

    pub(crate) fn machine_folder(&self) -> &Path {
        self.machine.folder()
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.machine.settings_path()
    }

    /// The disk's image in a state.
    pub(crate) fn image(&self, state: u8) -> PathBuf {
        let image = &self.machine.chain(0)[0];
        let within = image
            .strip_prefix(self.machine.folder())
            .expect("the machine's folder");
        self.path(state).join(within)
    }

    fn path(&self, state: u8) -> PathBuf {
        self.folder.join(format!("state {state}"))
    }

    /// Runs something with the machine in a state, which must not change it.
    pub(crate) fn with<T>(&self, state: u8, run: impl FnOnce() -> T) -> T {
        let kept = self.path(state);
        fs::rename(&kept, self.machine.folder()).expect("a kept state");
        let done = run();
        fs::rename(self.machine.folder(), kept).expect("the machine's folder");
        done
    }

    /// Runs something with a copy of the machine in a state, or with nothing at its place. Afterwards
    /// the machine must be in another state.
    pub(crate) fn restoring<T>(&self, from: Option<u8>, to: u8, run: impl FnOnce() -> T) -> T {
        if let Some(state) = from {
            copy(&self.path(state), self.machine.folder());
        }
        let done = run();
        self.require(to);
        fs::remove_dir_all(self.machine.folder()).expect("the machine's folder");
        done
    }

    fn require(&self, state: u8) {
        let image = &self.machine.chain(0)[0];
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

/// The sample machine cuts a memory into records of equal length, where VirtualBox has one for each page. So
/// only what marks a saved state comes before the pages.
fn save_state(machine: &mut SampleMachine, memory: &GuestMemory) {
    machine.save_state(b"");
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "sav");
    let state = machine.files().into_iter().find(is_state);
    let state = File::create(state.expect("the saved state")).expect("a writable folder");
    let mut state = BufWriter::new(state);
    state.write_all(MARK).expect("room for the saved state");
    memory.write(&mut state);
    state.flush().expect("room for the saved state");
}

fn copy(from: &Path, to: &Path) {
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
