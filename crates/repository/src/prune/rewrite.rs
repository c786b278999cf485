//! Writing the index anew where a pack's fate changes it.
//!
//! Index files are read one by one, so that only one and the one to be written are in memory. All new
//! ones are in place before the first old one goes.

use std::collections::{BTreeSet, HashSet};

use rustic_core::FileType;

use super::Scene;
use super::fate::{Fate, Fates};
use crate::error::Result;
use crate::id::{IndexId, PackId};
use crate::index::{IndexFile, IndexPack};
use crate::sink::{MOST_INDEXED_BLOBS, Sink};

/// An index file of fewer blobs is small.
const SMALL_BLOBS: usize = MOST_INDEXED_BLOBS / 4;
/// So many small index files are no nuisance.
const MOST_SMALL: usize = 16;

/// See the module. `gone` are marked packs that were removed.
pub(super) fn run(
    scene: &Scene<'_>,
    sink: &Sink<'_>,
    fates: &Fates,
    gone: &BTreeSet<PackId>,
) -> Result<()> {
    let mut rewrite = Rewrite {
        scene,
        sink,
        fates,
        gone,
        new: IndexFile::default(),
        new_blobs: 0,
        written: HashSet::new(),
        obsolete: Vec::new(),
    };
    let mut small = Vec::new();
    for id in &scene.loaded.files {
        scene.go_on(sink)?;
        let file = scene.load(*id)?;
        if file.packs.iter().any(|pack| rewrite.changes(pack))
            || file.packs_to_delete.iter().any(|pack| rewrite.drops(pack))
        {
            rewrite.take(*id, file)?;
        } else if blobs(&file) < SMALL_BLOBS {
            small.push(*id);
        }
    }
    if small.len() > MOST_SMALL {
        for id in small {
            rewrite.take(id, scene.load(id)?)?;
        }
    }
    rewrite.mark_orphans()?;
    rewrite.finish()
}

fn blobs(file: &IndexFile) -> usize {
    let packs = file.packs.iter().chain(&file.packs_to_delete);
    packs.map(|pack| pack.blobs.len()).sum()
}

impl Scene<'_> {
    fn load(&self, id: IndexId) -> Result<IndexFile> {
        self.repository.vault().load(FileType::Index, id)
    }
}

struct Rewrite<'a> {
    scene: &'a Scene<'a>,
    sink: &'a Sink<'a>,
    fates: &'a Fates,
    gone: &'a BTreeSet<PackId>,
    new: IndexFile,
    new_blobs: usize,
    /// Packs that the new index files name.
    written: HashSet<PackId>,
    /// Index files that the new ones replace.
    obsolete: Vec<IndexId>,
}

impl Rewrite<'_> {
    fn changes(&self, pack: &IndexPack) -> bool {
        self.fates.of.contains_key(&pack.id)
    }

    /// Whether a mark is of no use any more: its pack is gone, or named by an index file.
    fn drops(&self, pack: &IndexPack) -> bool {
        self.gone.contains(&pack.id)
            || !self.scene.present.contains_key(&pack.id)
            || !self.scene.loaded.marks.contains_key(&pack.id)
    }

    /// Takes over what stays of an index file.
    fn take(&mut self, id: IndexId, file: IndexFile) -> Result<()> {
        for mut pack in file.packs {
            match self.fates.of.get(&pack.id) {
                Some(Fate::Forget) => {}
                Some(Fate::Mark | Fate::Repack) => {
                    pack.size = Some(pack.size_bytes());
                    pack.time = Some(self.scene.options.now);
                    self.add(pack, true)?;
                }
                None => self.add(pack, false)?,
            }
        }
        for mut pack in file.packs_to_delete {
            let is_dropped = self.drops(&pack);
            if let Some(mark) = self.scene.loaded.marks.get(&pack.id)
                && !is_dropped
            {
                pack.time = mark.time.or(Some(self.scene.options.now));
                self.add(pack, true)?;
            }
        }
        self.obsolete.push(id);
        Ok(())
    }

    fn mark_orphans(&mut self) -> Result<()> {
        for (id, size_bytes) in &self.fates.orphans {
            let orphan = IndexPack {
                id: *id,
                blobs: Vec::new(),
                time: Some(self.scene.options.now),
                size: Some(*size_bytes),
            };
            self.add(orphan, true)?;
        }
        Ok(())
    }

    fn add(&mut self, pack: IndexPack, is_marked: bool) -> Result<()> {
        if !self.written.insert(pack.id) {
            return Ok(());
        }
        self.new_blobs = self.new_blobs.saturating_add(pack.blobs.len());
        if is_marked {
            self.new.packs_to_delete.push(pack);
        } else {
            self.new.packs.push(pack);
        }
        if self.new_blobs >= MOST_INDEXED_BLOBS {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<()> {
        self.new_blobs = 0;
        let file = std::mem::take(&mut self.new);
        self.sink.write_index_file(&file)
    }

    fn finish(mut self) -> Result<()> {
        self.write()?;
        for id in &self.obsolete {
            self.scene.go_on(self.sink)?;
            self.scene.progress.step("remove index");
            self.scene.repository.backend.remove(FileType::Index, *id)?;
        }
        Ok(())
    }
}
