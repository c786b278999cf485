//! Verifying a repository.
//!
//! Structure: every key, index file and snapshot can be read, every pack that an index names is
//! there with its size, and every tree and chunk of every snapshot is in such a pack. Of the packs that
//! are to be read every blob is also read, opened and hashed, and the header compared with the index. All damage is reported, not only the first; none of it ends the check.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustic_core::repofile::{BlobType, NodeType};
use rustic_core::{FileType, Id, TreeId};
use vrs_progress::{Counter, Phase, Progress};

use crate::blob::Unsealer;
use crate::error::{Error, Result, stop_if_interrupted};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::{BlobLocation, Index, IndexPack, PackEntry, PackNumber};
use crate::keys::read_key_file;
use crate::loaded_index::LoadedIndex;
use crate::pack::read_header;
use crate::parallel;
use crate::repository::{ResticRepository, whole_text};
use crate::store::{CheckOptions, CheckReport, Loss};
use crate::survival::{holds, marked_packs};
use crate::tree_text::{FoundChunks, FoundNode};

/// Packs of this program are smaller; rustic makes larger ones.
const LARGEST_AT_ONCE_BYTES: u32 = 48 << 20;

/// A blob in one pack that cannot be used.
type BadCopy = (PackNumber, ChunkId);

pub(crate) struct Check<'a> {
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
    pub(crate) loaded: Arc<LoadedIndex>,
    report: CheckReport,
    /// Packs that are missing or have a wrong size.
    bad_packs: HashSet<PackNumber>,
    bad_copies: HashSet<BadCopy>,
    /// Packs with anything wrong about them.
    flawed_packs: HashSet<PackNumber>,
    /// What is lost below the trees that were looked at.
    known: HashMap<ChunkId, Losses>,
    /// What snapshots need and no sound pack holds.
    pub(crate) lost: HashSet<(BlobType, ChunkId)>,
}

/// What is lost below a tree.
type Losses = Arc<Vec<PartLoss>>;

/// A file or folder below a tree of which something is lost; see [`Loss`].
#[derive(Clone)]
struct PartLoss {
    path: String,
    ranges: Vec<Range<u64>>,
}

impl PartLoss {
    const fn whole(path: String) -> Self {
        Self {
            path,
            ranges: Vec::new(),
        }
    }
}

impl ResticRepository {
    pub(crate) fn check_all(
        &self,
        options: CheckOptions,
        progress: &dyn Progress,
    ) -> Result<CheckReport> {
        let mut check = Check::run(self, options, progress)?;
        if !check.marked_but_needed()?.is_empty() {
            check.report.errors.push(
                "a prune and a take were both killed, and what the snapshot needs is only marked; \
                 the next take, prune or repair takes it back"
                    .to_owned(),
            );
        }
        Ok(check.report)
    }
}

impl<'a> Check<'a> {
    pub(crate) fn run(
        repository: &'a ResticRepository,
        options: CheckOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        repository.read_storage_alone();
        let mut check = Check {
            repository,
            progress,
            loaded: repository.index()?,
            report: CheckReport::default(),
            bad_packs: HashSet::new(),
            bad_copies: HashSet::new(),
            flawed_packs: HashSet::new(),
            known: HashMap::new(),
            lost: HashSet::new(),
        };
        check.keys()?;
        check.packs()?;
        if options.read_percent > 0 {
            check.data(options.read_percent)?;
        }
        check.snapshots()?;
        Ok(check)
    }
}

