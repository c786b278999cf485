//! Verifying a repository.
//!
//! Structure: every key, index file and snapshot can be read, every pack that an index names is
//! there with its size, and every tree and chunk of every snapshot is in such a pack. With
//! `read_data` every blob is also read, opened and hashed, and every pack header compared with the
//! index. All damage is reported, not only the first; none of it ends the check.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use rustic_core::repofile::{BlobType, NodeType};
use rustic_core::{FileType, Id, TreeId};
use vrs_progress::{Counter, Phase, Progress};

use crate::blob::unseal;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::{BlobLocation, LoadedIndex, PackNumber};
use crate::keys::read_key_file;
use crate::pack::read_header;
use crate::parallel;
use crate::repository::{ResticRepository, whole_text};
use crate::store::{CheckOptions, CheckReport};

/// Packs of this program are smaller; rustic makes larger ones.
const LARGEST_AT_ONCE_BYTES: u32 = 48 << 20;

/// A blob in one pack that cannot be used.
type BadCopy = (PackNumber, ChunkId);

struct Check<'a> {
    repository: &'a ResticRepository,
    progress: &'a dyn Progress,
    loaded: std::sync::Arc<LoadedIndex>,
    report: CheckReport,
    /// Packs that are missing or have a wrong size.
    bad_packs: HashSet<PackNumber>,
    bad_copies: HashSet<BadCopy>,
    /// Trees that were looked at, and whether everything below them is there.
    sound: HashMap<ChunkId, bool>,
}

impl ResticRepository {
    pub(crate) fn check_all(
        &self,
        options: CheckOptions,
        progress: &dyn Progress,
    ) -> Result<CheckReport> {
        let loaded = self.index()?;
        let mut check = Check {
            repository: self,
            progress,
            loaded,
            report: CheckReport::default(),
            bad_packs: HashSet::new(),
            bad_copies: HashSet::new(),
            sound: HashMap::new(),
        };
        check.keys()?;
        check.packs()?;
        if options.read_data {
            check.data()?;
        }
        check.snapshots()?;
        Ok(check.report)
    }
}

