//! What many small objects of a repository say, understood and gathered in one file on this host, so that a
//! thousand of them cost little more to know than one.
//!
//! The file is a row of parts, each behind its length and sealed with the repository's key. Guarantees: what
//! is read was gathered by somebody with that key, and completely: each part names its file, its place in it
//! and whether it is the last, so that neither a cut nor parts of two files pass. It may be older than the
//! repository: whoever reads it asks the storage which objects are still there. What is missing or damaged
//! costs reading the objects again, and nothing else. Several processes may use the file: one that writes it
//! puts it in place at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::crypto::MasterKey;
use crate::object_cache::replace;
use crate::parallel;

/// So many objects of a kind may lie beside what is gathered of it.
pub(crate) const MOST_LOOSE: usize = 32;

/// A part is expected to be about a megabyte; a longer one than this is damage.
const MOST_PART_BYTES: u32 = 16 << 20;
/// Parts that are in memory as they were read.
const MOST_WAITING: usize = 4;

/// The file for one kind of object.
pub(crate) struct Gathered<'a> {
    pub(crate) path: PathBuf,
    pub(crate) key: &'a MasterKey,
}

#[derive(Serialize, Deserialize)]
struct Part<P> {
    /// Random.
    file: [u8; 16],
    number: u32,
    is_last: bool,
    content: P,
}

impl Gathered<'_> {
    /// Hands over the content of each part, in order. None: nothing that was handed over counts.
    pub(crate) fn read<P: DeserializeOwned + Send>(
        &self,
        threads: usize,
        mut take: impl FnMut(P) + Send,
    ) -> Option<()> {
        let file = File::open(&self.path).ok()?;
        let is_small = file.metadata().ok()?.len() <= MOST_PART_BYTES.into();
        let mut order = Order::default();
        let parts = SealedParts {
            source: BufReader::with_capacity(256 << 10, file),
        };
        parallel::each(
            if is_small {
                1
            } else {
                threads.min(MOST_WAITING)
            },
            parts.map(Ok),
            || Ok(()),
            |(), sealed| Ok(sealed.and_then(|mut sealed| self.open(&mut sealed))),
            |part: Option<Part<P>>| {
                if let Some(content) = order.next(part) {
                    take(content);
                }
            },
        )
        .ok()?;
        order.is_complete().then_some(())
    }

    fn open<P: DeserializeOwned>(&self, sealed: &mut [u8]) -> Option<Part<P>> {
        postcard::from_bytes(self.key.open_in_place(sealed)?).ok()
    }

    /// Puts a file in the place of the present one. Not synced: what a crash leaves of it is not read.
    pub(crate) fn write<P: Serialize>(&self, contents: impl Iterator<Item = P>) -> io::Result<()> {
        let mut file = [0; 16];
        getrandom::fill(&mut file).map_err(io::Error::other)?;
        let mut contents = (0..).zip(contents).peekable();
        let sealed = std::iter::from_fn(|| {
            let (number, content) = contents.next()?;
            let part = Part {
                file,
                number,
                is_last: contents.peek().is_none(),
                content,
            };
            Some(self.seal(&part))
        });
        replace(&self.path, |writer| {
            sealed.into_iter().try_for_each(|sealed| {
                let sealed = sealed?;
                let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
                writer.write_all(&length.to_le_bytes())?;
                writer.write_all(&sealed)
            })
        })
    }

    fn seal<P: Serialize>(&self, part: &Part<P>) -> io::Result<Vec<u8>> {
        let plain = postcard::to_stdvec(part).map_err(io::Error::other)?;
        self.key.seal(&plain).map_err(io::Error::other)
    }
}

/// The parts of a file as they lie there; None where something else follows.
struct SealedParts {
    source: BufReader<File>,
}

impl Iterator for SealedParts {
    type Item = Option<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_over = self.source.fill_buf().ok()?.is_empty();
        (!is_over).then(|| self.sealed())
    }
}

