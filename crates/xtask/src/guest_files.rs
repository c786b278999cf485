//! A guest's ext4 filesystem with files of this computer on it, which changes as one in use does.
//!
//! Made with `mkfs.ext4` and `debugfs`, so that nothing is mounted. Contents and their places, but no times,
//! are the same on every run on the same computer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;

use crate::debugfs::{Script, debugfs, run, text};
use crate::host_files::{HostFile, host_files};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Where files are taken from, by folder.
const SOURCE: &str = "/usr";
/// What a disk of 20 GiB holds and what happens on it from one state to the next, in MiB of the disk.
const FULL_DISK: u64 = 20 << 10;
const FILES: u64 = 5000;
const DATABASE: u64 = 200;
const OLD_LOG: u64 = 60;
/// An application that was removed before the first state.
const GONE: u64 = 40;
const NEW: u64 = 160;
const LOG: u64 = 15;
const REMOVED: u64 = 90;
const UPGRADED: u64 = 60;
const JOURNALED: u64 = 40;
/// Pages of the database that are written in place.
const PAGES_WRITTEN: u64 = 3000;
/// Of files that are upgraded.
const UPGRADED_BYTES: Range<u64> = 20_001..30 * MIB;
/// Of all the files, as a part.
const LARGEST_FILE: u64 = 20;
/// Blocks that go to the journal at once.
const TRANSACTION: usize = 64;
const INODES_PER_BLOCK: usize = 16;
/// In the guest.
const APPLICATIONS: &str = "/opt";
const COPIES: &str = "/srv/usr";
const LIBRARIES: &str = "/srv/usr/lib";
const SHARED: &str = "/srv/usr/share";
const DATABASE_FILE: &str = "/var/lib/app/app.db";
const LOGS: &str = "/var/log";
const JOURNAL_FILE: &str = "<8>";

/// See the module.
pub(crate) struct GuestFiles {
    raw: PathBuf,
    /// For what the guest gets.
    scratch: PathBuf,
    disk_mebibytes: u64,
    /// Of this computer, which the guest gets with the next change.
    coming: Vec<HostFile>,
    /// Those of this computer, with their paths in the guest.
    present: Vec<HostFile>,
    script: Script,
}

impl GuestFiles {
    /// A raw image of this size, with files on it.
    pub(crate) fn new(folder: &Path, disk_mebibytes: u64) -> Self {
        let mut guest = Self {
            raw: folder.join("guest.raw"),
            scratch: folder.join("guest"),
            disk_mebibytes,
            coming: Vec::new(),
            present: Vec::new(),
            script: Script::new(),
        };
        guest.make_filesystem();
        let mut random = Rng::with_seed(1);
        guest.fill(&mut random);
        let journal = guest.blocks(JOURNAL_FILE);
        guest.write_journal(&mut random, &journal);
        guest
    }

    pub(crate) fn raw(&self) -> &Path {
        &self.raw
    }

    fn make_filesystem(&self) {
        let raw = File::create(&self.raw).expect("room for a raw image");
        raw.set_len(self.disk_mebibytes * MIB)
            .expect("a sparse file");
        run(Command::new("/sbin/mkfs.ext4")
            .args(["-q", "-F", "-b", "4096"])
            .args(["-U", "11111111-2222-3333-4444-555555555555"])
            .args([
                "-E",
                "hash_seed=11111111-2222-3333-4444-555555555555,lazy_itable_init=0",
            ])
            .arg(&self.raw));
    }

    fn fill(&mut self, random: &mut Rng) {
        let mut sources = sources(random, self.bytes(FILES) / LARGEST_FILE);
        let mut next = |mebibytes| take_files(&mut sources, self.bytes(mebibytes), |_| true);
        let (coming, gone, files) = (next(NEW), next(GONE), next(FILES));
        self.coming = coming;
        let gone = self.write_all(gone, &format!("{APPLICATIONS}/0"));
        self.present = self.write_all(files, COPIES);
        self.write(DATABASE_FILE, &database(self.bytes(DATABASE)));
        let log = log(random, self.bytes(OLD_LOG));
        self.write(&format!("{LOGS}/syslog.0"), &log);
        for file in gone {
            self.script.remove(&file.path);
        }
        self.script.run(&self.raw, &self.scratch);
    }

    /// What a guest does in a day: new files, a log, pages of a database, removed files, upgraded packages.
    pub(crate) fn change(&mut self, seed: u64) {
        let mut random = Rng::with_seed(seed);
        let coming = take(&mut self.coming);
        self.write_all(coming, &format!("{APPLICATIONS}/{seed}"));
        let log = log(&mut random, self.bytes(LOG));
        self.write(&format!("{LOGS}/syslog.{seed}"), &log);
        random.shuffle(&mut self.present);
        let removed = self.bytes(REMOVED);
        let is_shared = |file: &HostFile| file.path.starts_with(SHARED);
        for file in take_files(&mut self.present, removed, is_shared) {
            self.script.remove(&file.path);
        }
        let upgraded = self.bytes(UPGRADED);
        let is_library = |file: &HostFile| {
            file.path.starts_with(LIBRARIES) && UPGRADED_BYTES.contains(&file.bytes)
        };
        for file in take_files(&mut self.present, upgraded, is_library) {
            let new = format!("{}.new", text(&file.path));
            self.write(&new, &self.next_version(&mut random, &file));
            self.script.rename(Path::new(&new), &file.path);
            self.present.push(file);
        }
        self.script.run(&self.raw, &self.scratch);
        self.write_database(&mut random);
        let journal = self.blocks(JOURNAL_FILE);
        let count = self.pages(JOURNALED).min(journal.len());
        self.write_journal(&mut random, &journal[..count]);
    }

