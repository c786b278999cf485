//! What the chunks of a local file were when they were last stored, so that the next scan need not
//! hash all of them with SHA-256 again.
//!
//! For each chunk there is a keyed BLAKE3 of its bytes beside its id in the repository.
//! That pair is true whatever happens to file or repository; where a chunk lies is only where it is
//! looked for. A chunk that is found again costs one BLAKE3 instead of a SHA-256, a fourth or fifth of
//! the time. Chunks on a grid are looked for where they lay. Those of a saved state are looked for by
//! their bytes ([`SeenChunks`]): it has another name each time, and they move inside of it.
//!
//! Guarantees: an entry is used only if its block's checksum, keyed by the repository, is right, and
//! only if the bytes that were just read have the BLAKE3 in it. One in 256 of those used is hashed with
//! SHA-256 all the same, and a contradiction ends the use of the file ([`ScanCache::is_wrong`]). A
//! cache that is missing, damaged or of another repository costs time and nothing else. Memory does not
//! grow with an image; some 44 bytes for each chunk of a saved state. The least used caches are
//! removed by the next one that is written ([`MOST`]).

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use secrecy::zeroize::Zeroize;
use tempfile::NamedTempFile;
use vrs_progress::Progress;

use crate::chunking::{Cutter, SeenHash, WHOLE_BYTES};
use crate::id::ChunkId;
use crate::index::Index;
use crate::least_used::{Most, mark_used, remove_unused};
use crate::platform;
use crate::repository::ResticRepository;
use crate::seen_chunks::{Recalled, SeenChunks};

/// A smaller file is hashed before its cache is read.
const SMALLEST_FILE_BYTES: u64 = 4 * WHOLE_BYTES;

/// Of one repository: images of eight terabytes in chunks of 512 KiB.
const MOST: Most = Most {
    files: usize::MAX,
    bytes: 1 << 30,
};

const MAGIC: &[u8; 16] = b"vrs scan cache 1";
const HEADER_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const ENTRY_BYTES: usize = 2 * HASH_BYTES;
const BLOCK_ENTRIES: usize = 64;
const BLOCK_BYTES: usize = BLOCK_ENTRIES * ENTRY_BYTES + HASH_BYTES;

/// The key of all BLAKE3 hashes of one repository. A hash tells nothing to who does not have it.
pub(crate) struct ScanKey([u8; 32]);

impl ScanKey {
    /// From the secret that all data is encrypted with.
    pub(crate) fn derived_from(master: &[u8]) -> Self {
        Self(blake3::derive_key("vrs 2026 scan cache", master))
    }

    pub(crate) fn hash(&self, bytes: &[u8]) -> SeenHash {
        blake3::keyed_hash(&self.0, bytes).into()
    }

    /// The file that belongs to a local image.
    fn path(&self, folder: &Path, image: &Path) -> PathBuf {
        let name = self.hash(image.as_os_str().as_encoded_bytes());
        folder.join(const_hex::encode(name.get(..16).unwrap_or_default()))
    }
}

impl Drop for ScanKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What is known about the bytes of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Keyed BLAKE3.
    pub(crate) seen: SeenHash,
    pub(crate) chunk: ChunkId,
}

impl Entry {
    /// Whether these are the bytes that were stored under this id.
    pub(crate) fn is_of(&self, seen: &SeenHash) -> bool {
        self.seen == *seen
    }

    /// One in 256 is looked at twice.
    const fn is_sample(&self) -> bool {
        self.seen[0] == 0
    }
}

/// The entries of one file, from its last scan.
pub(crate) struct ScanCache<'a> {
    key: &'a ScanKey,
    folder: PathBuf,
    image: &'a Path,
    cutter: Cutter,
    header: [u8; HEADER_BYTES],
    file: Option<File>,
    /// All entries by the bytes, where they are looked for by them.
    by_bytes: OnceLock<SeenChunks>,
    wrong: AtomicBool,
}

impl<'a> ScanCache<'a> {
    /// The cache of a file that is cut in this way. Nothing is known if that was another way the last
    /// time.
    pub(crate) fn of(key: &'a ScanKey, folder: PathBuf, image: &'a Path, cutter: Cutter) -> Self {
        let header = header_of(cutter);
        let image = match cutter {
            Cutter::Grid(_) => image,
            // All saved states of a machine lie in one folder.
            Cutter::Content(_) => image.parent().unwrap_or(image),
        };
        let file = File::open(key.path(&folder, image)).ok().filter(|file| {
            let mut present = [0; HEADER_BYTES];
            let read = platform::read_full_at(file, &mut present, 0);
            read.is_ok() && present == header
        });
        if let Some(file) = &file {
            mark_used(file);
        }
        Self {
            key,
            folder,
            image,
            cutter,
            header,
            file,
            by_bytes: OnceLock::new(),
            wrong: AtomicBool::new(false),
        }
    }

