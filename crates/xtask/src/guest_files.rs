//! A guest's ext4 filesystem with files of this computer on it, which changes as one in use does.
//!
//! Made with `mkfs.ext4 -d` and `debugfs`, so that nothing is mounted. The same on every run on the same
//! computer.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Where files are taken from.
const SOURCE: &str = "/usr";
/// What a disk of 20 GiB holds and what happens on it from one state to the next, in MiB.
const FULL_DISK: u64 = 20 << 10;
const FILES: u64 = 4800;
const DATABASE: u64 = 200;
const NEW: u64 = 150;
const LOG: u64 = 15;
const REMOVED: u64 = 80;
const REWRITTEN: u64 = 60;
/// Pages of the database that are written in place.
const PAGES_WRITTEN: u64 = 3000;

/// See the module.
pub(crate) struct GuestFiles {
    raw: PathBuf,
    folder: PathBuf,
    disk_mebibytes: u64,
    /// Of this computer, in the order in which the guest gets them.
    sources: Vec<(PathBuf, u64)>,
    used: usize,
    /// Names and lengths in the guest.
    present: Vec<(String, u64)>,
    /// How many files ever got a name.
    named: u64,
}

/// Commands for `debugfs`, and the files that they need.
struct Script {
    folder: PathBuf,
    text: String,
}

impl GuestFiles {
    /// A raw image of this size, with files on it.
    pub(crate) fn new(folder: &Path, disk_mebibytes: u64) -> Self {
        let mut guest = Self {
            raw: folder.join("guest.raw"),
            folder: folder.join("guest"),
            disk_mebibytes,
            sources: sources(),
            used: 0,
            present: Vec::new(),
            named: 0,
        };
        fs::create_dir_all(guest.folder.join("srv")).expect("a folder for the guest's files");
        guest.fill();
        fs::write(guest.folder.join("app.db"), database(guest.bytes(DATABASE))).expect("room");
        let raw = File::create(&guest.raw).expect("room for a raw image");
        raw.set_len(disk_mebibytes * MIB).expect("a sparse file");
        run(Command::new("/sbin/mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .arg(&guest.folder)
            .args(["-U", "11111111-2222-3333-4444-555555555555"])
            .args([
                "-E",
                "hash_seed=11111111-2222-3333-4444-555555555555,lazy_itable_init=0",
            ])
            .arg(&guest.raw));
        fs::remove_dir_all(guest.folder.join("srv")).expect("the copies of the files");
        guest
    }

    pub(crate) fn raw(&self) -> &Path {
        &self.raw
    }

    /// What a guest does in a day: new files, a log, pages of a database, upgraded packages.
    pub(crate) fn change(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut script = Script::new(self.folder.join(format!("scratch {seed}")));
        self.add(&mut script, &log(&mut random, self.bytes(LOG)));
        for source in self.next_sources(self.bytes(NEW)) {
            self.add(&mut script, &fs::read(source).expect("a readable file"));
        }
        for (name, _) in self.take_present(&mut random, REWRITTEN) {
            let mut content = debugfs(&self.raw, &format!("cat /srv/{name}"));
            for _ in 0..content.len().div_ceil(8192) {
                let at = random.usize(0..content.len());
                let end = (at + 200).min(content.len());
                random.fill(&mut content[at..end]);
            }
            self.add(&mut script, &content);
            script.say(&format!("rm {name}"));
        }
        for (name, _) in self.take_present(&mut random, REMOVED) {
            script.say(&format!("rm {name}"));
        }
        script.run(&self.raw);
        self.write_database(&mut random);
    }

    /// A new file, with a name that no other had.
    fn add(&mut self, script: &mut Script, content: &[u8]) {
        let name = self.named.to_string();
        self.named += 1;
        script.write(&name, content);
        self.present.push((name, content.len() as u64));
    }

    /// Scaled to the size of the disk.
    fn scaled(&self, count: u64) -> u64 {
        count * self.disk_mebibytes / FULL_DISK
    }

    fn bytes(&self, mebibytes: u64) -> u64 {
        self.scaled(mebibytes * MIB)
    }

    fn fill(&mut self) {
        for source in self.next_sources(self.bytes(FILES)) {
            let name = self.named.to_string();
            self.named += 1;
            let bytes = fs::copy(source, self.folder.join("srv").join(&name)).expect("room");
            self.present.push((name, bytes));
        }
    }

    fn next_sources(&mut self, bytes: u64) -> Vec<PathBuf> {
        let mut sum = 0;
        let left = self.sources.get(self.used..).unwrap_or_default();
        let wanted = left.iter().take_while(|(_, size)| {
            let goes_on = sum < bytes;
            sum += size;
            goes_on
        });
        let wanted: Vec<_> = wanted.map(|(path, _)| path.clone()).collect();
        self.used += wanted.len();
        wanted
    }

    /// Takes files of so many bytes in all off the list.
    fn take_present(&mut self, random: &mut fastrand::Rng, mebibytes: u64) -> Vec<(String, u64)> {
        let (wanted, mut sum) = (self.bytes(mebibytes), 0);
        let mut taken = Vec::new();
        while sum < wanted && !self.present.is_empty() {
            let file = self
                .present
                .swap_remove(random.usize(0..self.present.len()));
            sum += file.1;
            if file.1 > 0 {
                taken.push(file);
            }
        }
        taken
    }

    fn write_database(&self, random: &mut fastrand::Rng) {
        let blocks = String::from_utf8(debugfs(&self.raw, "blocks /app.db")).expect("numbers");
        let blocks: Vec<u64> = blocks.split_whitespace().flat_map(str::parse).collect();
        let mut raw = File::options()
            .write(true)
            .open(&self.raw)
            .expect("the raw image");
        for number in 0..self.scaled(PAGES_WRITTEN) {
            let block = blocks[random.usize(0..blocks.len())];
            let page = database_page(random, number);
            raw.seek(SeekFrom::Start(block * PAGE as u64))
                .expect("a block");
            raw.write_all(&page).expect("a page");
        }
    }
}

impl Script {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).expect("a scratch folder");
        Self {
            folder,
            text: "cd /srv\n".to_owned(),
        }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.text, "{command}").expect("memory");
    }

    fn write(&mut self, name: &str, content: &[u8]) {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("room for a new file");
        self.say(&format!("write \"{}\" {name}", path.display()));
    }

    fn run(self, raw: &Path) {
        let commands = self.folder.join("commands");
        fs::write(&commands, self.text).expect("room for commands");
        run(Command::new("/sbin/debugfs")
            .args(["-w", "-f"])
            .arg(commands)
            .arg(raw));
        fs::remove_dir_all(self.folder).expect("the scratch folder");
    }
}

