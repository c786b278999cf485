//! Machines that run in the fake `VBoxManage`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use uuid::Uuid;
use vrs_testkit::{FakeVBoxManage, Fault, FaultKind, SampleDisk, SampleMachine, random_bytes};

const MIB: u64 = 1 << 20;
const MIB_LENGTH: usize = 1 << 20;
const WITHOUT_STATE: &str = "VBoxInternal2/ForceTakeSnapshotWithoutState";

struct Running {
    _folder: tempfile::TempDir,
    fake: FakeVBoxManage,
    sample: SampleMachine,
    id: String,
}

impl Running {
    /// A machine with two disks, which runs.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeVBoxManage::new();
        let mut sample = SampleMachine::builder(folder.path(), "m")
            .disk(SampleDisk::dynamic(4 * MIB))
            .disk(SampleDisk::fixed(2 * MIB))
            .build();
        sample.fill(0, 0, 2 * MIB_LENGTH, 1);
        sample.fill(1, 0, MIB_LENGTH, 2);
        fake.register(&sample.settings_path());
        let id = sample.id().to_string();
        fake.run(["startvm", &id, "--type", "headless"]);
        Self {
            _folder: folder,
            fake,
            sample,
            id,
        }
    }

    fn machine(&self) -> Uuid {
        self.sample.id()
    }

    fn call(&self, verb: &str, arguments: &[&str]) -> Output {
        self.fake.output([verb, &self.id].iter().chain(arguments))
    }

    fn take(&self, name: &str) -> String {
        let output = self.call("snapshot", &["take", name, "--description", "d"]);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{stdout}");
        stdout.trim().rsplit(' ').next().unwrap().to_owned()
    }

    fn delete(&self, snapshot: &str) {
        let output = self.call("snapshot", &["delete", snapshot]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
    }

    fn snapshots(&self) -> String {
        let output = self.call("snapshot", &["list", "--machinereadable"]);
        String::from_utf8(output.stdout).unwrap()
    }

    fn guest_writes(&self, block: u64, seed: u64) {
        for disk in 0..2 {
            let bytes = random_bytes(seed + disk as u64, MIB_LENGTH);
            let offset_bytes = (block % 2) * MIB;
            self.fake
                .write_as_guest(self.machine(), disk, offset_bytes, &bytes);
        }
    }

    fn guest_bytes(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|disk| self.fake.guest_bytes(self.machine(), disk))
    }

    fn in_snapshots(&self, extension: &str) -> Vec<PathBuf> {
        let folder = self.sample.folder().join("Snapshots");
        let Ok(files) = fs::read_dir(folder) else {
            return Vec::new();
        };
        files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect()
    }

    fn settings(&self) -> String {
        fs::read_to_string(self.sample.settings_path()).unwrap()
    }

    /// Registering them anew leads to the same.
    fn settings_are_consistent(&self) {
        let other = FakeVBoxManage::new();
        other.register(&self.sample.settings_path());
        let list = |fake: &FakeVBoxManage| {
            let listed = fake.run(["list", "hdds", "--long"]);
            let locks = ["locked write", "locked read"];
            locks
                .iter()
                .fold(listed, |listed, lock| listed.replace(lock, "created"))
        };
        assert_eq!(list(&other), list(&self.fake));
        let snapshots = other.output(["snapshot", &self.id, "list", "--machinereadable"]);
        assert_eq!(
            String::from_utf8(snapshots.stdout).unwrap(),
            self.snapshots()
        );
    }
}

