//! What is known about a machine's images since its last snapshot in each repository, one file for each
//! machine below vrs's state folder.
//!
//! Guarantees: a record is on disk when [`write`] returns, whole or not at all; one that was damaged since
//! is recognised by its checksum and never used. Not guaranteed: that a record tells the truth. What it
//! claims is looked at before use, and a scan checks all of it now and then.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vrs_repository::id::{RepositoryId, SnapshotId};
use vrs_repository::store::{Chunking, FileStamp};
use vrs_virtualbox::MachineId;

use super::change_list::ChangeList;
use super::differencing::TrackerSnapshot;
use super::reflink::HeldClone;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::Stamp;
use crate::platform;

/// A record of another version is as good as none.
const VERSION: u32 = 2;

const FOLDER: &str = "tracking";

/// Clones for a repository that the machine was not taken into for so long go. Twice as long as
/// between two copies that are made each month.
const KEPT_UNUSED: SignedDuration = SignedDuration::from_hours(60 * 24);

/// What is known about a machine's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrackingRecord {
    pub(crate) version: u32,
    pub(crate) machine: MachineId,
    pub(crate) machine_name: String,
    /// Where its settings are: a machine without them is gone.
    pub(crate) settings_file: PathBuf,
    /// One for each repository that the machine was taken into.
    pub(crate) known: Vec<KnownImages>,
    /// Files that vrs made for tracking, or was about to make, and that no image of the record needs.
    pub(crate) left_behind: Vec<PathBuf>,
}

/// What is known since the machine's last snapshot in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownImages {
    pub(crate) repository: RepositoryId,
    /// When that snapshot was done.
    pub(crate) taken: Timestamp,
    /// When the last one was done for which all images were read.
    pub(crate) scanned: Timestamp,
    /// Takes in a row that relied on a record.
    pub(crate) takes_since_scan: u32,
    pub(crate) images: Vec<TrackedImage>,
    /// The VirtualBox snapshot under whose differencing images the guest writes, if that is the method.
    pub(crate) tracker: Option<TrackerSnapshot>,
}

impl KnownImages {
    pub(crate) fn image(&self, path: &Path) -> Option<&TrackedImage> {
        self.images.iter().find(|image| image.path == path)
    }

    /// Whether it takes room, and nobody waits for it any more. A clock that was set back says no.
    pub(crate) fn is_unused(&self, now: Timestamp) -> bool {
        self.tracker.is_none() && now.duration_since(self.taken) > KEPT_UNUSED
    }
}

/// An image as vrs left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrackedImage {
    pub(crate) path: PathBuf,
    /// The image's state when vrs was done with it.
    pub(crate) stamp: Stamp,
    /// A snapshot that holds the same bytes,
    pub(crate) snapshot: SnapshotId,
    /// in this file of its tree,
    pub(crate) stored: String,
    /// which was cut like this.
    pub(crate) grid: Grid,
    /// How a change since then shows.
    pub(crate) method: Method,
}

/// Where a stored image was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grid {
    pub(crate) chunk_bytes: u32,
    pub(crate) phase_bytes: u64,
}

impl Grid {
    pub(crate) const fn of(chunking: &Chunking) -> Option<Self> {
        match *chunking {
            Chunking::Grid {
                chunk_bytes,
                phase_bytes,
            } => Some(Self {
                chunk_bytes,
                phase_bytes,
            }),
            Chunking::ContentDefined { .. } | Chunking::Whole => None,
        }
    }

    /// The last cut up to an offset; the file's beginning is one.
    pub(crate) const fn point_before(self, offset: u64) -> u64 {
        offset.saturating_sub(self.bytes_into_chunk(offset))
    }

    /// The first cut from an offset on.
    pub(crate) const fn point_after(self, offset: u64) -> u64 {
        match (offset, self.bytes_into_chunk(offset)) {
            (0, _) | (_, 0) => offset,
            (_, into) => {
                let rest = (self.chunk_bytes as u64).saturating_sub(into);
                offset.saturating_add(rest)
            }
        }
    }

