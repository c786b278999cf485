//! A machine that goes from one state to the next where it is, as its guest and VirtualBox change it: what did
//! not change stays the same data on the disk.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use walkdir::DirEntry;

use crate::files::files_below;
use crate::programs::Place;
use crate::race::RACY;
use crate::scene::CHUNK_BYTES;
use crate::states::{States, copy};

const PAGE: usize = 4096;

/// See the module.
pub(crate) struct LiveMachine<'a> {
    states: &'a States,
    folder: PathBuf,
    settings: PathBuf,
}

impl<'a> LiveMachine<'a> {
    /// In state 0, in a new folder in `parent`.
    pub(crate) fn new(states: &'a States, parent: &Path) -> Self {
        let folder = parent.join("bench");
        copy(&states.path(0), &folder);
        sleep(RACY);
        let settings = states.settings();
        Self {
            states,
            settings: folder.join(settings.file_name().expect("a file")),
            folder,
        }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            folder: &self.folder,
            settings: &self.settings,
        }
    }

    /// Whoever restores it finds nothing there.
    pub(crate) fn remove(&self) {
        fs::remove_dir_all(&self.folder).expect("the machine's folder");
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.at_home(1, &self.states.image(1))
    }

    /// The place of what is in the folder of a state.
    fn at_home(&self, state: u8, path: &Path) -> PathBuf {
        let within = path.strip_prefix(self.states.path(state));
        self.folder.join(within.expect("a file of the state"))
    }

    /// Goes to state 1. Returns how much has to be read to know it, for one who knows what changed: chunks of the
    /// disk, and all other files.
    pub(crate) fn advance(&self) -> u64 {
        let mut bytes = write_changed_pages(&self.states.image(1), &self.image());
        for file in self.other_files(0) {
            fs::remove_file(self.at_home(0, &file)).expect("a file of the machine");
        }
        for file in self.other_files(1) {
            bytes += fs::copy(&file, self.at_home(1, &file)).expect("room for a file");
        }
        self.states.require(1, &self.image());
        sleep(RACY);
        bytes
    }

    /// Those of a state but the image.
    fn other_files(&self, state: u8) -> Vec<PathBuf> {
        let files = files_below(&self.states.path(state)).map(DirEntry::into_path);
        let image = self.states.image(state);
        files.filter(|file| *file != image).collect()
    }
}

/// Writes the pages in which one image is not as another to the latter. Returns the size of the chunks that
/// they are in.
fn write_changed_pages(from: &Path, to: &Path) -> u64 {
    let mut from = File::open(from).expect("an image");
    let mut to = File::options()
        .read(true)
        .write(true)
        .open(to)
        .expect("a writable image");
    let length = from.metadata().expect("an image").len();
    let mut bytes = 0;
    for start in (0..length).step_by(CHUNK_BYTES as usize) {
        let [new, old] = [&mut from, &mut to].map(|image| chunk(image, start));
        if new == old {
            continue;
        }
        bytes += CHUNK_BYTES;
        for (at, page) in (0..).step_by(PAGE).zip(new.chunks(PAGE)) {
            if old.get(at..at + page.len()) != Some(page) {
                to.seek(SeekFrom::Start(start + at as u64))
                    .and_then(|_| to.write_all(page))
                    .expect("room for a page");
            }
        }
    }
    bytes
}

/// Less at the end of the image, and nothing behind it.
fn chunk(image: &mut File, start: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize);
    image
        .seek(SeekFrom::Start(start))
        .and_then(|_| image.take(CHUNK_BYTES).read_to_end(&mut bytes))
        .expect("a chunk of the image");
    bytes
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeMap;

    use blake3::Hash;

    use super::*;
    use crate::files::bytes_below;
    use crate::states::Size;

    #[test]
    fn a_machine_goes_from_one_state_to_the_next_also_when_it_is_off() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = Size {
            disk_mebibytes: 64,
            memory_mebibytes: 4,
        };
        let mut states = States::make(folder.path(), size);
        goes_to_the_next(&states);
        states.power_off();
        goes_to_the_next(&states);
    }

    fn goes_to_the_next(states: &States) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let machine = LiveMachine::new(states, parent.path());
        let changed_bytes = machine.advance();
        assert!((CHUNK_BYTES..bytes_below(&machine.folder)).contains(&changed_bytes));
        assert_eq!(contents(&machine.folder), contents(&states.path(1)));
    }

    fn contents(folder: &Path) -> BTreeMap<PathBuf, Hash> {
        let contents = files_below(folder).map(|file| {
            let within = file.path().strip_prefix(folder).expect("a file in it");
            let content = fs::read(file.path()).expect("a file");
            (within.to_owned(), blake3::hash(&content))
        });
        contents.collect()
    }
}
