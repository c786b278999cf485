//! What the caller knows of local files: each is a file of a snapshot, whose list of chunks says what
//! it holds. A snapshot that is gone or damaged means that nothing is known, as does a file that has changed:
//! its stamp is that of the file that was opened, and not of whatever had its name before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::id::SnapshotId;
use crate::layout::ChunkList;
use crate::loaded_index::LoadedIndex;
use crate::repository::ResticRepository;
use crate::store::{FileStamp, KnownFile, RestoreRequest};
use crate::tree::FoundFile;

/// The files of the snapshots that local files are known by.
pub(super) struct KnownFiles(HashMap<SnapshotId, Vec<FoundFile>>);

impl KnownFiles {
    /// Nothing is read for files that have changed.
    pub(super) fn of<'r>(
        repository: &ResticRepository,
        loaded: &Arc<LoadedIndex>,
        request: &'r RestoreRequest,
    ) -> Self {
        let targets = request.files.iter().map(|file| (&file.target, &file.known));
        let seeds = request.seeds.iter().map(|seed| (&seed.local, &seed.known));
        let is_as_known = |(local, known): (&PathBuf, &'r Option<KnownFile>)| {
            let known = known.as_ref()?;
            let present = FileStamp::of(local).ok()?;
            (present == known.stamp).then_some(known)
        };
        let mut files = HashMap::new();
        for known in targets.chain(seeds).filter_map(is_as_known) {
            let found = || repository.found_files(loaded, &known.snapshot);
            files
                .entry(known.snapshot)
                .or_insert_with(|| found().unwrap_or_default());
        }
        Self(files)
    }

    /// The chunks of a local file that was opened and has this stamp.
    pub(super) fn chunks(
        &self,
        repository: &ResticRepository,
        known: Option<&KnownFile>,
        stamp: FileStamp,
    ) -> Option<ChunkList> {
        let known = known.filter(|known| known.stamp == stamp)?;
        let files = self.0.get(&known.snapshot)?;
        let file = files.iter().find(|file| file.path == known.path)?;
        let chunks = repository.stored_chunks(file.clone()).ok()?;
        (chunks.size_bytes() == stamp.size_bytes).then_some(chunks)
    }
}