    /// The cache of a file that begins and is cut as `cutter` says, if that is worth it.
    pub(crate) fn for_file(
        repository: &'a ResticRepository,
        image: &'a Path,
        cutter: Cutter,
        size_bytes: u64,
    ) -> Option<Self> {
        let folder = repository.scan_folder()?;
        let is_worth_it = size_bytes >= SMALLEST_FILE_BYTES;
        is_worth_it.then(|| Self::of(&repository.key.scan, folder, image, cutter))
    }

    /// The id of a chunk that these bytes were when they were last seen, if they are where it is looked for.
    pub(crate) fn recognise(
        &self,
        index: &Index,
        place: &Range<u64>,
        raw: &[u8],
        seen: Option<SeenHash>,
        hash: impl Fn() -> ChunkId,
    ) -> Option<ChunkId> {
        // Before anything is hashed.
        self.file.as_ref()?;
        let seen = || seen.unwrap_or_else(|| self.seen(raw));
        let entry = match self.cutter {
            Cutter::Grid(grid) => {
                let on_grid = grid.chunks(place.start..u64::MAX).next();
                on_grid.filter(|chunk| chunk == place)?;
                let entry = self.entries(grid.number_at(place.start), 1).pop();
                let entry = entry.flatten()?;
                entry.is_of(&seen()).then_some(entry)?
            }
            Cutter::Content(_) => self.of_bytes(index, &seen())?,
        };
        self.proven(entry, hash)
    }

    /// What is known about the bytes with this BLAKE3, if the index has their chunk. It must be the same
    /// index each time.
    pub(crate) fn of_bytes(&self, index: &Index, seen: &SeenHash) -> Option<Entry> {
        let (chunk, _) = index.chunk(self.by_bytes(index).get(seen)?)?;
        let seen = *seen;
        Some(Entry { seen, chunk })
    }

    /// For cutting what replaced the file. None when nothing is known.
    pub(crate) fn recall<'b>(&'b self, index: &'b Index) -> Option<Recalled<'b>> {
        let chunks = self.by_bytes(index);
        let recalled = Recalled {
            chunks,
            index,
            key: self.key,
            found: None,
        };
        (!chunks.is_empty()).then_some(recalled)
    }

    fn by_bytes(&self, index: &Index) -> &SeenChunks {
        self.by_bytes.get_or_init(|| self.all(index))
    }

    fn all(&self, index: &Index) -> SeenChunks {
        let mut seen = SeenChunks::default();
        let length = self.file.as_ref().and_then(|file| file.metadata().ok());
        let bytes = length.map_or(0, |metadata| metadata.len());
        let blocks = 0..bytes.div_ceil(BLOCK_BYTES as u64);
        for entry in blocks.map_while(|number| self.block(number)).flatten() {
            seen.add(index, entry.as_ref());
        }
        seen
    }

    /// The chunk of an entry that knew some bytes, unless it is one of those looked at twice and `hash`
    /// says otherwise.
    pub(crate) fn proven(&self, entry: Entry, hash: impl Fn() -> ChunkId) -> Option<ChunkId> {
        if entry.is_sample() && hash() != entry.chunk {
            self.wrong.store(true, Ordering::Release);
            return None;
        }
        Some(entry.chunk)
    }

    /// The BLAKE3 by which an entry knows some bytes.
    pub(crate) fn seen(&self, raw: &[u8]) -> SeenHash {
        self.key.hash(raw)
    }

    /// What is known about `count` chunks from the one with this number on.
    pub(crate) fn entries(&self, first: u64, count: usize) -> Vec<Option<Entry>> {
        let mut entries = Vec::with_capacity(count);
        let mut number = first;
        while entries.len() < count {
            let known = self.block(number.div_euclid(BLOCK_ENTRIES as u64));
            let within = number.rem_euclid(BLOCK_ENTRIES as u64);
            let rest = usize::try_from(within).unwrap_or(usize::MAX);
            let wanted = BLOCK_ENTRIES
                .saturating_sub(rest)
                .min(count.saturating_sub(entries.len()));
            let known = known
                .into_iter()
                .flatten()
                .skip(rest)
                .chain(std::iter::repeat(None));
            entries.extend(known.take(wanted));
            number = number.saturating_add(wanted as u64);
        }
        entries
    }

