//! Machines of the real VirtualBox that run the guests `rig/guest/records.S` and `storm.S`.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::guest_counts::GuestCounts;
use crate::guest_records::GuestRecords;
use crate::rig::Rig;
use crate::rig_machine::RigMachine;

/// How long a guest may need for one round. Where many others want the processor, ten seconds were
/// too few.
const ROUND: Duration = Duration::from_secs(60);

impl<'rig> RigMachine<'rig> {
    /// A machine with two disks of 4 MiB at its controller "IDE", whose guest writes records to both;
    /// see [`GuestRecords`]. VirtualBox's SATA controller loses a command now and then while images
    /// are exchanged (once in some 150 takes and merges, on 7.2.22); an operating system would send it
    /// again, the BIOS waits for ever.
    #[must_use]
    pub fn records_guest(rig: &'rig Rig, name: &str) -> Self {
        let machine = Self::create(rig, name);
        machine.add_controller("IDE", "ide");
        for (port, start) in [(0, machine.guest_program("records")), (1, Vec::new())] {
            let image = machine.create_blank_disk(&format!("disk {}.vdi", port + 1), &start, 4);
            machine.attach("IDE", port, &image);
        }
        machine
    }

    /// A [`RigMachine::records_guest`] whose disks hold two blocks more each, which the guest leaves alone.
    #[must_use]
    pub fn records_guest_beside_data(rig: &'rig Rig, name: &str) -> Self {
        let machine = Self::records_guest(rig, name);
        for (port, block) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            machine.write_vdi("IDE", port, block, 7);
        }
        machine
    }

    /// A machine with 128 MB of memory and a disk of 256 MiB whose guest changes all of both as fast
    /// as it can. A live saved state of it never ends. The disk is at an IDE controller for the same
    /// reason as those of [`RigMachine::records_guest`].
    #[must_use]
    pub fn storm_guest(rig: &'rig Rig, name: &str) -> Self {
        let machine = Self::create(rig, name);
        machine.modify(&["--memory", "128"]);
        machine.add_controller("IDE", "ide");
        let start = machine.guest_program("storm");
        let image = machine.create_blank_disk("disk 1.vdi", &start, 256);
        machine.attach("IDE", 0, &image);
        machine
    }

    /// Starts the machine, or resumes it from its saved state, and waits until its guest counts.
    pub fn start_counting(&self) {
        let _ = fs::remove_file(self.serial());
        self.call("startvm", &["--type", "headless"]);
        self.wait_until("counting", || self.counts().is_some());
    }

    /// What the guest counted since the machine was started or resumed.
    ///
    /// # Panics
    /// When the guest complains or skips a count.
    pub fn counts(&self) -> Option<GuestCounts> {
        let text = self.serial_text();
        let counts = GuestCounts::parse(&text);
        counts.unwrap_or_else(|fault| panic!("the guest of {}: {fault}\n{text}", self.id()))
    }

    /// What the guest printed on COM1 since the machine was started or resumed.
    pub fn serial_text(&self) -> String {
        fs::read_to_string(self.serial()).unwrap_or_default()
    }

    /// Waits until the guest has counted this much further.
    pub fn wait_for_rounds(&self, rounds: u32) {
        let last = || self.counts().map_or(0, |counts| counts.last);
        let wanted = last() + rounds;
        self.wait_until(&format!("at count {wanted}"), || last() >= wanted);
    }

    /// The id of the process that runs the machine.
    ///
    /// # Panics
    /// When none does.
    #[must_use]
    pub fn process(&self) -> String {
        let id = self.id().to_string();
        let is_it = |folder: &PathBuf| {
            let line = fs::read_to_string(folder.join("cmdline")).unwrap_or_default();
            line.contains("VBoxHeadless") && line.contains(&id)
        };
        let entries = fs::read_dir("/proc").expect("a list of processes");
        let mut folders = entries.flatten().map(|entry| entry.path());
        let folder = folders.find(is_it).expect("a running machine");
        let name = folder.file_name().and_then(|name| name.to_str());
        name.expect("a number").to_owned()
    }

    /// Whether the guest goes on counting.
    pub fn is_alive(&self) -> bool {
        let (start, before) = (Instant::now(), self.counts());
        while start.elapsed() < ROUND {
            if self.counts() != before {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Where [`RigMachine::records_guest`] and [`RigMachine::storm_guest`] put the base image of disk
    /// 1 or 2.
    pub fn base_image(&self, disk: u32) -> PathBuf {
        self.folder().join(format!("disk {disk}.vdi"))
    }

    /// The last round that reached both disks of a [`RigMachine::records_guest`], found in its
    /// attached images, which nobody may write to meanwhile.
    ///
    /// # Errors
    /// What is wrong with a record, or that the disks are not of one instant.
    pub fn last_round(&self) -> Result<u32, String> {
        let records = |disk: u32| {
            let image = self.attached_path("IDE", disk as usize - 1);
            GuestRecords::of_image(disk, &image)
        };
        GuestRecords::last_round(&records(1)?, &records(2)?)
    }
}