    /// Gives the guest files of this computer, and returns what it has then.
    fn write_all(&mut self, files: Vec<HostFile>, folder: &str) -> Vec<HostFile> {
        let below = |path: &Path| {
            let within = path.strip_prefix(SOURCE).expect("a file of the source");
            Path::new(folder).join(within)
        };
        // Folders lie together, as ext4 has them.
        for file in &files {
            self.script.make_folder_of(&below(&file.path));
        }
        let write = |mut file: HostFile| {
            let path = below(&file.path);
            self.script.write(&file.path, &path);
            file.path = path;
            file
        };
        files.into_iter().map(write).collect()
    }

    /// Gives the guest a file.
    fn write(&mut self, path: &str, content: &[u8]) {
        let source = self.scratch.join(path.trim_start_matches('/'));
        fs::create_dir_all(source.parent().expect("a folder")).expect("a scratch folder");
        fs::write(&source, content).expect("room for a file");
        self.script.make_folder_of(Path::new(path));
        self.script.write(&source, Path::new(path));
    }

    /// Scaled to the size of the disk.
    fn scaled(&self, count: u64) -> u64 {
        count * self.disk_mebibytes / FULL_DISK
    }

    fn bytes(&self, mebibytes: u64) -> u64 {
        self.scaled(mebibytes * MIB)
    }

    fn pages(&self, mebibytes: u64) -> usize {
        usize::try_from(self.bytes(mebibytes)).expect("an address") / PAGE
    }

    /// With some bytes of every 8 KiB changed.
    fn next_version(&self, random: &mut Rng, file: &HostFile) -> Vec<u8> {
        let mut content = debugfs(&self.raw, &format!("cat \"{}\"", text(&file.path)));
        for _ in 0..content.len() / 8192 {
            let at = random.usize(0..content.len() - 200);
            random.fill(&mut content[at..at + 200]);
        }
        content
    }

    fn write_database(&self, random: &mut Rng) {
        let blocks = self.blocks(DATABASE_FILE);
        let mut raw = self.open_raw();
        for number in 0..self.scaled(PAGES_WRITTEN) {
            let block = blocks[random.usize(0..blocks.len())];
            write_block(&mut raw, block, &database_page(random, number));
        }
    }

    /// Writes inodes to blocks of the journal, in which they go before they get to their places. Nothing is left
    /// to be replayed: the journal's first block stays.
    fn write_journal(&self, random: &mut Rng, journal: &[u64]) {
        let first = first_block_of_inodes(&self.raw);
        let last = self.present.len() / INODES_PER_BLOCK + 1;
        let mut raw = self.open_raw();
        for blocks in journal[1..].chunks(TRANSACTION) {
            let start = first + random.u64(0..last as u64);
            for (block, from) in blocks.iter().zip(start..) {
                let inodes = read_block(&mut raw, from);
                write_block(&mut raw, *block, &inodes);
            }
        }
    }

    /// Those of a file.
    fn blocks(&self, file: &str) -> Vec<u64> {
        let blocks = debugfs(&self.raw, &format!("blocks {file}"));
        let blocks = String::from_utf8(blocks).expect("numbers");
        blocks.split_whitespace().flat_map(str::parse).collect()
    }

    fn open_raw(&self) -> File {
        let mut options = File::options();
        let raw = options.read(true).write(true).open(&self.raw);
        raw.expect("the raw image")
    }
}

/// Of this computer, with folders in random order.
fn sources(random: &mut Rng, largest_bytes: u64) -> Vec<HostFile> {
    let mut folders: BTreeMap<PathBuf, Vec<HostFile>> = BTreeMap::new();
    for file in host_files(Path::new(SOURCE)) {
        // What debugfs can be told.
        let is_plain = file.path.to_str().is_some_and(|path| !path.contains('"'));
        if is_plain && file.bytes <= largest_bytes {
            let folder = file.path.parent().expect("a folder").to_owned();
            folders.entry(folder).or_default().push(file);
        }
    }
    let mut folders: Vec<_> = folders.into_values().collect();
    random.shuffle(&mut folders);
    folders.into_iter().flatten().collect()
}