fn sources() -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(SOURCE)];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let kind = entry.file_type().expect("a kind");
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && bytes < 64 * MIB {
                files.push((entry.path(), bytes));
            }
        }
    }
    fastrand::Rng::with_seed(1).shuffle(&mut files);
    files
}

fn database(bytes: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(3);
    (0..bytes / PAGE as u64)
        .flat_map(|number| database_page(&mut random, number))
        .collect()
}

/// Half of it noise.
fn database_page(random: &mut fastrand::Rng, number: u64) -> Vec<u8> {
    let mut page = vec![0; 1800];
    random.fill(&mut page);
    while page.len() < PAGE {
        write!(page, "row{number:08}|").expect("memory");
    }
    page.truncate(PAGE);
    page
}

fn log(random: &mut fastrand::Rng, bytes: u64) -> Vec<u8> {
    let mut text = Vec::new();
    while (text.len() as u64) < bytes {
        let (number, word) = (random.u32(..), random.u16(0..500));
        writeln!(text, "daemon[{word}]: request {number:08x} took {word} us").expect("memory");
    }
    text
}

fn debugfs(raw: &Path, request: &str) -> Vec<u8> {
    run(Command::new("/sbin/debugfs").args(["-R", request]).arg(raw))
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("e2fsprogs is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output.stdout
}
