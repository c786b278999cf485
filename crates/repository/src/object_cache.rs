//! Copies of a repository's index files and snapshots on this host, so that each travels once and a thousand of
//! them are one file to open.
//!
//! One file for each kind, in which sealed objects lie one after the other as they are in the repository,
//! each behind its id and its length. An object's name is the hash of its content, so a copy is never out of
//! date, and whoever reads one verifies it as if it came from the storage. What exists is always asked of the
//! storage itself; copies of what is not there any more go when that is seen. A copy that is missing or
//! damaged costs its transfer again, and nothing else. Several processes may use the files: each appends
//! whole records, and one that writes a file anew puts it in place at once; what another appended meanwhile
//! is lost. Memory: some 60 bytes a copy.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustic_core::{FileType, Id};
use tempfile::NamedTempFile;

use crate::id::ChunkId;
use crate::parallel::lock;
use crate::platform;

const ID_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 8;
/// Before each copy: its id, its length, and a checksum of both.
const HEAD_BYTES: usize = ID_BYTES + LENGTH_BYTES + CHECK_BYTES;

/// The copies of one repository.
pub(crate) struct ObjectCache {
    folder: PathBuf,
    index: Mutex<Bundle>,
    snapshots: Mutex<Bundle>,
}

impl ObjectCache {
    /// In a folder that may not exist yet.
    pub(crate) fn new(folder: &Path) -> Self {
        let bundle = |name: &str| {
            Mutex::new(Bundle {
                path: folder.join(name),
                state: None,
            })
        };
        Self {
            folder: folder.to_owned(),
            index: bundle("index.copies"),
            snapshots: bundle("snapshots.copies"),
        }
    }

    /// The sealed content, to be verified.
    pub(crate) fn get(&self, kind: FileType, id: Id) -> Option<Vec<u8>> {
        let (file, place) = lock(self.of(kind)?).find(&id)?;
        place.read(&file).ok()
    }

    /// Keeps a copy of a verified object.
    pub(crate) fn put(&self, kind: FileType, id: Id, sealed: &[u8]) {
        if let Some(bundle) = self.of(kind) {
            // Who cannot keep a copy fetches the object again.
            let _ = lock(bundle).append(id, sealed);
        }
    }

    /// Removes the copies of objects that are no longer there.
    pub(crate) fn retain(&self, kind: FileType, is_there: impl Fn(&Id) -> bool) {
        if let Some(bundle) = self.of(kind) {
            // What stays takes room until the next time.
            let _ = lock(bundle).retain(is_there);
        }
    }

    /// The file for what was gathered of objects of a kind.
    pub(crate) fn gathered_path(&self, kind: FileType) -> Option<PathBuf> {
        let name = match kind {
            FileType::Index => "index.gathered",
            FileType::Snapshot => "snapshots.gathered",
            FileType::Config | FileType::Key | FileType::Pack => return None,
        };
        Some(self.folder.join(name))
    }

    /// None for objects that are too large, secret or read only once.
    const fn of(&self, kind: FileType) -> Option<&Mutex<Bundle>> {
        match kind {
            FileType::Index => Some(&self.index),
            FileType::Snapshot => Some(&self.snapshots),
            FileType::Config | FileType::Key | FileType::Pack => None,
        }
    }
}

/// The copies of one kind, in one file.
struct Bundle {
    path: PathBuf,
    /// None before it was looked at.
    state: Option<State>,
}

#[derive(Default)]
struct State {
    /// None where there is none yet.
    file: Option<Arc<File>>,
    places: HashMap<Id, Place>,
    /// Whether there is anything but these copies in it.
    has_other: bool,
}

/// Where a copy lies.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length_bytes: u32,
}

impl Place {
    fn read(self, file: &File) -> io::Result<Vec<u8>> {
        let mut sealed = vec![0; self.length_bytes as usize];
        let read = platform::read_full_at(file, &mut sealed, self.offset)?;
        sealed.truncate(read);
        Ok(sealed)
    }
}

impl Bundle {
    fn find(&mut self, id: &Id) -> Option<(Arc<File>, Place)> {
        let state = self.state();
        let place = state.places.get(id)?;
        Some((Arc::clone(state.file.as_ref()?), *place))
    }

    fn state(&mut self) -> &mut State {
        let path = &self.path;
        self.state
            .get_or_insert_with(|| State::read(path).unwrap_or_default())
    }