impl Check<'_> {
    fn error(&mut self, error: &Error) {
        self.report.errors.push(whole_text(error));
    }

    fn go_on(&self) -> Result<()> {
        if self.progress.interrupted() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    fn keys(&mut self) -> Result<()> {
        for id in self
            .repository
            .backend
            .list::<Id>(FileType::Key)?
            .into_keys()
        {
            if let Err(error) = read_key_file(&self.repository.backend, &id) {
                self.error(&error);
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
        let loaded = std::sync::Arc::clone(&self.loaded);
        for (number, pack) in loaded.index.packs() {
            let found = present.get(&pack.id).copied();
            if found == Some(pack.size_bytes) {
                continue;
            }
            self.bad_packs.insert(number);
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

    /// Reads everything.
    fn data(&mut self) -> Result<()> {
        let total = self
            .loaded
            .index
            .packs()
            .map(|(_, pack)| u64::from(pack.size_bytes))
            .sum();
        self.progress.phase(Phase {
            name: "checking",
            subject: "packs".to_owned(),
            total_bytes: Some(total),
        });
        let loaded = std::sync::Arc::clone(&self.loaded);
        let blobs = loaded.index.blobs_by_pack();
        let jobs = loaded
            .index
            .packs()
            .filter(|(number, _)| !self.bad_packs.contains(number))
            .map(Ok);
        let (repository, progress) = (self.repository, self.progress);
        let (bad_copies, errors) = (&mut self.bad_copies, &mut self.report.errors);
        parallel::each(
            repository.threads(),
            jobs,
            || Ok(()),
            |(), (number, pack)| {
                if progress.interrupted() {
                    return Err(Error::Interrupted);
                }
                let blobs = blobs.get(&number).map(Vec::as_slice).unwrap_or_default();
                let flaws = repository.check_pack(pack.id, pack.size_bytes, blobs);
                progress.add(Counter::Scanned, pack.size_bytes.into());
                Ok((number, flaws))
            },
            |(number, flaws)| {
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
            self.go_on()?;
            let sound = match self.repository.snapshot_file(&id) {
                Ok(file) => self.tree(file.tree, &format!("snapshot {}", id.short()))?,
                Err(error) => {
                    self.error(&error);
                    false
                }
            };
            if !sound {
                self.report.damaged_snapshots.push(id);
            }
        }
        Ok(())
    }

    /// Whether a tree and everything below it is there. What is not is reported once.
    fn tree(&mut self, id: TreeId, place: &str) -> Result<bool> {
        self.go_on()?;
        let blob = ChunkId::from(*id);
        if let Some(known) = self.sound.get(&blob) {
            return Ok(*known);
        }
        let sound = self.tree_content(id, place)?;
        self.sound.insert(blob, sound);
        Ok(sound)
    }

    fn tree_content(&mut self, id: TreeId, place: &str) -> Result<bool> {
        if !self.is_there(BlobType::Tree, &ChunkId::from(*id)) {
            self.report.errors.push(format!(
                "the folder list {} of {place} is missing or damaged",
                ChunkId::from(*id).short()
            ));
            return Ok(false);
        }
        let tree = match self.repository.tree(id) {
            Ok(tree) => tree,
            Err(error) => {
                self.error(&error);
                return Ok(false);
            }
        };
        let mut sound = true;
        for node in tree.nodes {
            let place = format!("{place}/{}", node.name);
            sound &= match (&node.node_type, node.subtree) {
                (NodeType::Dir, Some(subtree)) => self.tree(subtree, &place)?,
                (NodeType::Dir, None) => self.flaw(format!("the folder {place} has no list")),
                (NodeType::File, _) => self.file(&node, &place),
                _ => true,
            };
        }
        Ok(sound)
    }

    fn file(&mut self, node: &rustic_core::repofile::Node, place: &str) -> bool {
        let content = node.content.as_deref().unwrap_or_default();
        let chunks = content.iter().map(|id| ChunkId::from(**id));
        let lost = chunks
            .clone()
            .filter(|id| !self.is_there(BlobType::Data, id))
            .count();
        if lost > 0 {
            return self.flaw(format!(
                "{lost} of {} chunks of {place} are missing or damaged",
                content.len()
            ));
        }
        let lengths = chunks.filter_map(|id| self.loaded.index.find(BlobType::Data, &id));
        let size_bytes: u64 = lengths
            .map(|location| u64::from(location.raw_bytes()))
            .sum();
        let right = size_bytes == node.meta.size;
        right
            || self.flaw(format!(
                "the chunks of {place} are {size_bytes} bytes and not {}",
                node.meta.size
            ))
    }

    fn flaw(&mut self, text: String) -> bool {
        self.report.errors.push(text);
        false
    }

    fn is_there(&self, kind: BlobType, id: &ChunkId) -> bool {
        self.loaded.index.copies(kind, id).any(|copy| {
            !self.bad_packs.contains(&copy.pack) && !self.bad_copies.contains(&(copy.pack, *id))
        })
    }
}

/// What is wrong with a pack.
#[derive(Default)]
struct PackFlaws {
    bad_blobs: Vec<ChunkId>,
    texts: Vec<String>,
}

/// The content of a pack, when it is small enough to be read at once.
struct SmallPack(Option<Bytes>);

impl SmallPack {
    fn part(
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
    fn small_pack(&self, id: PackId, size_bytes: u32) -> SmallPack {
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
    ) -> PackFlaws {
        let mut flaws = PackFlaws::default();
        let header = read_header(&self.key, size_bytes, |offset, length| {
            self.backend.read_pack(id, offset, length)
        });
        match header {
            Ok(Some(header)) if crate::index::is_header_of(&header, blobs) => {}
            Ok(_) => flaws.texts.push(format!(
                "the header of pack {id} is damaged or differs from the index"
            )),
            Err(error) => flaws.texts.push(whole_text(&error)),
        }
        let content = self.small_pack(id, size_bytes);
        for blob in blobs {
            let location = &blob.location;
            let flaw = match content.part(self, id, location) {
                Ok(sealed) => unseal(&self.key, &blob.id, location, &sealed)
                    .err()
                    .map(str::to_owned),
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
        flaws
    }
}