impl Check<'_> {
    /// Packs with anything wrong about them.
    pub(crate) fn flawed(&self) -> Vec<(PackNumber, PackEntry)> {
        let numbered = |number: &PackNumber| Some((*number, self.loaded.index.pack(*number)?));
        self.flawed_packs.iter().filter_map(numbered).collect()
    }

    /// Marked packs that hold what no other pack has.
    pub(crate) fn marked_but_needed(&self) -> Result<Vec<IndexPack>> {
        if self.lost.is_empty() || self.loaded.marks.is_empty() {
            return Ok(Vec::new());
        }
        let present: BTreeMap<PackId, u32> = self.repository.backend.list(FileType::Pack)?;
        marked_packs(self.repository, &self.loaded, |mark, pack| {
            present.contains_key(&mark.pack) && holds(pack, &self.lost)
        })
    }

    /// Reports what is wrong, unless it is only that the storage cannot be reached.
    fn error(&mut self, error: Error) -> Result<()> {
        if error.is_of_whole_storage() {
            return Err(error);
        }
        self.report.errors.push(whole_text(&error));
        Ok(())
    }

    fn keys(&mut self) -> Result<()> {
        for id in self
            .repository
            .backend
            .list::<Id>(FileType::Key)?
            .into_keys()
        {
            if let Err(error) = read_key_file(&self.repository.backend, &id) {
                self.error(error)?;
            }
        }
        Ok(())
    }

    /// Compares the packs that are there with those that the index names.
    fn packs(&mut self) -> Result<()> {
        self.report
            .errors
            .extend(self.loaded.unreadable.iter().cloned());
        let present: BTreeMap<PackId, u32> = self.repository.backend.list(FileType::Pack)?;
        let loaded = Arc::clone(&self.loaded);
        for (number, pack) in loaded.index.packs() {
            let found = present.get(&pack.id).copied();
            if found == Some(pack.size_bytes) {
                continue;
            }
            self.bad_packs.insert(number);
            self.flawed_packs.insert(number);
            self.report.errors.push(match found {
                None => format!("pack {} is missing", pack.id),
                Some(size) => format!(
                    "pack {} has {size} bytes and not {}",
                    pack.id, pack.size_bytes
                ),
            });
        }
        let named = loaded.named_packs();
        let unused = present.keys().filter(|id| !named.contains(id)).map(|id| {
            format!("pack {id} is in no index; the next snapshot will use it or report it")
        });
        self.report.warnings.extend(unused);
        Ok(())
    }

    /// Reads a part of the packs, or all.
    fn data(&mut self, percent: u8) -> Result<()> {
        let loaded = Arc::clone(&self.loaded);
        let subset = Subset::draw(percent)?;
        let bad_packs = &self.bad_packs;
        let chosen = |(number, pack): &(PackNumber, PackEntry)| {
            !bad_packs.contains(number) && subset.holds(&pack.id)
        };
        let packs: Vec<_> = loaded.index.packs().filter(chosen).collect();
        let sizes = packs.iter().map(|(_, pack)| u64::from(pack.size_bytes));
        self.progress.phase(Phase {
            name: "checking",
            subject: "packs".to_owned(),
            total_bytes: Some(sizes.sum()),
        });
        let blobs = loaded.index.blobs_by_pack();
        let (repository, progress) = (self.repository, self.progress);
        let (bad_copies, errors) = (&mut self.bad_copies, &mut self.report.errors);
        let flawed_packs = &mut self.flawed_packs;
        parallel::each(
            repository.waiting_threads(),
            packs.into_iter().map(Ok),
            || Ok(()),
            |(), (number, pack)| {
                stop_if_interrupted(progress)?;
                let blobs = blobs.get(&number).map(Vec::as_slice).unwrap_or_default();
                let flaws = repository.check_pack(pack.id, pack.size_bytes, blobs)?;
                progress.add(Counter::Scanned, pack.size_bytes.into());
                Ok((number, flaws))
            },
            |(number, flaws)| {
                if !flaws.texts.is_empty() {
                    flawed_packs.insert(number);
                }
                bad_copies.extend(flaws.bad_blobs.into_iter().map(|id| (number, id)));
                errors.extend(flaws.texts);
            },
        )
    }

    fn snapshots(&mut self) -> Result<()> {
        let ids = self
            .repository
            .backend
            .list::<SnapshotId>(FileType::Snapshot)?;
        self.progress.phase(Phase {
            name: "checking",
            subject: "snapshots".to_owned(),
            total_bytes: None,
        });
        for id in ids.into_keys() {
            stop_if_interrupted(self.progress)?;
            let losses = match self.repository.snapshot_file(&id) {
                Ok(file) => self.tree(file.tree, &format!("snapshot {}", id.short()))?,
                Err(error) => {
                    self.error(error)?;
                    Arc::new(vec![PartLoss::whole(String::new())])
                }
            };
            if !losses.is_empty() {
                self.report.damaged_snapshots.push(id);
            }
            let losses = losses.iter().cloned();
            let losses = losses.map(|PartLoss { path, ranges }| Loss {
                snapshot: id,
                path,
                ranges,
            });
            self.report.losses.extend(losses);
        }
        Ok(())
    }

    /// What is lost of a tree and everything below it. A text tells it once.
    fn tree(&mut self, id: TreeId, place: &str) -> Result<Losses> {
        stop_if_interrupted(self.progress)?;
        let blob = ChunkId::from(*id);
        if let Some(known) = self.known.get(&blob) {
            return Ok(Arc::clone(known));
        }
        let losses = Arc::new(self.tree_content(id, place)?);
        self.known.insert(blob, Arc::clone(&losses));
        Ok(losses)
    }

    fn tree_content(&mut self, id: TreeId, place: &str) -> Result<Vec<PartLoss>> {
        let blob = ChunkId::from(*id);
        let whole = || Ok(vec![PartLoss::whole(String::new())]);
        if !self.is_there(BlobType::Tree, &blob) {
            self.lost.insert((BlobType::Tree, blob));
            self.report.errors.push(format!(
                "the folder list {} of {place} is missing or damaged",
                blob.short()
            ));
            return whole();
        }
        let tree = match self.repository.tree(&self.loaded, id) {
            Ok(tree) => tree,
            Err(error) => {
                self.error(error)?;
                self.lost.insert((BlobType::Tree, blob));
                return whole();
            }
        };
        let mut losses = Vec::new();
        for found in tree {
            self.node(&found, place, &mut losses)?;
        }
        Ok(losses)
    }

    fn node(&mut self, found: &FoundNode, place: &str, losses: &mut Vec<PartLoss>) -> Result<()> {
        let node = &found.node;
        let place = format!("{place}/{}", node.name);
        match (&node.node_type, node.subtree) {
            (NodeType::Dir, Some(subtree)) => {
                for below in self.tree(subtree, &place)?.iter() {
                    let path = format!("{}/{}", node.name, below.path);
                    losses.push(PartLoss {
                        path: path.trim_end_matches('/').to_owned(),
                        ranges: below.ranges.clone(),
                    });
                }
            }
            (NodeType::Dir, None) => {
                let text = format!("the folder {place} has no list");
                self.report.errors.push(text);
                losses.push(PartLoss::whole(node.name.clone()));
            }
            (NodeType::File, _) => {
                let lost = self.file(found, &place);
                losses.extend(lost.map(|ranges| PartLoss {
                    path: node.name.clone(),
                    ranges,
                }));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is lost of a file, if anything is.
    fn file(&mut self, found: &FoundNode, place: &str) -> Option<Vec<Range<u64>>> {
        let places = places(found, &self.loaded.index);
        let mut lost = Vec::new();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (id, range) in &places {
            if self.is_there(BlobType::Data, id) {
                continue;
            }
            lost.push((BlobType::Data, *id));
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range.clone()),
            }
        }
        if !lost.is_empty() {
            let text = format!(
                "{} of {} chunks of {place} are missing or damaged",
                lost.len(),
                places.len()
            );
            self.report.errors.push(text);
            self.lost.extend(lost);
            return Some(ranges);
        }
        let size_bytes = places.last().map_or(0, |(_, range)| range.end);
        if size_bytes == found.node.meta.size {
            return None;
        }
        let text = format!(
            "the chunks of {place} are {size_bytes} bytes and not {}",
            found.node.meta.size
        );
        self.report.errors.push(text);
        Some(Vec::new())
    }

    fn is_there(&self, kind: BlobType, id: &ChunkId) -> bool {
        self.loaded.index.copies(kind, id).any(|copy| {
            !self.bad_packs.contains(&copy.pack) && !self.bad_copies.contains(&(copy.pack, *id))
        })
    }
}