    fn append(&mut self, id: Id, sealed: &[u8]) -> io::Result<()> {
        let path = self.path.clone();
        let state = self.state();
        let file = match &state.file {
            Some(file) => file,
            None => state.file.insert(Arc::new(create(&path)?)),
        };
        let record = record(id, sealed)?;
        // At once, so that two processes do not write into each other's record.
        let mut end = &**file;
        end.write_all(&record)?;
        let offset = end.stream_position()?.saturating_sub(sealed.len() as u64);
        let place = Place {
            offset,
            length_bytes: length_of(sealed)?,
        };
        state.has_other |= state.places.insert(id, place).is_some();
        Ok(())
    }

    fn retain(&mut self, is_there: impl Fn(&Id) -> bool) -> io::Result<()> {
        let path = self.path.clone();
        let state = self.state();
        let has_gone = !state.places.keys().all(&is_there);
        let Some(file) = state.file.clone().filter(|_| has_gone || state.has_other) else {
            return Ok(());
        };
        state.places.retain(|id, _| is_there(id));
        let mut stay: Vec<(&Id, &Place)> = state.places.iter().collect();
        stay.sort_unstable_by_key(|(_, place)| place.offset);
        let mut records = stay
            .into_iter()
            .map(|(id, place)| record(*id, &place.read(&file)?));
        replace(&path, |writer| {
            records.try_for_each(|record| writer.write_all(&record?))
        })?;
        *state = State::read(&path)?;
        Ok(())
    }
}

impl State {
    /// What is in a file, as far as it can be understood.
    fn read(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let length_bytes = file.metadata()?.len();
        let mut state = Self::default();
        let mut source = BufReader::with_capacity(64 << 10, &file);
        let mut offset: u64 = 0;
        while offset < length_bytes {
            let Some((id, place)) =
                next(&mut source, offset)?.filter(|(_, place)| place.end() <= length_bytes)
            else {
                state.has_other = true;
                break;
            };
            // Of two copies the later one was made because the first is damaged, or by two processes.
            state.has_other |= state.places.insert(id, place).is_some();
            source.seek_relative(place.length_bytes.into())?;
            offset = place.end();
        }
        drop(source);
        state.file = Some(Arc::new(file));
        Ok(state)
    }
}

impl Place {
    fn end(self) -> u64 {
        self.offset.saturating_add(self.length_bytes.into())
    }
}

/// The copy whose head begins at an offset; none where there is no head.
fn next(source: &mut impl Read, offset: u64) -> io::Result<Option<(Id, Place)>> {
    let mut bytes = [0; HEAD_BYTES];
    match source.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let Some((id, rest)) = bytes.split_first_chunk::<ID_BYTES>() else {
        return Ok(None);
    };
    let Some(length) = rest.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let (id, length_bytes) = (Id::new(*id), u32::from_le_bytes(*length));
    let place = Place {
        offset: offset.saturating_add(HEAD_BYTES as u64),
        length_bytes,
    };
    Ok((head(id, length_bytes) == bytes).then_some((id, place)))
}

fn head(id: Id, length_bytes: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    // Whatever it names: `rustic_core` does not give the bytes away.
    let id = ChunkId::from(id);
    let length = length_bytes.to_le_bytes();
    let said = id.as_bytes().iter().chain(&length);
    head.iter_mut().zip(said).for_each(|(to, from)| *to = *from);
    let (said, check) = head.split_at_mut(ID_BYTES + LENGTH_BYTES);
    let sum = blake3::hash(said);
    check
        .iter_mut()
        .zip(sum.as_bytes())
        .for_each(|(to, from)| *to = *from);
    head
}

fn record(id: Id, sealed: &[u8]) -> io::Result<Vec<u8>> {
    Ok([&head(id, length_of(sealed)?), sealed].concat())
}

fn length_of(sealed: &[u8]) -> io::Result<u32> {
    u32::try_from(sealed.len()).map_err(io::Error::other)
}

/// Puts a file that nobody else can read in the place of another one, at once. Not synced.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<NamedTempFile>) -> io::Result<()>,
) -> io::Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)?;
    let mut writer = BufWriter::new(NamedTempFile::new_in(folder)?);
    write(&mut writer)?;
    let new = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Makes an empty file that nobody else can read, unless somebody did so at the same moment.
