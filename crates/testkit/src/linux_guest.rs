//! A machine with a real Linux as guest, which boots once for all tests.
//!
//! The guest (rig/linux/init.c) appends the same numbered records to two ext4 disks, at SATA
//! ports 1 and 2, keeps the number and pages made of it in memory, and checks without end that disks
//! and memory hold what it wrote. It tells the number of the last record that is on both disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::linux_records::LinuxRecords;
use crate::rig::Rig;
use crate::rig_machine::RigMachine;

const NAME: &str = "linux";
/// The emulated processor needs one minute, much more where many share the real one.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(120);
/// Records between two numbers that the guest tells.
const RECORDS_PER_SYNC: u64 = 8;
const DISKS: [(usize, &str); 3] = [(0, "boot"), (1, "a"), (2, "b")];

/// A machine whose guest is Linux.
#[derive(Debug, Clone)]
pub struct LinuxGuest<'rig> {
    machine: RigMachine<'rig>,
}

impl<'rig> LinuxGuest<'rig> {
    /// Registers a machine, called "linux", in the saved state: its guest has started and written a
    /// few records. The first call after rig/setup boots it, which takes a minute or two; what it
    /// leaves beside the rig serves all others. One registry takes one such machine.
    #[must_use]
    pub fn saved(rig: &'rig Rig) -> Self {
        let folder = rig.folder().join("machines").join(NAME);
        Template::of(rig).copy_to(rig, &folder);
        let settings = folder.join(format!("{NAME}.vbox"));
        rig.run(["registervm".as_ref(), settings.as_os_str()]);
        let id = machine_id(&fs::read_to_string(settings).expect("the settings"));
        let guest = Self {
            machine: RigMachine::registered(rig, id),
        };
        assert_eq!(guest.machine.state(), "saved");
        guest
    }

    /// A machine whose guest is Linux already, for example restored from a snapshot.
    #[must_use]
    pub fn of(machine: RigMachine<'rig>) -> Self {
        Self { machine }
    }