/// The chunks of a file with their places in it. Those that no index knows share what the others leave
/// of the file: chunks of one image are equally long.
fn places(found: &FoundNode, index: &Index) -> Vec<(ChunkId, Range<u64>)> {
    let FoundChunks { known, unknown } = &found.chunks;
    let known: Vec<(ChunkId, u64)> = known
        .iter()
        .filter_map(|number| index.chunk(*number))
        .map(|(id, location)| (id, location.raw_bytes().into()))
        .collect();
    let known_bytes: u64 = known.iter().map(|(_, bytes)| bytes).sum();
    let left_bytes = found.node.meta.size.saturating_sub(known_bytes);
    let share_bytes = left_bytes.div_ceil(unknown.len().max(1) as u64);
    let mut unknown = unknown.iter().peekable();
    let mut places = Vec::with_capacity(known.len().saturating_add(unknown.len()));
    let mut start: u64 = 0;
    let mut unknown_left = left_bytes;
    for position in 0..=known.len() {
        while let Some((_, id)) = unknown.next_if(|(before, _)| *before == position) {
            let length = share_bytes.min(unknown_left);
            unknown_left = unknown_left.saturating_sub(length);
            places.push((*id, start..start.saturating_add(length)));
            start = start.saturating_add(length);
        }
        if let Some((id, bytes)) = known.get(position) {
            places.push((*id, start..start.saturating_add(*bytes)));
            start = start.saturating_add(*bytes);
        }
    }
    places
}

