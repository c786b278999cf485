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
use std::sync::{Arc, Mutex, PoisonError};

use vrs_progress::Progress;
use vrs_repository::id::{RepositoryId, SnapshotId};
use vrs_repository::store::{
    CheckOptions, CheckReport, Ingest, ORIGINAL, PruneOptions, PruneStats, RestoreRequest,
    RestoreStats, SnapshotList, SnapshotRecord, SnapshotStore, SnapshotWords, StoredFile,
    StoredFileReader, TreePath,
};
use vrs_repository::{Error as StoreError, Result as StoreResult};

use self::derived::{Content, Derived};
use crate::snapshot;

/// See the module.
pub struct Originals {
    inner: Box<dyn SnapshotStore>,
    derived: Mutex<BTreeMap<SnapshotId, Arc<Derived>>>,
}

impl Originals {
    /// Shows the originals in a repository.
    #[must_use]
    pub fn among(inner: Box<dyn SnapshotStore>) -> Self {
        Self {
            inner,
            derived: Mutex::new(BTreeMap::new()),
        }
    }

    /// None: vrs made the snapshot. Only what was listed before is known.
    fn known(&self, snapshot: &SnapshotId) -> StoreResult<Option<Arc<Derived>>> {
        if let Some(derived) = self.remembered(snapshot) {
            return Ok(Some(derived));
        }
        let list = self.inner.snapshots()?.snapshots;
        let record = list.into_iter().find(|record| record.id == *snapshot);
        match record.filter(is_original) {
            Some(record) => self.derive(&record).map_or_else(
                |reason| Err(self.damaged(&record, reason)),
                |derived| Ok(Some(derived)),
            ),
            None => Ok(None),
        }
    }

    fn remembered(&self, snapshot: &SnapshotId) -> Option<Arc<Derived>> {
        let derived = self.derived.lock();
        let derived = derived.unwrap_or_else(PoisonError::into_inner);
        derived.get(snapshot).cloned()
    }

    /// The error says why it is no machine.
    fn derive(&self, record: &SnapshotRecord) -> Result<Arc<Derived>, String> {
        if let Some(derived) = self.remembered(&record.id) {
            return Ok(derived);
        }
        let made = Derived::of(self.inner.as_ref(), record).map_err(|error| error.to_string())?;
        let made = Arc::new(made);
        let derived = self.derived.lock();
        let mut derived = derived.unwrap_or_else(PoisonError::into_inner);
        derived.insert(record.id, Arc::clone(&made));
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
        match self.known(snapshot)? {
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
        for record in list.snapshots.iter_mut().filter(|record| is_original(record)) {
            match self.derive(record) {
                Ok(derived) => {
                    let machine = &derived.manifest.machine;
                    let own = [ORIGINAL.to_owned()];
                    let tags = snapshot::tags_for(machine.id, &machine.name, None, None, None, &own);
                    record.tags = tags;
                    record.size_bytes = Some(derived.manifest.size_bytes());
                }
                // Anybody may name an archive like that.
                Err(_) => record.tags.clear(),
            }
        }
        Ok(list)
    }

    fn ingest<'a>(&'a self, progress: &'a dyn Progress) -> StoreResult<Box<dyn Ingest + 'a>> {
        self.inner.ingest(progress)
    }

    fn files(&self, snapshot: &SnapshotId) -> StoreResult<Vec<StoredFile>> {
        match self.known(snapshot)? {
            None => self.inner.files(snapshot),
            Some(derived) => Ok(derived.files()),
        }
    }

    fn open_file<'a>(
        &'a self,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> StoreResult<Box<dyn StoredFileReader + 'a>> {
        if let Some(derived) = self.known(snapshot)?
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
        self.inner.plan_restore(&self.translated(request)?, progress)
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