    /// The machine.
    pub fn machine(&self) -> &RigMachine<'rig> {
        &self.machine
    }

    /// Resumes the saved machine and waits until its guest has written new records. Returns the first
    /// number that it told.
    pub fn resume(&self) -> u64 {
        let _ = fs::remove_file(self.machine.serial());
        self.machine.call("startvm", &["--type", "headless"]);
        self.wait_until("writing records", PATIENCE, |told| !told.is_empty());
        self.numbers()[0]
    }

    /// The last number that the guest told since it was started or resumed: all records up to it are on
    /// both disks, whatever happens.
    ///
    /// # Panics
    /// When it has told none, or found something on its disks or in its memory that it did not write.
    pub fn counter(&self) -> u64 {
        *self.numbers().last().expect("the guest has told a number")
    }

    /// Waits until the guest has written so many more records.
    pub fn wait_for_records(&self, more: u64) {
        let target = self.counter() + more;
        self.wait_until("writing records", PATIENCE, |told| {
            told.last().is_some_and(|last| *last >= target)
        });
    }

    /// The records on each of the two disks of the stopped machine, its differencing images
    /// included. They differ by what the guest was about to write.
    pub fn records(&self) -> [LinuxRecords; 2] {
        let rig = self.machine.rig();
        [1, 2].map(|port| {
            let id = self.machine.attached("SATA", port).expect("the disk");
            let image = rig.folder().join(format!("{id}.ext4"));
            fs::write(&image, rig.guest_bytes(id.to_string())).expect("room for the disk");
            let records = LinuxRecords::read(&image);
            fs::remove_file(image).expect("the disk");
            records
        })
    }

    fn boot(rig: &'rig Rig) -> Self {
        let machine = RigMachine::create(rig, NAME);
        machine.modify(&["--memory", "192", "--ostype", "Debian_64", "--nic1", "none"]);
        machine.modify(&["--ioapic", "on", "--paravirtprovider", "kvm"]);
        machine.modify(&["--vm-execution-engine", "recompiler"]);
        for (port, name) in DISKS {
            let raw = rig.folder().join("linux.raw");
            let original = rig.installation().join("linux").join(format!("{name}.raw"));
            fs::copy(&original, &raw).unwrap_or_else(|error| {
                panic!("{}: {error}; rig/setup makes it", original.display())
            });
            let image = machine.folder().join(format!("{name}.vdi"));
            machine.convert_from_raw(&raw, &image, "VDI", "Standard");
            machine.attach("SATA", port, &image);
        }
        machine.call("startvm", &["--type", "headless"]);
        let guest = Self { machine };
        guest.wait_until("booted", BOOT_PATIENCE, |told| told.len() > 2);
        guest
    }

    /// All numbers since the machine was started or resumed. One whose line was cut by a save, or
    /// mixed with what the kernel said, is missing.
    fn numbers(&self) -> Vec<u64> {
        let text = self.serial_text();
        assert!(!text.contains("BAD"), "the guest found damage:\n{text}");
        assert!(
            !text.contains("Kernel panic"),
            "the guest broke down:\n{text}"
        );
        let lines = text
            .rsplit_once('\n')
            .map_or("", |(complete, _)| complete)
            .lines();
        let numbers = lines.filter_map(|line| line.trim().strip_prefix("n=")?.parse().ok());
        let numbers: Vec<u64> = numbers.collect();
        let goes_on = numbers.is_sorted_by(|a, b| a < b && (b - a) % RECORDS_PER_SYNC == 0);
        assert!(goes_on, "the guest does not count on:\n{text}");
        numbers
    }

    fn serial_text(&self) -> String {
        let bytes = fs::read(self.machine.serial()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn wait_until(&self, what: &str, patience: Duration, reached: impl Fn(&[u64]) -> bool) {
        self.machine
            .wait_within(patience, what, || reached(&self.numbers()));
    }
}

/// The folder of the machine in the saved state, beside the rig.
struct Template {
    folder: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

impl Template {
    /// Waits until nobody else makes or copies it; makes it if it is missing or made for something else.
    fn of(rig: &Rig) -> Self {
        let linux = rig.installation().join("linux");
        let lock = File::create(linux.join("lock")).unwrap_or_else(|error| {
            panic!("{}: {error}; rig/setup makes the guest", linux.display())
        });
        lock.lock().expect("a lock on the Linux guest");
        let template = Self {
            folder: linux.join("saved"),
            _lock: lock,
        };
        let made_for = circumstances(rig);
        let mark = template.folder.join("made-for");
        if fs::read_to_string(&mark).ok().as_ref() != Some(&made_for) {
            template.make(rig);
            fs::write(mark, made_for).expect("room for a mark");
        }
        template
    }

    fn make(&self, rig: &Rig) {
        let guest = LinuxGuest::boot(rig);
        guest.machine.save_running_state();
        let made = guest.machine.folder().to_owned();
        rig.run(["unregistervm", &guest.machine.id().to_string()]);
        let _ = fs::remove_dir_all(&self.folder);
        fs::remove_dir_all(made.join("Logs")).expect("the logs");
        copy_folder(&made, &self.folder);
        fs::remove_dir_all(made).expect("the machine's folder");
    }

    /// The serial port leads to where [`RigMachine`] looks for it in this registry.
    fn copy_to(&self, rig: &Rig, folder: &Path) {
        copy_folder(&self.folder, folder);
        let settings = folder.join(format!("{NAME}.vbox"));
        let text = fs::read_to_string(&settings).expect("the settings");
        let serial = RigMachine::serial_of(rig, machine_id(&text));
        let name = serial
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let (before, after) = text.split_once(name).expect("a serial port");
        let (before, _) = before.rsplit_once('"').expect("the beginning of a path");
        let text = format!("{before}\"{}{after}", serial.display());
        fs::write(settings, text).expect("room for the settings");
    }
}

/// What a saved state depends on: VirtualBox, the guest, the processor.
fn circumstances(rig: &Rig) -> String {
    let read = |file: &str| {
        let file = rig.installation().join(file);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find(|line| line.starts_with("model name"));
    [
        &read("version"),
        &read("linux/version"),
        processor.unwrap_or_default(),
    ]
    .concat()
}

fn machine_id(settings: &str) -> Uuid {
    let (_, rest) = settings.split_once("<Machine uuid=\"{").expect("a machine");
    rest.split('}')
        .next()
        .and_then(|id| id.parse().ok())
        .expect("an id")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder") {
        let entry = entry.expect("the folder");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the kind of a file").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("room for a copy");
        }
    }
}