#[test]
fn a_virtualbox_snapshot_freezes_the_disks_and_goes_away_again() {
    let running = Running::new();
    let before = running.settings();
    running.guest_writes(0, 10);
    let frozen = running.guest_bytes();
    let bases = [0, 1].map(|disk| running.sample.chain(disk)[0].clone());
    let base_bytes = || bases.clone().map(|base| fs::read(base).unwrap());
    let taken = running.take("t");
    let at_take = base_bytes();
    running.guest_writes(1, 20);
    running.guest_writes(2, 30);
    assert_ne!(running.guest_bytes(), frozen);
    assert_eq!(base_bytes(), at_take, "the guest writes elsewhere");
    assert_eq!(running.in_snapshots("sav").len(), 1);
    assert_eq!(running.in_snapshots("vdi").len(), 2);
    assert!(running.settings().contains(".sav\""));
    running.settings_are_consistent();

    let now = running.guest_bytes();
    running.delete(&taken);
    assert_eq!(running.guest_bytes(), now);
    assert_eq!(running.in_snapshots("sav"), Vec::<PathBuf>::new());
    assert_eq!(running.in_snapshots("vdi"), Vec::<PathBuf>::new());
    assert!(running.snapshots().contains("does not have any snapshots"));
    let without_time = |text: &str| {
        let start = text
            .find(" currentStateModified")
            .unwrap_or_else(|| text.find(" lastStateChange").unwrap());
        let end = text[start..].find('>').unwrap();
        text[..start].to_owned() + &text[start + end..]
    };
    assert_eq!(without_time(&running.settings()), without_time(&before));
    assert_eq!(running.fake.state(running.machine()), "running");
}

/// Merges in either direction, with VirtualBox snapshots below and above.
#[test]
fn merges_change_nothing_for_the_guest() {
    let running = Running::new();
    let mut taken = Vec::new();
    for number in 0..4 {
        running.guest_writes(number, 10 * number);
        taken.push(running.take(&format!("t{number}")));
    }
    running.guest_writes(1, 99);
    let now = running.guest_bytes();
    for number in [2, 0, 3, 1] {
        running.delete(&taken[number]);
        assert_eq!(running.guest_bytes(), now, "{number}");
        running.settings_are_consistent();
    }
    assert_eq!(running.in_snapshots("vdi"), Vec::<PathBuf>::new());
    running.guest_writes(0, 5);
}

#[test]
fn memory_is_not_saved_where_the_key_says_so() {
    let running = Running::new();
    assert!(
        running
            .call("setextradata", &[WITHOUT_STATE, "1"])
            .status
            .success()
    );
    assert!(
        running
            .settings()
            .contains("<ExtraDataItem name=\"VBoxInternal2/")
    );
    running.call("controlvm", &["pause"]);
    running.take("t");
    running.call("controlvm", &["resume"]);
    assert_eq!(running.in_snapshots("sav"), Vec::<PathBuf>::new());
    assert!(!running.settings().contains("stateFile"));
    running.call("setextradata", &[WITHOUT_STATE]);
    assert!(!running.settings().contains("ExtraData"));
    let value = running.call("getextradata", &[WITHOUT_STATE]);
    assert_eq!(value.stdout, b"No value set!\n");
}

#[test]
fn the_saved_state_goes_with_its_last_user() {
    let running = Running::new();
    assert!(running.call("controlvm", &["savestate"]).status.success());
    assert_eq!(running.fake.state(running.machine()), "saved");
    let taken = running.take("saved");
    assert_eq!(running.in_snapshots("sav").len(), 1);
    assert!(running.call("discardstate", &[]).status.success());
    assert_eq!(running.in_snapshots("sav").len(), 1);
    running.delete(&taken);
    assert_eq!(running.in_snapshots("sav"), Vec::<PathBuf>::new());
    let again = running.call("discardstate", &[]);
    assert!(again.status.success() && !again.stderr.is_empty());
    running.call("startvm", &["--type", "headless"]);
    assert_eq!(running.fake.state(running.machine()), "running");
}

