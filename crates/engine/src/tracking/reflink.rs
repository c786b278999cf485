//! Clones of images, kept from one snapshot to the next, on file systems where files can share their data.
//!
//! Why it is right: docs/design/tracking.md. Guarantees: [`unchanged`] names only ranges in which both files
//! hold the same bytes as long as nobody writes to either; whatever the file system says in a way that is no
//! proof is left out. Not guaranteed: that it names all of them.

use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_repository::store::FileStamp;
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::manifest::Stamp;
use crate::platform;
use crate::platform::reflink::{Extent, Extents, clone_file};

/// The folder for clones, beside the image: a clone has to be on the image's volume.
const FOLDER: &str = ".vrs-tracking";

/// A clone of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldClone {
    pub(crate) path: PathBuf,
    /// Nobody writes to it.
    pub(crate) stamp: Stamp,
}

impl HeldClone {
    /// Makes a clone of an image at a path that [`new_path`] gave. An error says why there can be none.
    pub(crate) fn make(image: &Path, path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            platform::create_private_folder(folder).map_err(io::Error::other)?;
        }
        clone_file(image, &path)?;
        let stamp = FileStamp::of(&path)?.into();
        Ok(Self { path, stamp })
    }

    /// Whether the clone is the one that was made.
    pub(crate) fn is_sound(&self) -> bool {
        FileStamp::of(&self.path).is_ok_and(|now| Stamp::from(now) == self.stamp)
    }
}

/// A path for a clone that nothing has.
pub(crate) fn new_path(image: &Path, machine: MachineId) -> PathBuf {
    folder_for(image).join(format!("{machine}-{}", Uuid::new_v4()))
}

fn folder_for(image: &Path) -> PathBuf {
    // The image may be named by a link from another volume.
    let image = image.canonicalize().unwrap_or_else(|_| image.to_owned());
    image.parent().unwrap_or(Path::new("/")).join(FOLDER)
}

/// All clones of a machine's images that lie beside an image.
pub(crate) fn clones_beside(image: &Path, machine: MachineId) -> Vec<PathBuf> {
    let prefix = format!("{machine}-");
    let entries = std::fs::read_dir(folder_for(image)).into_iter().flatten();
    let is_of_machine = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(is_of_machine).collect()
}