    /// How far an offset is behind the cut before it.
    const fn bytes_into_chunk(self, offset: u64) -> u64 {
        let chunk_bytes = self.chunk_bytes as u64;
        let (Some(phase), Some(into)) = (
            self.phase_bytes.checked_rem(chunk_bytes),
            offset.checked_rem(chunk_bytes),
        ) else {
            return 0;
        };
        match into.checked_sub(phase) {
            Some(into) => into,
            None => into.saturating_add(chunk_bytes).saturating_sub(phase),
        }
    }
}

/// How it is told which parts of an image are as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Method {
    /// A clone holds the stored bytes, and the file system knows which of them it shares.
    Reflink(HeldClone),
    /// Block maps tell what was merged into it.
    ChangeList(ChangeList),
}

impl Method {
    /// Files that vrs keeps for it.
    pub(crate) fn own_files(&self) -> Vec<&Path> {
        match self {
            Self::Reflink(held) => vec![held.path.as_path()],
            Self::ChangeList(list) => list.own_files().collect(),
        }
    }
}

impl TrackedImage {
    /// Whether the image is still that file.
    pub(crate) fn is_in_place(&self) -> bool {
        FileStamp::of(&self.path).is_ok_and(|now| Stamp::from(now).inode == self.stamp.inode)
    }

    /// Whether what is kept of it still tells all about an image of that stamp.
    pub(crate) fn is_still(&self, grid: Grid, stamp: Stamp) -> bool {
        let is_kept = match &self.method {
            Method::Reflink(held) => held.is_sound(),
            // The guest writes elsewhere: it never does.
            Method::ChangeList(_) => false,
        };
        is_kept && self.grid == grid && self.stamp == stamp
    }

    /// Length of the image that is stored.
    pub(crate) const fn stored_bytes(&self) -> u64 {
        match &self.method {
            Method::Reflink(_) => self.stamp.size,
            Method::ChangeList(list) => list.stored.image_bytes,
        }
    }
}

impl TrackingRecord {
    /// An empty one.
    pub(crate) fn new(machine: MachineId) -> Self {
        Self {
            version: VERSION,
            machine,
            machine_name: String::new(),
            settings_file: PathBuf::new(),
            known: Vec::new(),
            left_behind: Vec::new(),
        }
    }

    /// What is known for a repository.
    pub(crate) fn known_for(&self, repository: RepositoryId) -> Option<&KnownImages> {
        let mut known = self.known.iter();
        known.find(|known| known.repository == repository)
    }

    /// Says something else for a repository. Without images that is nothing.
    pub(crate) fn replace(&mut self, next: KnownImages) {
        let before = self.all_files();
        self.known
            .retain(|known| known.repository != next.repository);
        self.known
            .extend(Some(next).filter(|next| !next.images.is_empty()));
        self.leave_behind(before);
    }

    /// Drops images that are no use.
    pub(crate) fn drop_images(&mut self, is_useless: impl Fn(&KnownImages, &TrackedImage) -> bool) {
        let before = self.all_files();
        for known in &mut self.known {
            let mut images = std::mem::take(&mut known.images);
            images.retain(|image| !is_useless(known, image));
            known.images = images;
        }
        self.known.retain(|known| !known.images.is_empty());
        self.leave_behind(before);
    }

    fn leave_behind(&mut self, mut files: Vec<PathBuf>) {
        files.retain(|file| self.own_files().all(|own| own != file));
        self.left_behind = files;
    }

    /// Files that vrs made for the machine and still needs.
    pub(crate) fn own_files(&self) -> impl Iterator<Item = &Path> {
        let images = self.known.iter().flat_map(|known| &known.images);
        images.flat_map(|image| image.method.own_files())
    }

    /// Files that vrs made for the machine.
    pub(crate) fn all_files(&self) -> Vec<PathBuf> {
        let needed = self.own_files().map(Path::to_owned);
        needed.chain(self.left_behind.iter().cloned()).collect()
    }
}