fn create(path: &Path) -> io::Result<File> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)?;
    match NamedTempFile::new_in(folder)?.persist_noclobber(path) {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        made => drop(made.map_err(|error| error.error)?),
    }
    OpenOptions::new().read(true).append(true).open(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    const KIND: FileType = FileType::Snapshot;

    fn id(number: u32) -> Id {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Id::new(bytes)
    }

    fn content(number: u32) -> Vec<u8> {
        number.to_le_bytes().repeat(1 + number as usize % 300)
    }

    fn filled(folder: &Path, numbers: std::ops::Range<u32>) -> ObjectCache {
        let cache = ObjectCache::new(folder);
        numbers.for_each(|number| cache.put(KIND, id(number), &content(number)));
        cache
    }

    fn present(folder: &Path, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let cache = ObjectCache::new(folder);
        let is_there = |number: &u32| {
            let copy = cache.get(KIND, id(*number));
            copy.is_some_and(|copy| copy == content(*number))
        };
        numbers.filter(is_there).collect()
    }

    fn size_bytes(folder: &Path) -> u64 {
        let file = folder.join("snapshots.copies");
        std::fs::metadata(file).unwrap().len()
    }

    #[test]
    fn what_was_put_is_there_for_this_process_and_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let cache = filled(&folder, 0..1000);
        assert_eq!(cache.get(KIND, id(999)).unwrap(), content(999));
        assert!(cache.get(FileType::Index, id(999)).is_none());
        assert_eq!(present(&folder, 0..1001), (0..1000).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let cache = filled(folder.path(), 0..2);
        let mode = || {
            let file = folder.path().join("snapshots.copies");
            std::fs::metadata(file).unwrap().mode() & 0o777
        };
        assert_eq!(mode(), 0o600);
        cache.retain(KIND, |present| *present == id(1));
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn what_is_gone_goes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = filled(folder.path(), 0..100);
        let all_bytes = size_bytes(folder.path());
        cache.retain(KIND, |_| true);
        assert_eq!(size_bytes(folder.path()), all_bytes);
        cache.retain(KIND, |present| *present != id(7));
        let record_bytes = HEAD_BYTES + content(7).len();
        assert_eq!(size_bytes(folder.path()), all_bytes - record_bytes as u64);
        assert!(cache.get(KIND, id(7)).is_none());
        assert_eq!(cache.get(KIND, id(8)).unwrap(), content(8));
        cache.put(KIND, id(7), &content(7));
        assert_eq!(present(folder.path(), 0..100).len(), 100);
        cache.retain(KIND, |_| false);
        assert_eq!(size_bytes(folder.path()), 0);
    }

    #[test]
    fn whatever_is_cut_or_changed_costs_copies_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshots.copies");
        filled(folder.path(), 0..20);
        let sound = std::fs::read(&path).unwrap();
        let damaged = (0..sound.len()).flat_map(|at| {
            let mut changed = sound.clone();
            changed[at] ^= 0x40;
            [changed, sound[..at].to_vec()]
        });
        for bytes in damaged.step_by(3) {
            std::fs::write(&path, &bytes).unwrap();
            let cache = ObjectCache::new(folder.path());
            // Who reads one that does not match its name puts it anew.
            for number in 0..20 {
                if cache.get(KIND, id(number)) != Some(content(number)) {
                    cache.put(KIND, id(number), &content(number));
                }
                assert_eq!(cache.get(KIND, id(number)).unwrap(), content(number));
            }
            let next = ObjectCache::new(folder.path());
            next.retain(KIND, |_| true);
            for number in 0..20 {
                if next.get(KIND, id(number)) != Some(content(number)) {
                    next.put(KIND, id(number), &content(number));
                }
            }
            assert_eq!(present(folder.path(), 0..20).len(), 20);
            // A head may have been cut from its copy, and what was appended taken for that.
            ObjectCache::new(folder.path()).retain(KIND, |_| true);
            assert_eq!(present(folder.path(), 0..20).len(), 20);
            assert_eq!(size_bytes(folder.path()), sound.len() as u64);
        }
    }

    #[test]
    fn several_may_write_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        // As processes do: each with a file of its own.
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let folder = folder.path();
                scope.spawn(move || filled(folder, writer * 250..(writer + 1) * 250));
            }
        });
        assert_eq!(present(folder.path(), 0..1000).len(), 1000);

        // One that writes the file anew costs others what they append to the old one, and no more.
        let other = filled(folder.path(), 0..1);
        filled(folder.path(), 0..0).retain(KIND, |present| *present != id(5));
        other.put(KIND, id(2000), &content(2000));
        assert_eq!(other.get(KIND, id(2000)).unwrap(), content(2000));
        let stayed = present(folder.path(), 0..2001);
        assert_eq!(stayed, (0..1000).filter(|n| *n != 5).collect::<Vec<_>>());
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_no_more_than_the_copies() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let cache = filled(&file, 0..3);
        assert!(cache.get(KIND, id(1)).is_none());
        cache.retain(KIND, |_| false);
    }
}
