//! Machine folders that the script stored which vrs comes from.
//!
//! Such an archive is the whole folder as it was on the host, without a manifest. One of a running machine
//! has a VirtualBox snapshot `vrs-temp` in it, which froze the machine while the folder was read:
//! the machine that comes back is in the state of that, and it is gone, as after the script's
//! `VBoxManage snapshot restore` and `delete`. The manifest is derived from the settings, each time anew.
//!
//! [`Originals`] shows such archives among the snapshots of a repository, so that every verb works with
//! them. Not guaranteed: what lay outside the machine's folder, which the script did not store.

mod derived;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vrs_progress::Progress;
use vrs_repository::id::{RepositoryId, SnapshotId};
use vrs_repository::store::{
    CheckOptions, CheckReport, ChunkLists, Ingest, ORIGINAL, PruneOptions, PruneStats,
    RestoreRequest, RestoreStats, SnapshotList, SnapshotRecord, SnapshotStore, SnapshotWords,
    StoredFile, StoredFileReader, TreePath,
};
use vrs_repository::{Error as StoreError, Result as StoreResult};

use self::derived::{Content, Derived};
use crate::snapshot;

/// See the module.
pub struct Originals {
    inner: Box<dyn SnapshotStore>,
    known: Mutex<Known>,
}

/// What each snapshot that was ever listed is. None: vrs made it, or it holds no machine: anybody may
/// name an archive like that.
type Known = BTreeMap<SnapshotId, Option<Arc<Derived>>>;

impl Originals {
    /// Shows the originals in a repository.
    #[must_use]
    pub fn among(inner: Box<dyn SnapshotStore>) -> Self {
        Self {
            inner,
            known: Mutex::new(BTreeMap::new()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: vrs made the snapshot, or there is none.
    fn original(&self, snapshot: &SnapshotId) -> StoreResult<Option<Arc<Derived>>> {
        if let Some(known) = self.known().get(snapshot) {
            return Ok(known.clone());
        }
        let list = self.inner.snapshots()?.snapshots;
        let Some(record) = list.into_iter().find(|record| record.id == *snapshot) else {
            return Ok(None);
        };
        self.derive(&record)
            .map_err(|reason| self.damaged(&record, reason))
    }

    /// The error says why its machine is not understood.
    fn derive(&self, record: &SnapshotRecord) -> Result<Option<Arc<Derived>>, String> {
        if let Some(known) = self.known().get(&record.id) {
            return Ok(known.clone());
        }
        let made = if is_original(record) {
            let derived = Derived::of(self.inner.as_ref(), record);
            derived.map_err(|error| error.to_string())?.map(Arc::new)
        } else {
            None
        };
        self.known().insert(record.id, made.clone());
        Ok(made)
    }

    fn damaged(&self, record: &SnapshotRecord, reason: String) -> StoreError {
        StoreError::DamagedObject {
            location: self.inner.location(),
            object: record.description.clone().unwrap_or_default(),
            reason,
        }
    }

    /// Where a file is in the archive. Files that were derived are nowhere.
    fn stored(&self, snapshot: &SnapshotId, path: &TreePath) -> StoreResult<TreePath> {
        match self.original(snapshot)? {
            None => Ok(path.clone()),
            Some(derived) => match derived.content(path) {
                Some(Content::Stored(stored)) => Ok(stored.clone()),
                _ => Err(StoreError::NoSuchFile {
                    snapshot: *snapshot,
                    path: path.clone(),
                }),
            },
        }
    }

    fn translated(&self, request: &RestoreRequest) -> StoreResult<RestoreRequest> {
        let mut request = request.clone();
        for file in &mut request.files {
            file.path = self.stored(&request.snapshot, &file.path)?;
        }
        Ok(request)
    }
}

fn is_original(record: &SnapshotRecord) -> bool {
    record.tags.iter().any(|tag| tag == ORIGINAL)
}

impl SnapshotStore for Originals {
    fn id(&self) -> RepositoryId {
        self.inner.id()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn snapshots(&self) -> StoreResult<SnapshotList> {
        let mut list = self.inner.snapshots()?;
        for record in &mut list.snapshots {
            match self.derive(record) {
                Ok(None) => {}
                Ok(Some(derived)) => {
                    let machine = &derived.manifest.machine;
                    let own = [ORIGINAL.to_owned()];
                    record.tags =
                        snapshot::tags_for(machine.id, &machine.name, None, None, None, &own);
                    record.size_bytes = Some(derived.manifest.size_bytes());
                }
                Err(reason) => {
                    let name = record.description.as_deref().unwrap_or_default();
                    list.unreadable.push(format!("{name}: {reason}"));
                }
            }
        }
        Ok(list)
    }

    fn ingest<'a>(&'a self, progress: &'a dyn Progress) -> StoreResult<Box<dyn Ingest + 'a>> {
        self.inner.ingest(progress)
    }

    fn files(&self, snapshot: &SnapshotId) -> StoreResult<Vec<StoredFile>> {
        match self.original(snapshot)? {
            None => self.inner.files(snapshot),
            Some(derived) => Ok(derived.files()),
        }
    }

    fn open_file<'a>(
        &'a self,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> StoreResult<Box<dyn StoredFileReader + 'a>> {
        if let Some(derived) = self.original(snapshot)?
            && let Some(Content::Derived(bytes)) = derived.content(path)
        {
            return Ok(Box::new(derived::Bytes::new(path.clone(), bytes.clone())));
        }
        self.inner
            .open_file(snapshot, &self.stored(snapshot, path)?)
    }

    fn changed_bytes(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> StoreResult<u64> {
        let (old_path, new_path) = (self.stored(old.0, old.1)?, self.stored(new.0, new.1)?);
        self.inner
            .changed_bytes((old.0, &old_path), (new.0, &new_path))
    }

    fn chunk_lists(&self) -> Option<&dyn ChunkLists> {
        self.inner.chunk_lists()
    }

    fn restore(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> StoreResult<RestoreStats> {
        self.inner.restore(&self.translated(request)?, progress)
    }

    fn plan_restore(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> StoreResult<RestoreStats> {
        self.inner
            .plan_restore(&self.translated(request)?, progress)
    }

    fn delete(&self, snapshots: &[SnapshotId], progress: &dyn Progress) -> StoreResult<()> {
        self.inner.delete(snapshots, progress)
    }

    fn relabel(
        &self,
        snapshot: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> StoreResult<SnapshotId> {
        self.inner.relabel(snapshot, words, progress)
    }

    fn plan_prune(
        &self,
        options: &PruneOptions,
        without: &[SnapshotId],
        progress: &dyn Progress,
    ) -> StoreResult<PruneStats> {
        self.inner.plan_prune(options, without, progress)
    }

    fn prune(&self, options: &PruneOptions, progress: &dyn Progress) -> StoreResult<PruneStats> {
        self.inner.prune(options, progress)
    }

    fn check(&self, options: &CheckOptions, progress: &dyn Progress) -> StoreResult<CheckReport> {
        self.inner.check(options, progress)
    }

    fn repair(&self, options: &CheckOptions, progress: &dyn Progress) -> StoreResult<Vec<String>> {
        self.inner.repair(options, progress)
    }
}