#[test]
fn the_wrong_call_during_a_live_virtualbox_snapshot_freezes_the_guest() {
    for action in ["pause", "savestate", "reset", "poweroff"] {
        let running = Running::new();
        running
            .fake
            .set_state(running.machine(), "livesnapshotting");
        assert!(!running.call("snapshot", &["take", "x"]).status.success());
        assert!(!running.fake.is_frozen(running.machine()));
        running.call("controlvm", &[action]);
        if action != "poweroff" {
            assert!(running.fake.is_frozen(running.machine()), "{action}");
            running.fake.set_state(running.machine(), "running");
            for later in ["pause", "savestate", "resume"] {
                assert!(!running.call("controlvm", &[later]).status.success());
            }
            running.call("startvm", &["--type", "emergencystop"]);
        }
        assert!(!running.fake.is_frozen(running.machine()));
    }
}

#[test]
#[cfg(unix)]
fn a_slow_take_can_be_cancelled() {
    let running = Running::new();
    let slow = FaultKind::Slow {
        state: "livesnapshotting".to_owned(),
        milliseconds: 60_000,
    };
    running.fake.inject(&Fault::once("snapshot", slow));
    let mut taking = Command::new(running.fake.program())
        .args(["snapshot", &running.id, "take", "x", "--live"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| running.fake.state(running.machine()) == "livesnapshotting");
    Command::new("kill")
        .args(["-INT", &taking.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(taking.wait().unwrap().code(), Some(1));
    assert_eq!(running.fake.state(running.machine()), "running");
    assert!(running.snapshots().contains("does not have any snapshots"));
}

#[test]
fn virtualbox_completes_what_a_program_that_died_began() {
    let running = Running::new();
    let crash = FaultKind::CrashMeanwhile {
        state: "onlinesnapshotting".to_owned(),
        milliseconds: 300,
    };
    running.fake.inject(&Fault::once("snapshot", crash));
    let output = running.call("snapshot", &["take", "x"]);
    assert_eq!(output.status.code(), None);
    assert_eq!(running.fake.state(running.machine()), "onlinesnapshotting");
    wait_for(|| running.snapshots().contains("SnapshotName=\"x\""));
    assert_eq!(running.fake.state(running.machine()), "running");
}

fn dies_during_a_take(running: &Running) -> PathBuf {
    running
        .fake
        .inject(&Fault::once("snapshot", FaultKind::MachineDies));
    let died = running.call("snapshot", &["take", "x", "--live"]);
    assert!(!died.status.success());
    assert_eq!(running.fake.state(running.machine()), "aborted");
    running.in_snapshots("vdi").pop().unwrap()
}

/// As the real one does it: see the tests of the driver.
#[test]
fn stray_images_block_merges_until_the_service_ends() {
    let running = Running::new();
    dies_during_a_take(&running);
    let strays = running.in_snapshots("vdi");
    running.call("startvm", &["--type", "headless"]);
    let taken = running.take("later");
    let refused = running.call("snapshot", &["delete", &taken]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(
        stderr.contains("has more than one child hard disk (2)"),
        "{stderr}"
    );
    for is_restarted in [false, true] {
        for stray in &strays {
            let id = id_of(stray);
            let closed = running
                .fake
                .output(["closemedium", "disk", &id, "--delete"]);
            assert_eq!(closed.status.success(), is_restarted);
        }
        running.fake.restart_service();
    }
    running.delete(&taken);
    running.settings_are_consistent();
    assert_eq!(running.in_snapshots("vdi"), Vec::<PathBuf>::new());
}

#[test]
fn a_machine_whose_image_has_children_cannot_be_read() {
    let running = Running::new();
    dies_during_a_take(&running);
    running.fake.restart_service();
    assert_eq!(running.fake.state(running.machine()), "inaccessible");
    assert!(running.call("unregistervm", &[]).status.success());
    let settings = running.sample.settings_path();
    let refused = running
        .fake
        .output(["registervm".as_ref(), settings.as_os_str()]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("cannot be directly attached"), "{stderr}");
}

fn id_of(image: &Path) -> String {
    let name = image.file_stem().unwrap().to_str().unwrap();
    name.trim_matches(['{', '}']).to_owned()
}

fn wait_for(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
}