/// What lies where a record may be.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A text why it is no use.
    Useless(&'static str),
    Record(TrackingRecord),
}

/// What is remembered about a machine.
pub(crate) fn read(host: &Host, machine: MachineId) -> Result<Found> {
    let path = path_of(host, machine);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    let record = verified(&content).and_then(|text| {
        let record: serde_json::Result<TrackingRecord> = serde_json::from_slice(text);
        record.ok().filter(|record| record.machine == machine)
    });
    Ok(match record {
        Some(record) if record.version == VERSION => Found::Record(record),
        Some(_) => Found::Useless("another version of vrs wrote what was known about it"),
        None => Found::Useless("what was known about it is damaged"),
    })
}

/// Machines with a record.
pub(crate) fn machines(host: &Host) -> Result<Vec<MachineId>> {
    let folder = folder(host);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the folder", &folder, error)),
    };
    let named = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        path.file_stem()?.to_str()?.parse().ok()
    });
    let mut machines: Vec<MachineId> = named.collect();
    machines.sort_unstable();
    machines.dedup();
    Ok(machines)
}

/// Replaces what is remembered.
pub(crate) fn write(host: &Host, record: &TrackingRecord) -> Result<()> {
    let path = path_of(host, record.machine);
    platform::create_private_folder(&folder(host))?;
    let text = serde_json::to_vec_pretty(record);
    let text = text.map_err(|error| Error::io("write", &path, error.into()))?;
    let mut content = blake3::hash(&text).to_hex().as_bytes().to_vec();
    content.push(b'\n');
    content.extend(text);
    platform::replace_file(&path, &content)
}

/// Forgets a machine.
pub(crate) fn remove(host: &Host, machine: MachineId) -> Result<()> {
    platform::remove_file(&path_of(host, machine))
}

/// Where records are, and files that belong to them.
pub(crate) fn folder(host: &Host) -> PathBuf {
    host.state_folder.join(FOLDER)
}

fn path_of(host: &Host, machine: MachineId) -> PathBuf {
    folder(host).join(format!("{machine}.record"))
}

/// The text after a checksum that is right.
fn verified(content: &[u8]) -> Option<&[u8]> {
    let (sum, text) = content.split_at_checked(blake3::OUT_LEN.saturating_mul(2))?;
    let text = text.strip_prefix(b"\n")?;
    (blake3::hash(text).to_hex().as_bytes() == sum).then_some(text)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_those_of_the_grid() {
        let grid = Grid {
            chunk_bytes: 8,
            phase_bytes: 19,
        };
        // 0, 3, 11, 19, 27...
        let before: Vec<u64> = [0, 2, 3, 10, 11, 18, 19, 27]
            .map(|at| grid.point_before(at))
            .into();
        assert_eq!(before, [0, 0, 3, 3, 11, 11, 19, 27]);
        let after: Vec<u64> = [0, 1, 3, 4, 11, 12, 20]
            .map(|at| grid.point_after(at))
            .into();
        assert_eq!(after, [0, 3, 3, 11, 11, 19, 27]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host {
            virtualbox: Err(String::new()),
            state_folder: folder.path().to_owned(),
            name: String::new(),
        };
        let machine = "317fdc28-d400-4c87-bfc2-a2139ff50b5d".parse().unwrap();
        let record = TrackingRecord::new(machine);
        write(&host, &record).unwrap();
        assert!(matches!(read(&host, machine).unwrap(), Found::Record(found) if found == record));
        assert_eq!(machines(&host).unwrap(), [machine]);
        let path = path_of(&host, machine);
        let content = std::fs::read(&path).unwrap();
        for bit in 0..content.len() * 8 {
            let mut damaged = content.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(read(&host, machine).unwrap(), Found::Useless(_)));
        }
        for length in 0..content.len() {
            std::fs::write(&path, &content[..length]).unwrap();
            assert!(matches!(read(&host, machine).unwrap(), Found::Useless(_)));
        }
        remove(&host, machine).unwrap();
        assert!(matches!(read(&host, machine).unwrap(), Found::Nothing));
    }
}