/// A random part of all packs.
struct Subset {
    percent: u8,
    salt: [u8; 2],
}

impl Subset {
    fn draw(percent: u8) -> Result<Self> {
        let mut salt = [0; 2];
        getrandom::fill(&mut salt).map_err(|_| Error::NoRandom)?;
        Ok(Self { percent, salt })
    }

    fn holds(&self, pack: &PackId) -> bool {
        // Ids are hashes: any of their bytes are random.
        let [first, second, ..] = pack.as_bytes();
        let [one, other] = self.salt;
        let drawn = u16::from_le_bytes([first ^ one, second ^ other]);
        u32::from(drawn).saturating_mul(100) < u32::from(self.percent).saturating_mul(1 << 16)
    }
}

/// What is wrong with a pack.
#[derive(Default)]
struct PackFlaws {
    bad_blobs: Vec<ChunkId>,
    texts: Vec<String>,
}

/// The content of a pack, when it is small enough to be read at once.
pub(crate) struct SmallPack(Option<Bytes>);

impl SmallPack {
    pub(crate) fn part(
        &self,
        repository: &ResticRepository,
        id: PackId,
        location: &BlobLocation,
    ) -> Result<Bytes> {
        let (from, length) = (location.offset as usize, location.length as usize);
        let known = self
            .0
            .as_ref()
            .filter(|content| content.len() >= from.saturating_add(length));
        match known {
            Some(content) => Ok(content.slice(from..from.saturating_add(length))),
            None => repository
                .backend
                .read_pack(id, location.offset, location.length),
        }
    }
}

impl ResticRepository {
    pub(crate) fn small_pack(&self, id: PackId, size_bytes: u32) -> SmallPack {
        let small = size_bytes <= LARGEST_AT_ONCE_BYTES;
        // A failure shows again when the parts are read one by one.
        SmallPack(
            small
                .then(|| self.backend.read_pack(id, 0, size_bytes).ok())
                .flatten(),
        )
    }

    fn check_pack(
        &self,
        id: PackId,
        size_bytes: u32,
        blobs: &[crate::index::PackedBlob],
    ) -> Result<PackFlaws> {
        let mut flaws = PackFlaws::default();
        let header = read_header(&self.key, size_bytes, |offset, length| {
            self.backend.read_pack(id, offset, length)
        });
        match header {
            Ok(Some(header)) if crate::index::is_header_of(&header, blobs) => {}
            Ok(_) => flaws.texts.push(format!(
                "the header of pack {id} is damaged or differs from the index"
            )),
            Err(error) if error.is_of_whole_storage() => return Err(error),
            Err(error) => flaws.texts.push(whole_text(&error)),
        }
        let content = self.small_pack(id, size_bytes);
        let mut unsealer = Unsealer::new(&self.key);
        for blob in blobs {
            let location = &blob.location;
            let flaw = match content.part(self, id, location) {
                Ok(sealed) => unsealer
                    .unseal(&blob.id, location, &mut Vec::from(sealed))
                    .err()
                    .map(str::to_owned),
                Err(error) if error.is_of_whole_storage() => return Err(error),
                Err(error) => Some(whole_text(&error)),
            };
            if let Some(flaw) = flaw {
                flaws.bad_blobs.push(blob.id);
                flaws.texts.push(format!(
                    "chunk {} in pack {id} is damaged: {flaw}",
                    blob.id.short()
                ));
            }
        }
        Ok(flaws)
    }
}