/// Takes the first files that are meant off a list, which fill so many bytes of the disk, where there are as many.
/// A large one that would be too much stays.
fn take_files(
    files: &mut Vec<HostFile>,
    bytes: u64,
    is_meant: impl Fn(&HostFile) -> bool,
) -> Vec<HostFile> {
    let mut sum = 0;
    let is_taken = |file: &HostFile| {
        let room = file.bytes.next_multiple_of(PAGE as u64);
        let fits = sum < bytes && (room < MIB || sum + room <= bytes);
        let is_taken = fits && is_meant(file);
        sum += if is_taken { room } else { 0 };
        is_taken
    };
    let (taken, left) = take(files).into_iter().partition(is_taken);
    *files = left;
    taken
}

fn database(bytes: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(3);
    (0..bytes / PAGE as u64)
        .flat_map(|number| database_page(&mut random, number))
        .collect()
}

/// Half of it noise.
fn database_page(random: &mut Rng, number: u64) -> Vec<u8> {
    let mut page = vec![0; 1800];
    random.fill(&mut page);
    while page.len() < PAGE {
        write!(page, "row{number:08}|").expect("memory");
    }
    page.truncate(PAGE);
    page
}

fn log(random: &mut Rng, bytes: u64) -> Vec<u8> {
    let mut text = Vec::new();
    while (text.len() as u64) < bytes {
        let (number, word) = (random.u32(..), random.u16(0..500));
        writeln!(text, "daemon[{word}]: request {number:08x} took {word} us").expect("memory");
    }
    text
}

/// Those of the first inodes; the others follow.
fn first_block_of_inodes(raw: &Path) -> u64 {
    let said = String::from_utf8(debugfs(raw, "imap <1>")).expect("text");
    let number = said.split("located at block ").nth(1);
    let number = number.and_then(|said| said.split(',').next());
    number
        .and_then(|number| number.parse().ok())
        .expect("the number of a block")
}

fn read_block(raw: &mut File, number: u64) -> [u8; PAGE] {
    let mut block = [0; PAGE];
    raw.seek(SeekFrom::Start(number * PAGE as u64))
        .and_then(|_| raw.read_exact(&mut block))
        .expect("a block");
    block
}

fn write_block(raw: &mut File, number: u64, block: &[u8]) {
    raw.seek(SeekFrom::Start(number * PAGE as u64))
        .and_then(|_| raw.write_all(block))
        .expect("a block");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MEBIBYTES: u64 = 1024;
    const PAGES_PER_CHUNK: usize = 128;
    const PAGES_PER_BLOCK: usize = 256;

    /// By the page.
    struct Changes {
        /// In blocks of an image that were empty before.
        appended: Vec<usize>,
        in_place: Vec<usize>,
    }

    impl Changes {
        fn between(before: &Path, after: &Path) -> Self {
            let [mut before, mut after] = [before, after].map(|raw| File::open(raw).expect("raw"));
            let (mut appended, mut in_place) = (Vec::new(), Vec::new());
            let mut old = vec![0; PAGES_PER_BLOCK * PAGE];
            let mut new = old.clone();
            for first in (0..).step_by(PAGES_PER_BLOCK).take(MEBIBYTES as usize) {
                before.read_exact(&mut old).expect("a block");
                after.read_exact(&mut new).expect("a block");
                let is_empty = old.iter().all(|byte| *byte == 0);
                let pages = old.chunks(PAGE).zip(new.chunks(PAGE)).enumerate();
                let changed = pages.filter(|(_, (old, new))| old != new);
                let changed = changed.map(|(number, _)| first + number);
                if is_empty {
                    &mut appended
                } else {
                    &mut in_place
                }
                .extend(changed);
            }
            Self { appended, in_place }
        }

        /// Of 512 KiB.
        fn chunks(&self) -> usize {
            let pages = self.appended.iter().chain(&self.in_place);
            let chunks: BTreeSet<_> = pages.map(|page| page / PAGES_PER_CHUNK).collect();
            chunks.len()
        }
    }

    /// A day on a disk of 20 GiB that Linux had mounted were 221 MiB in new blocks and 113 MiB in others, in 1,201
    /// chunks, 71 pages in each. Folders weigh more on a disk as small as this one.
    #[test]
    fn a_change_is_as_large_as_one_of_a_mounted_filesystem_and_lies_together() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let before = folder.path().join("before.raw");
        let mut guest = GuestFiles::new(folder.path(), MEBIBYTES);
        fs::copy(guest.raw(), &before).expect("room for a copy");
        guest.change(1);
        let changes = Changes::between(&before, guest.raw());
        let [appended, in_place] = [&changes.appended, &changes.in_place].map(Vec::len);
        let mebibytes = |pages| (pages * PAGE) as u64 / MIB * FULL_DISK / MEBIBYTES;
        let pages_per_chunk = (appended + in_place) / changes.chunks();
        let (appended, in_place) = (mebibytes(appended), mebibytes(in_place));
        assert!((150..300).contains(&appended), "{appended} MiB");
        assert!((75..180).contains(&in_place), "{in_place} MiB");
        assert!(pages_per_chunk >= 40, "{pages_per_chunk} pages");
        let checked = Command::new("/sbin/e2fsck")
            .arg("-fn")
            .arg(guest.raw())
            .output();
        let checked = checked.expect("e2fsprogs is installed");
        assert!(checked.status.success(), "{checked:?}");
    }
}
