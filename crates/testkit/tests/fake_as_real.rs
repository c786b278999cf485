//! Machines run in the fake `VBoxManage` as in the real one: the same calls on the same machine get
//! the same answers, and leave the same settings and files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use similar::TextDiff;
use uuid::Uuid;
use vrs_testkit::{FakeVBoxManage, Rig, RigMachine};

/// One line is one call, but `start`, which starts the machine; `M` is the machine, `SNAPSHOT 1` the first VirtualBox snapshot that was
/// taken, `IMAGE` an attached image.
const SCRIPT: &[&str] = &[
    "controlvm M pause",
    "controlvm M savestate",
    "discardstate M",
    "getextradata M a/key",
    "setextradata M a/key 1",
    "setextradata M a/key two",
    "setextradata M VBoxInternal/b x",
    "getextradata M a/key",
    "setextradata M a/key",
    "setextradata M a/key",
    "getextradata M a/key",
    "setextradata M VBoxInternal/b",
    "start",
    "snapshot M take one --description first",
    "snapshot M list --machinereadable",
    "list hdds --long",
    "discardstate M",
    "controlvm M pause",
    "controlvm M pause",
    "snapshot M take live --live",
    "snapshot M take paused",
    "controlvm M resume",
    "controlvm M resume",
    "snapshot M take live --description d --live",
    "list hdds",
    "snapshot M delete SNAPSHOT 2",
    "snapshot M delete nosuch",
    "snapshot M delete 99999999-2222-3333-4444-555555555555",
    "closemedium disk IMAGE --delete",
    "controlvm M savestate",
    "controlvm M savestate",
    "list hdds --long",
    "snapshot M take saved",
    "snapshot M delete one",
    "discardstate M",
    "snapshot M delete SNAPSHOT 4",
    "start",
    "setextradata M VBoxInternal2/ForceTakeSnapshotWithoutState 1",
    "controlvm M pause",
    "snapshot M take stateless",
    "controlvm M resume",
    "setextradata M VBoxInternal2/ForceTakeSnapshotWithoutState",
    "snapshot M delete live",
    "snapshot M delete stateless",
    "snapshot M delete stateless",
    "controlvm M poweroff",
    "snapshot M take off",
    "snapshot M restore nosuch",
    "start",
    "snapshot M restore off",
    "controlvm M poweroff",
    "snapshot M restore off",
    "list hdds --long",
    "snapshot M take branch",
    "snapshot M restore off",
    "snapshot M take branch",
    "snapshot M delete off",
    "start",
    "snapshot M take memory",
    "controlvm M savestate",
    "snapshot M restore memory",
    "list hdds",
    "discardstate M",
    "snapshot M delete memory",
    "snapshot M restore branch",
    "start",
    "controlvm M poweroff",
    // Looks how large the images are, by which it is decided into which of two they are merged.
    "list hdds --long",
    "snapshot M delete branch",
    "snapshot M delete branch",
    "snapshot M restore off",
    "snapshot M delete off",
    "list hdds",
];

/// One of the two programs.
trait Program {
    fn call(&self, words: &[String]) -> Output;

    /// Starts the machine and lets its guest come up.
    fn start(&self);

    /// Lets the guest of the running machine write to both disks.
    fn let_guest_write(&self);
}

struct Real<'rig> {
    machine: RigMachine<'rig>,
}

impl Program for Real<'_> {
    fn call(&self, words: &[String]) -> Output {
        self.machine.rig().output(words)
    }

    fn start(&self) {
        self.machine.start_counting();
    }

    fn let_guest_write(&self) {
        self.machine.wait_for_rounds(3);
    }
}

struct Fake {
    fake: FakeVBoxManage,
    machine: Uuid,
}

impl Program for Fake {
    fn call(&self, words: &[String]) -> Output {
        self.fake.output(words)
    }

    fn start(&self) {
        let id = self.machine.to_string();
        self.fake.run(["startvm", &id, "--type", "headless"]);
    }

    fn let_guest_write(&self) {
        for disk in [0, 1] {
            self.fake
                .write_as_guest(self.machine, disk, 1 << 20, b"record");
        }
    }
}

/// A program with its machine.
struct Side<'a> {
    program: &'a dyn Program,
    folder: PathBuf,
    id: String,
    snapshots: Vec<String>,
    names: BTreeMap<Uuid, String>,
}