impl SealedParts {
    fn sealed(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.source.read_exact(&mut length).ok()?;
        let length =
            Some(u32::from_le_bytes(length)).filter(|length| *length <= MOST_PART_BYTES)?;
        let mut sealed = Vec::new();
        let mut part = self.source.by_ref().take(length.into());
        let read_bytes = part.read_to_end(&mut sealed).ok()?;
        (u32::try_from(read_bytes) == Ok(length)).then_some(sealed)
    }
}

/// Whether each part is the one after the last.
#[derive(Default)]
struct Order {
    file: Option<[u8; 16]>,
    next: u32,
    is_over: bool,
    is_broken: bool,
}

impl Order {
    fn next<P>(&mut self, part: Option<Part<P>>) -> Option<P> {
        let expected = part.filter(|part| {
            let file = *self.file.get_or_insert(part.file);
            file == part.file && self.next == part.number && !self.is_over && !self.is_broken
        });
        self.is_broken |= expected.is_none();
        self.next = self.next.saturating_add(1);
        self.is_over |= expected.as_ref().is_some_and(|part| part.is_last);
        expected.map(|part| part.content)
    }

    const fn is_complete(&self) -> bool {
        self.is_over && !self.is_broken
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::path::Path;

    use super::*;

    fn key(number: u8) -> MasterKey {
        MasterKey::from_parts(&[number; 32], &[2; 16], &[3; 16]).unwrap()
    }

    fn in_folder<'a>(folder: &Path, key: &'a MasterKey) -> Gathered<'a> {
        Gathered {
            path: folder.join("new/gathered"),
            key,
        }
    }

    fn read(gathered: &Gathered<'_>) -> Option<Vec<u64>> {
        let mut all = Vec::new();
        gathered.read(2, |part: Vec<u64>| all.extend(part))?;
        Some(all)
    }

    fn written(gathered: &Gathered<'_>, parts: u64) -> Vec<u8> {
        gathered
            .write((0..parts).map(|part| vec![part, 7]))
            .unwrap();
        std::fs::read(&gathered.path).unwrap()
    }

    #[test]
    fn what_was_gathered_is_read_in_order() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key(1));
        let gathered = in_folder(folder.path(), &key);
        assert_eq!(read(&gathered), None);
        for parts in [1, 2, 100] {
            written(&gathered, parts);
            let expected = (0..parts).flat_map(|part| [part, 7]).collect();
            assert_eq!(read(&gathered), Some(expected));
        }
        // Not for somebody with another key.
        assert_eq!(read(&in_folder(folder.path(), &self::key(2))), None);
        // Large parts are read by several threads.
        let large = |part: u64| vec![part; 2 << 20];
        gathered.write((200..212).map(large)).unwrap();
        let all: Vec<u64> = (200..212).flat_map(large).collect();
        assert!(std::fs::metadata(&gathered.path).unwrap().len() > MOST_PART_BYTES.into());
        assert!(read(&gathered) == Some(all));
    }

    #[test]
    fn neither_a_cut_nor_a_change_nor_a_part_of_another_file_passes() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key(1));
        let gathered = in_folder(folder.path(), &key);
        let (other, whole) = (written(&gathered, 3), written(&gathered, 3));
        let reads = |content: &[u8]| {
            std::fs::write(&gathered.path, content).unwrap();
            read(&gathered)
        };
        let part_bytes = whole.len() / 3;
        for cut in 0..whole.len() {
            assert_eq!(reads(&whole[..cut]), None, "{cut} bytes");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert_eq!(reads(&changed), None, "another byte {place}");
        }
        for place in 0..3 {
            let mut mixed = whole.clone();
            let part = place * part_bytes..(place + 1) * part_bytes;
            mixed[part.clone()].copy_from_slice(&other[part]);
            assert_eq!(reads(&mixed), None, "part {place} of another");
        }
        let twice = [&whole[..part_bytes], &whole].concat();
        assert_eq!(reads(&twice), None);
        assert_eq!(reads(&[&whole[..], b"12"].concat()), None);
        assert_eq!(reads(&[&whole[..], &u32::MAX.to_le_bytes()].concat()), None);
        assert!(reads(&whole).is_some());
    }
}
