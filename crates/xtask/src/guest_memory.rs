//! The memory of a guest as a saved state holds it: pages, compressed one by one, zero pages as a mark.
//!
//! Half of the pages are of files of this computer, a quarter is like a program's heap, a quarter is zero, in
//! runs of 16 to 511 pages. From one state to the next a fifth of the pages is written, most of them with
//! heap, in short runs and some long ones; and what lies behind a page whose compressed length changed is
//! shifted. The same on every run on the same computer. How real ones behave: `cargo xtask saved-states`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use fastrand::Rng;
use lz4_flex::block::{compress_into, get_maximum_output_size};

use crate::host_files::{HostFile, host_files};

const PAGE: usize = 4096;
const PAGES_PER_MEBIBYTE: u64 = 256;
/// Where files are taken from.
const SOURCE: &str = "/usr/lib";
const SMALLEST_FILE: u64 = 16 << 10;
const ZERO: u8 = 1;
const RAW: u8 = 2;
const COMPRESSED: u8 = 0x82;
/// Of a page that is compressed; what would take more is stored as it is.
const MOST_COMPRESSED: usize = 4000;
const RUNS: Range<usize> = 16..512;
const SHORT_RUNS: Range<usize> = 1..64;
/// One run in ten that changes.
const LONG_RUNS: Range<usize> = 256..2048;
/// How many runs of each kind there are.
const KINDS: &[(Kind, usize)] = &[(Kind::Zero, 1), (Kind::OfFile, 2), (Kind::Heap, 1)];
const WRITTEN_KINDS: &[(Kind, usize)] = &[(Kind::Zero, 1), (Kind::OfFile, 3), (Kind::Heap, 6)];

/// See the module.
pub(crate) struct GuestMemory {
    files: Vec<HostFile>,
    pages: Vec<Page>,
    changes: u64,
}

/// Where the contents of a page come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Zero,
    /// Of a file, by its place in the list of files.
    OfFile {
        file: u32,
        number: u32,
    },
    /// By its seed.
    Heap(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zero,
    OfFile,
    Heap,
}

/// What the next runs of pages are filled with.
struct Runs<'a> {
    file_pages: FilePages<'a>,
    kinds: &'static [(Kind, usize)],
    /// In random order. All of them come before any comes again, so that a small memory is as a large one.
    next: Vec<Kind>,
}

/// Pages of the files one after another, of the files in some order, again and again.
struct FilePages<'a> {
    files: &'a [HostFile],
    order: Vec<u32>,
    at: usize,
    number: u32,
}

impl GuestMemory {
    pub(crate) fn new(mebibytes: u64) -> Self {
        let files = host_files(Path::new(SOURCE)).filter(|file| file.bytes > SMALLEST_FILE);
        let files: Vec<_> = files.collect();
        let count = usize::try_from(mebibytes * PAGES_PER_MEBIBYTE).expect("an address");
        let mut pages = vec![Page::Zero; count];
        let mut random = Rng::with_seed(0);
        let mut runs = Runs::new(&files, KINDS, &mut random);
        let mut rest = pages.as_mut_slice();
        while !rest.is_empty() {
            let (run, behind) = rest.split_at_mut(random.usize(RUNS).min(rest.len()));
            runs.fill(run, &mut random);
            rest = behind;
        }
        Self {
            files,
            pages,
            changes: 0,
        }
    }

    /// The guest writes a fifth of its memory, some pages of it more than once.
    pub(crate) fn change(&mut self) {
        self.changes += 1;
        let mut random = Rng::with_seed(self.changes);
        let mut runs = Runs::new(&self.files, WRITTEN_KINDS, &mut random);
        let mut left = self.pages.len() / 5;
        while left > 0 {
            let is_long = random.u8(0..10) == 0;
            let run = random.usize(if is_long { LONG_RUNS } else { SHORT_RUNS });
            let start = random.usize(0..self.pages.len());
            let end = (start + run.min(left)).min(self.pages.len());
            runs.fill(&mut self.pages[start..end], &mut random);
            left -= end - start;
        }
    }

    /// The pages as a saved state has them.
    pub(crate) fn pages(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut contents = Contents::of(&self.files);
        let mut compressed = vec![0; get_maximum_output_size(PAGE)];
        self.pages.iter().map(move |page| {
            if *page == Page::Zero {
                return vec![ZERO];
            }
            let bytes = contents.of_page(*page);
            let length = compress_into(bytes, &mut compressed).expect("room for a page");
            if length < MOST_COMPRESSED {
                let [low, high, ..] = length.to_le_bytes();
                [&[COMPRESSED, low, high], &compressed[..length]].concat()
            } else {
                [&[RAW], bytes].concat()
            }
        })
    }
}