impl<'a> Side<'a> {
    fn new(program: &'a dyn Program, folder: PathBuf, id: Uuid) -> Self {
        Self {
            program,
            folder,
            id: id.to_string(),
            snapshots: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// What a line of the script leads to, with everything named by the order in which it appears.
    fn does(&mut self, line: &str) -> String {
        let output = if line == "start" {
            self.program.start();
            self.program.call(&self.words("list runningvms"))
        } else {
            self.program.call(&self.words(line))
        };
        self.wait_until_unlocked();
        if self.show().contains("VMState=\"running\"") {
            self.program.let_guest_write();
        }
        let (stdout, stderr) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        if let Some(taken) = stdout.strip_prefix("Snapshot taken. UUID: ") {
            self.snapshots.push(taken.trim().to_owned());
        }
        let shown = format!(
            "{line}: {}\n{stdout}---\n{stderr}---\n{}---\n{}",
            output.status,
            self.status(),
            self.settings(),
        );
        let shown = self.comparable(&shown);
        format!("{shown}---\n{}", self.files())
    }

    fn words(&self, line: &str) -> Vec<String> {
        let mut line = line.to_owned();
        for (number, id) in self.snapshots.iter().enumerate() {
            line = line.replace(&format!("SNAPSHOT {}", number + 1), id);
        }
        let image = self.attached_image();
        let words = line.split(' ').map(|word| match word {
            "M" => self.id.clone(),
            "IMAGE" => image.clone(),
            other => other.to_owned(),
        });
        words.collect()
    }

    fn show(&self) -> String {
        let words = ["showvminfo", &self.id, "--machinereadable"].map(str::to_owned);
        String::from_utf8(self.program.call(&words).stdout).unwrap()
    }

    fn attached_image(&self) -> String {
        let shown = self.show();
        let mut lines = shown.lines();
        let image = lines.find_map(|line| line.strip_prefix("\"IDE-ImageUUID-0-0\"="));
        image.unwrap().trim_matches('"').to_owned()
    }

    /// After a power-off the real one keeps the machine locked for a moment.
    fn wait_until_unlocked(&self) {
        let is_open = |shown: &str| {
            let is = |line| shown.contains(line);
            is("SessionName=") && (is("VMState=\"poweroff\"") || is("VMState=\"saved\""))
        };
        while is_open(&self.show()) {
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn status(&self) -> String {
        let shown = self.show();
        let compared = [
            "VMState=",
            "VMStateFile=",
            "SessionName=",
            "groups=",
            "\"IDE-",
            "Snapshot",
            "CurrentSnapshot",
        ];
        let is_compared = |line: &&str| compared.iter().any(|start| line.starts_with(start));
        shown
            .lines()
            .filter(is_compared)
            .map(|line| line.to_owned() + "\n")
            .collect()
    }

    fn settings(&self) -> String {
        let mut files = fs::read_dir(&self.folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let is_settings = |file: &PathBuf| file.extension().is_some_and(|found| found == "vbox");
        without_what_only_the_real_one_writes(
            &fs::read_to_string(files.find(is_settings).unwrap()).unwrap(),
        )
    }

    fn files(&self) -> String {
        let Ok(files) = fs::read_dir(self.folder.join("Snapshots")) else {
            return String::new();
        };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .map(|name| self.named(&without_times(&name)))
            .collect();
        names.sort();
        names.join("\n")
    }

    fn comparable(&mut self, text: &str) -> String {
        let text = text.replace(self.folder.to_str().unwrap(), "FOLDER");
        // Of an image that VirtualBox has just made it does not tell all before it reads it again.
        let left_out = ["Size on disk:", "Format variant:", "Property:"];
        let text: String = text
            .lines()
            .filter(|line| !left_out.iter().any(|start| line.starts_with(start)))
            .map(|line| line.to_owned() + "\n")
            .collect();
        let text = without_times(&text);
        for id in ids_in(&text) {
            let number = self.names.len();
            self.names
                .entry(id)
                .or_insert_with(|| format!("ID-{number}"));
        }
        self.named(&text)
    }

    fn named(&self, text: &str) -> String {
        let names = self.names.iter();
        names.fold(text.to_owned(), |text, (id, name)| {
            text.replace(&id.to_string(), name)
        })
    }
}

fn ids_in(text: &str) -> Vec<Uuid> {
    let starts = text.char_indices().map(|(at, _)| at);
    let candidates = starts.filter_map(|at| text.get(at..at + 36));
    candidates
        .filter(|candidate| candidate.as_bytes()[8] == b'-')
        .filter_map(|candidate| candidate.parse().ok())
        .collect()
}

/// Puts `TIME` in the place of each time: `2026-11-21T04:09:31Z`, `2026-11-21T04-09-31-357523000Z`.
fn without_times(text: &str) -> String {
    let is_of_time = |c: char| c.is_ascii_digit() || "-:TZ".contains(c);
    let mut found = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("20") {
        let (before, after) = rest.split_at(at);
        let end = after.find(|c| !is_of_time(c)).unwrap_or(after.len());
        let is_time = end >= "2026-11-21T04:09:31Z".len() && after[..end].ends_with('Z');
        found += before;
        found += if is_time { "TIME" } else { &after[..end] };
        rest = &after[end..];
    }
    found + rest
}

/// The real one writes down what VirtualBox tells the guest while it runs, a default that the settings
/// of a new machine lack, and more precisely whether the current state was changed.
fn without_what_only_the_real_one_writes(settings: &str) -> String {
    let is_about_them = |line: &&str| !line.contains("GuestPropert");
    settings
        .lines()
        .filter(is_about_them)
        .map(|line| line.replace(" localhost-reachable=\"true\"", "") + "\n")
        .map(|line| line.replace(" currentStateModified=\"false\"", ""))
        .collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn machines_run_in_the_fake_as_in_the_real_one() {
    // Once in some hundred times VirtualBox says that it could not save a state, although it did.
    let says_so = |difference: &String| difference.contains("i_saveStorageControllers");
    let differences = (0..5)
        .map(|_| differences())
        .find(|differences| !differences.iter().any(says_so))
        .expect("states that are saved");
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Where the fake answers something else than VirtualBox, or leaves something else behind.
fn differences() -> Vec<String> {
    let rig = Rig::start();
    let machine = RigMachine::records_guest(&rig, "both");
    rig.reread();
    let (id, folder) = (machine.id(), machine.folder().to_owned());
    let copy = rig.folder().join("copy").join("both");
    copy_folder(&folder, &copy);
    let fake = FakeVBoxManage::new();
    fake.register(&copy.join("both.vbox"));
    let real = Real { machine };
    let fake = Fake { fake, machine: id };
    let mut real = Side::new(&real, folder, id);
    let mut faked = Side::new(&fake, copy, id);
    SCRIPT
        .iter()
        .filter_map(|line| {
            let (real, faked) = (real.does(line), faked.does(line));
            let difference = TextDiff::from_lines(&real, &faked)
                .unified_diff()
                .to_string();
            (real != faked).then(|| format!("=== {line}\n{difference}"))
        })
        .collect()
}