    /// None when the block is not there or not as it was written.
    fn block(&self, number: u64) -> Option<Vec<Option<Entry>>> {
        let file = self.file.as_ref()?;
        let offset = number
            .checked_mul(BLOCK_BYTES as u64)?
            .checked_add(HEADER_BYTES as u64)?;
        let mut block = vec![0; BLOCK_BYTES];
        let read = platform::read_full_at(file, &mut block, offset).ok()?;
        let (entries, checksum) = block.split_at_checked(BLOCK_BYTES.checked_sub(HASH_BYTES)?)?;
        let whole =
            read == BLOCK_BYTES && checksum == checksum_of(self.key, &self.header, number, entries);
        whole.then(|| entries.chunks_exact(ENTRY_BYTES).map(decoded).collect())
    }

    /// Whether an entry was disproved; nothing that this cache said counts then.
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Acquire)
    }

    /// What is to replace this cache.
    pub(crate) fn successor(&self) -> io::Result<ScanWriter<'_>> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(&self.header)?;
        Ok(ScanWriter {
            cache: self,
            file,
            block: Vec::with_capacity(BLOCK_BYTES),
            entries: 0,
            blocks: 0,
        })
    }

    /// Removes it, as something in it was wrong, and says so.
    pub(crate) fn remove(&self, progress: &dyn Progress) {
        progress.warn(&format!(
            "the scan cache of {} was wrong and is not used; the file is read again",
            self.image.display()
        ));
        // Whoever cannot remove it cannot replace it either, and finds it wrong again.
        let _ = std::fs::remove_file(self.key.path(&self.folder, self.image));
    }
}

/// The entries of the scan that is under way, in the order of the chunks.
pub(crate) struct ScanWriter<'a> {
    cache: &'a ScanCache<'a>,
    file: NamedTempFile,
    block: Vec<u8>,
    entries: u64,
    blocks: u64,
}

impl ScanWriter<'_> {
    /// The next chunk. None: nothing is known about it.
    pub(crate) fn push(&mut self, entry: Option<Entry>) -> io::Result<()> {
        let [seen, chunk] = entry.map_or([[0; HASH_BYTES]; 2], |entry| {
            [entry.seen, *entry.chunk.as_bytes()]
        });
        self.block.extend_from_slice(&seen);
        self.block.extend_from_slice(&chunk);
        self.entries = self.entries.saturating_add(1);
        if self.block.len() >= BLOCK_ENTRIES * ENTRY_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    /// The next chunks are what they were.
    pub(crate) fn keep(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let some = left.min(BLOCK_ENTRIES);
            for entry in self.cache.entries(self.entries, some) {
                self.push(entry)?;
            }
            left = left.saturating_sub(some);
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK_ENTRIES * ENTRY_BYTES, 0);
        let checksum = checksum_of(self.cache.key, &self.cache.header, self.blocks, &self.block);
        self.block.extend_from_slice(&checksum);
        self.file.write_all(&self.block)?;
        self.block.clear();
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    /// Puts the entries in the place of the earlier ones. Not synced: what a crash leaves of them fails
    /// its checksums.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let path = self.cache.key.path(&self.cache.folder, self.cache.image);
        self.file.persist(path).map_err(|error| error.error)?;
        remove_unused(&self.cache.folder, SystemTime::now(), MOST)
    }
}

/// Instead of the phase of a grid.
const BY_CONTENT: u64 = u64::MAX;

fn header_of(cutter: Cutter) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (chunk_bytes, phase_bytes) = match cutter {
        Cutter::Grid(grid) => (grid.chunk_bytes(), grid.phase_bytes()),
        Cutter::Content(content) => (content.average_bytes().into(), BY_CONTENT),
    };
    let parts = [
        &MAGIC[..],
        &chunk_bytes.to_le_bytes(),
        &phase_bytes.to_le_bytes(),
    ];
    for (place, byte) in header.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    header
}

fn checksum_of(key: &ScanKey, header: &[u8], block: u64, entries: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher
        .update(header)
        .update(&block.to_le_bytes())
        .update(entries);
    hasher.finalize().into()
}