impl<'a> Runs<'a> {
    fn new(files: &'a [HostFile], kinds: &'static [(Kind, usize)], random: &mut Rng) -> Self {
        Self {
            file_pages: FilePages::new(files, random),
            kinds,
            next: Vec::new(),
        }
    }

    fn fill(&mut self, run: &mut [Page], random: &mut Rng) {
        let kind = self.next_kind(random);
        for page in run {
            *page = match kind {
                Kind::Zero => Page::Zero,
                Kind::OfFile => self.file_pages.next(),
                Kind::Heap => Page::Heap(random.u64(..)),
            };
        }
    }

    fn next_kind(&mut self, random: &mut Rng) -> Kind {
        if self.next.is_empty() {
            let kinds = self.kinds.iter();
            self.next = kinds
                .flat_map(|(kind, count)| vec![*kind; *count])
                .collect();
            random.shuffle(&mut self.next);
        }
        self.next.pop().expect("at least one kind")
    }
}

impl<'a> FilePages<'a> {
    fn new(files: &'a [HostFile], random: &mut Rng) -> Self {
        let mut order: Vec<_> = (0..).take(files.len()).collect();
        random.shuffle(&mut order);
        Self {
            files,
            order,
            at: 0,
            number: 0,
        }
    }

    fn next(&mut self) -> Page {
        let file = self.order[self.at];
        let page = Page::OfFile {
            file,
            number: self.number,
        };
        self.number += 1;
        if u64::from(self.number + 1) * PAGE as u64 > self.files[file as usize].bytes {
            self.at = (self.at + 1) % self.order.len();
            self.number = 0;
        }
        page
    }
}

/// Makes the contents of pages, with the last file still open.
struct Contents<'a> {
    files: &'a [HostFile],
    open: Option<(u32, File)>,
    page: [u8; PAGE],
}

impl<'a> Contents<'a> {
    const fn of(files: &'a [HostFile]) -> Self {
        Self {
            files,
            open: None,
            page: [0; PAGE],
        }
    }

    fn of_page(&mut self, page: Page) -> &[u8] {
        match page {
            Page::Zero => self.page.fill(0),
            Page::OfFile { file, number } => self.read(file, number),
            Page::Heap(seed) => self.make_heap(seed),
        }
        &self.page
    }

    fn read(&mut self, number: u32, page: u32) {
        let is_open = |open: &(u32, File)| open.0 == number;
        let (_, file) = match self.open.take().filter(is_open) {
            Some(open) => self.open.insert(open),
            None => {
                let file = File::open(&self.files[number as usize].path);
                self.open.insert((number, file.expect("a readable file")))
            }
        };
        file.seek(SeekFrom::Start(u64::from(page) * PAGE as u64))
            .and_then(|_| file.read_exact(&mut self.page))
            .expect("a file that stays as it is");
    }

    /// Pointers into some part of it, small numbers, zeros, a little noise.
    fn make_heap(&mut self, seed: u64) {
        let mut random = Rng::with_seed(seed);
        let base = 0x7f00_0000_0000 + random.u64(0..1 << 30) * 16;
        for word in self.page.as_chunks_mut().0 {
            let value = match random.u8(0..100) {
                0..35 => base + random.u64(0..1 << 16) * 16,
                35..60 => random.u64(0..1000),
                60..70 => random.u64(..),
                _ => 0,
            };
            *word = value.to_le_bytes();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const MEBIBYTES: u64 = 64;

    #[test]
    fn pages_take_as_much_room_as_those_of_real_guests() {
        let memory = GuestMemory::new(MEBIBYTES);
        let bytes: usize = memory.pages().map(|page| page.len()).sum();
        let part = bytes as f64 / (MEBIBYTES << 20) as f64;
        assert!((0.36..0.54).contains(&part), "{part} of the memory");
    }

    #[test]
    fn a_fifth_is_written_and_some_of_that_again() {
        let before = GuestMemory::new(MEBIBYTES);
        let mut after = GuestMemory::new(MEBIBYTES);
        assert_eq!(before.pages, after.pages);
        after.change();
        let pages = before.pages.iter().zip(&after.pages);
        let changed = pages.filter(|(one, other)| one != other).count();
        let part = changed as f64 / before.pages.len() as f64;
        assert!((0.15..=0.20).contains(&part), "{part} of the pages");
    }
}