/// Removes a clone, and its folder with the last one.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", path, error));
        }
        _ => {}
    }
    if let Some(folder) = path.parent().filter(|folder| folder.ends_with(FOLDER)) {
        // Others may be in it.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

/// Ranges in which two files of one volume hold the same bytes, without those
/// that are shorter than a chunk. Nobody may write to either meanwhile.
pub(crate) fn unchanged(
    one: &Path,
    other: &Path,
    shortest_bytes: u64,
) -> io::Result<Vec<Range<u64>>> {
    if platform::volume_of(one) != platform::volume_of(other) {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    let (one, other) = (File::open(one)?, File::open(other)?);
    let end = one.metadata()?.len().min(other.metadata()?.len());
    let compare = || {
        shared(
            Extents::of(&one)?,
            Extents::of(&other)?,
            end,
            shortest_bytes,
        )
    };
    // A file system may move data while it is asked, so that a place which one file has left is told of
    // the other a moment later. What is told twice in a row was not on its way.
    let (first, second) = (compare()?, compare()?);
    Ok(both(&first, &second))
}

/// What a file has from some byte on: data at a place, or a hole.
#[derive(Debug, Clone, Copy)]
struct Piece {
    end: u64,
    /// `None` for what proves nothing.
    content: Option<Content>,
}

/// Equal contents hold equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Zeros,
    /// The volume's offset less the file's.
    At(i128),
}

/// Walks along a file's extents.
struct Walk<I: Iterator> {
    extents: Peekable<I>,
    end: u64,
}

impl<I: Iterator<Item = io::Result<Extent>>> Walk<I> {
    /// What the file has at `offset`. Offsets only ever grow.
    fn at(&mut self, offset: u64) -> io::Result<Piece> {
        loop {
            let Some(next) = self.extents.peek() else {
                return Ok(self.hole_until(u64::MAX));
            };
            let extent = match next {
                Ok(extent) => *extent,
                Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
            };
            if extent.length_bytes == 0 {
                return Err(io::Error::other("an extent of nothing"));
            }
            let after = extent.start.saturating_add(extent.length_bytes);
            if after <= offset {
                self.extents.next();
            } else if offset < extent.start {
                return Ok(self.hole_until(extent.start));
            } else {
                let distance = i128::from(extent.physical).saturating_sub(extent.start.into());
                return Ok(Piece {
                    end: after.min(self.end),
                    content: extent.is_plain.then_some(Content::At(distance)),
                });
            }
        }
    }

    fn hole_until(&self, end: u64) -> Piece {
        Piece {
            end: end.min(self.end),
            content: Some(Content::Zeros),
        }
    }
}

/// Ranges below `end` in which two lists of extents say the same.
fn shared(
    one: impl Iterator<Item = io::Result<Extent>>,
    other: impl Iterator<Item = io::Result<Extent>>,
    end: u64,
    shortest_bytes: u64,
) -> io::Result<Vec<Range<u64>>> {
    let mut one = Walk {
        extents: one.peekable(),
        end,
    };
    let mut other = Walk {
        extents: other.peekable(),
        end,
    };
    // The first and the last chunk of a file may be short.
    let is_worth_it = |run: &Range<u64>| {
        let length_bytes = run.end.saturating_sub(run.start);
        length_bytes >= shortest_bytes || (length_bytes > 0 && (run.start == 0 || run.end == end))
    };
    let mut found = Vec::new();
    let mut run = 0..0;
    let mut offset = 0;
    while offset < end {
        let (left, right) = (one.at(offset)?, other.at(offset)?);
        let next = left.end.min(right.end);
        if left.content.is_some() && left.content == right.content {
            run.end = next;
        } else {
            found.extend(Some(run).filter(is_worth_it));
            run = next..next;
        }
        offset = next;
    }
    found.extend(Some(run).filter(is_worth_it));
    Ok(found)
}

/// What lies in ranges of both lists.
fn both(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut others = other.iter().peekable();
    let mut found = Vec::new();
    for range in one {
        while let Some(next) = others.peek() {
            let common = range.start.max(next.start)..range.end.min(next.end);
            if common.start < common.end {
                found.push(common);
            }
            if next.end > range.end {
                break;
            }
            others.next();
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of a volume, `None` for holes, with whether the file system is sure of their place.
    type Map = Vec<Option<(u64, bool)>>;

    const BLOCK_BYTES: u64 = 4096;

    fn extents(map: &Map) -> Vec<io::Result<Extent>> {
        let mut found: Vec<Extent> = Vec::new();
        for (number, block) in (0..).zip(map) {
            let Some((place, is_plain)) = *block else {
                continue;
            };
            let (start, physical) = (number * BLOCK_BYTES, place * BLOCK_BYTES);
            match found.last_mut() {
                Some(last)
                    if last.start + last.length_bytes == start
                        && last.physical + last.length_bytes == physical
                        && last.is_plain == is_plain =>
                {
                    last.length_bytes += BLOCK_BYTES;
                }
                _ => found.push(Extent {
                    start,
                    length_bytes: BLOCK_BYTES,
                    physical,
                    is_plain,
                }),
            }
        }
        found.into_iter().map(Ok).collect()
    }

    /// Blocks that are proven equal.
    fn equal(one: &Map, other: &Map) -> Vec<bool> {
        let sure = |block: &Option<(u64, bool)>| block.is_none_or(|(_, is_plain)| is_plain);
        let pairs = one.iter().zip(other);
        pairs
            .map(|(one, other)| one == other && sure(one))
            .collect()
    }

    fn covered(ranges: &[Range<u64>], blocks: usize) -> Vec<bool> {
        let starts = (0..blocks as u64).map(|number| number * BLOCK_BYTES);
        starts
            .map(|start| ranges.iter().any(|range| range.contains(&start)))
            .collect()
    }

    fn map() -> impl Strategy<Value = Map> {
        let block = prop_oneof![
            1 => Just(None),
            4 => (0..6u64, prop::bool::weighted(0.9)).prop_map(Some),
        ];
        prop::collection::vec(block, 0..24)
    }

    proptest! {
        #[test]
        fn just_equal_places_are_shared((one, other) in (map(), map()), like in prop::bool::ANY) {
            let other = if like { one.clone() } else { other };
            let blocks = one.len().min(other.len());
            let end = blocks as u64 * BLOCK_BYTES;
            let found = shared(extents(&one).into_iter(), extents(&other).into_iter(), end, 1).unwrap();
            prop_assert_eq!(covered(&found, blocks), equal(&one, &other));
            prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn both_is_the_intersection(one in map(), other in map()) {
            let runs = |map: &Map| {
                let solid = map.iter().map(|_| Some((0, true))).collect();
                let end = map.len() as u64 * BLOCK_BYTES;
                // Where the map has block 0.
                let zeros: Map = map.iter().map(|block| block.filter(|(place, _)| *place == 0)).collect();
                let all: Map = solid;
                shared(same_place(&zeros), same_place(&all), end, 1).unwrap()
            };
            let (left, right) = (runs(&one), runs(&other));
            let blocks = one.len().max(other.len());
            let expected: Vec<bool> = covered(&left, blocks)
                .into_iter()
                .zip(covered(&right, blocks))
                .map(|(left, right)| left && right)
                .collect();
            prop_assert_eq!(covered(&both(&left, &right), blocks), expected);
        }
    }

    /// Each block where it is in the file.
    fn same_place(map: &Map) -> impl Iterator<Item = io::Result<Extent>> + use<> {
        let placed: Map = (0..)
            .zip(map)
            .map(|(number, block)| block.map(|(_, is_plain)| (number, is_plain)))
            .collect();
        extents(&placed).into_iter()
    }

    #[test]
    fn what_is_shorter_than_a_chunk_is_no_use_but_at_the_ends() {
        let places = |places: &[u64]| places.iter().map(|place| Some((*place, true))).collect();
        let one: Map = places(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let other: Map = places(&[1, 0, 3, 0, 5, 6, 0, 8]);
        let end = 8 * BLOCK_BYTES;
        let found = shared(
            extents(&one).into_iter(),
            extents(&other).into_iter(),
            end,
            2 * BLOCK_BYTES,
        );
        let block = |from: u64, to: u64| from * BLOCK_BYTES..to * BLOCK_BYTES;
        assert_eq!(found.unwrap(), [block(0, 1), block(4, 6), block(7, 8)]);
    }

    #[test]
    fn an_answer_without_sense_is_an_error() {
        let nothing = Extent {
            start: 0,
            length_bytes: 0,
            physical: 0,
            is_plain: true,
        };
        let one = || std::iter::once(Ok(nothing));
        assert!(shared(one(), one(), BLOCK_BYTES, 1).is_err());
        let failed = || std::iter::once(Err(io::ErrorKind::Unsupported.into()));
        assert!(shared(failed(), one(), BLOCK_BYTES, 1).is_err());
    }
}