fn decoded(bytes: &[u8]) -> Option<Entry> {
    let (seen, chunk) = bytes.split_at_checked(HASH_BYTES)?;
    let seen: [u8; 32] = seen.try_into().ok()?;
    let chunk = ChunkId::from_bytes(chunk.try_into().ok()?);
    (seen != [0; HASH_BYTES]).then_some(Entry { seen, chunk })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::least_used;
    use crate::store::Chunking;

    fn grid(chunk_bytes: u32) -> Cutter {
        let chunking = Chunking::Grid {
            chunk_bytes,
            phase_bytes: 100,
        };
        Cutter::new(chunking).unwrap()
    }

    fn cache<'a>(key: &'a ScanKey, folder: &Path, chunk_bytes: u32) -> ScanCache<'a> {
        ScanCache::of(
            key,
            folder.to_owned(),
            Path::new("disk.vdi"),
            grid(chunk_bytes),
        )
    }

    /// Every third chunk is not known.
    fn entry(number: u8) -> Option<Entry> {
        (!number.is_multiple_of(3)).then(|| Entry {
            seen: [number; 32],
            chunk: ChunkId::from_bytes([number; 32]),
        })
    }

    fn write(cache: &ScanCache<'_>, numbers: Range<u8>) {
        let mut writer = cache.successor().unwrap();
        numbers.for_each(|number| writer.push(entry(number)).unwrap());
        writer.finish().unwrap();
    }

    fn expected(numbers: Range<u8>) -> Vec<Option<Entry>> {
        numbers.map(entry).collect()
    }

    #[test]
    fn entries_are_found_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let key = ScanKey::derived_from(b"secret");
        assert_eq!(cache(&key, folder.path(), 4096).entries(0, 2), [None, None]);
        write(&cache(&key, folder.path(), 4096), 0..200);
        let read = cache(&key, folder.path(), 4096);
        assert_eq!(read.entries(0, 200), expected(0..200));
        assert_eq!(read.entries(60, 10), expected(60..70));
        assert_eq!(read.entries(199, 2), [entry(199), None]);
        assert_eq!(read.entries(u64::MAX, 1), [None]);
    }

    #[test]
    fn what_is_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let key = ScanKey::derived_from(b"secret");
        write(&cache(&key, folder.path(), 4096), 0..200);
        let earlier = cache(&key, folder.path(), 4096);
        let mut writer = earlier.successor().unwrap();
        writer.keep(70).unwrap();
        writer.push(entry(1)).unwrap();
        writer.keep(100).unwrap();
        writer.finish().unwrap();
        let read = cache(&key, folder.path(), 4096);
        assert_eq!(read.entries(0, 70), expected(0..70));
        assert_eq!(read.entries(70, 1), [entry(1)]);
        assert_eq!(read.entries(71, 100), expected(71..171));
    }

    #[test]
    fn another_grid_or_key_knows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = ScanKey::derived_from(b"secret");
        write(&cache(&key, folder.path(), 4096), 1..2);
        assert_eq!(cache(&key, folder.path(), 8192).entries(0, 1), [None]);
        let other = ScanKey::derived_from(b"other");
        assert_eq!(cache(&other, folder.path(), 4096).entries(0, 1), [None]);
        let moved = std::fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        std::fs::rename(
            moved.path(),
            other.path(folder.path(), Path::new("disk.vdi")),
        )
        .unwrap();
        assert_eq!(cache(&other, folder.path(), 4096).entries(0, 1), [None]);
    }

    #[test]
    fn a_damaged_block_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let key = ScanKey::derived_from(b"secret");
        write(&cache(&key, folder.path(), 4096), 0..200);
        let path = key.path(folder.path(), Path::new("disk.vdi"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER_BYTES + BLOCK_BYTES + 40] ^= 1;
        // The third block takes the place of the fourth.
        let third = bytes[HEADER_BYTES + 2 * BLOCK_BYTES..HEADER_BYTES + 3 * BLOCK_BYTES].to_vec();
        bytes[HEADER_BYTES + 3 * BLOCK_BYTES..].copy_from_slice(&third);
        std::fs::write(&path, bytes).unwrap();
        let read = cache(&key, folder.path(), 4096);
        assert_eq!(read.entries(0, 64), expected(0..64));
        assert_eq!(read.entries(64, 64), [None; 64]);
        assert_eq!(read.entries(128, 64), expected(128..192));
        assert_eq!(read.entries(192, 8), [None; 8]);
    }

    #[test]
    fn a_cache_that_is_read_counts_as_used() {
        let folder = tempfile::tempdir().unwrap();
        let key = ScanKey::derived_from(b"secret");
        write(&cache(&key, folder.path(), 4096), 0..200);
        let path = key.path(folder.path(), Path::new("disk.vdi"));
        let long_ago = SystemTime::now() - 2 * least_used::UNUSED_FOR;
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        let again = cache(&key, folder.path(), 4096);
        assert_eq!(again.entries(1, 1), [entry(1)]);
        assert!(path.metadata().unwrap().modified().unwrap() > long_ago + least_used::UNUSED_FOR);
    }
}
