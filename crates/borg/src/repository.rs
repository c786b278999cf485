//! A borg repository as a storage of snapshots.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vrs_progress::Progress;
use vrs_repository::id::{RepositoryId, SnapshotId};
use vrs_repository::store::{
    CheckOptions, CheckReport, ChunkLists, Ingest, PruneOptions, PruneStats, RestoreRequest,
    RestoreStats, SnapshotList, SnapshotStore, SnapshotWords, StoredFile, StoredFileReader,
    TreePath,
};
use vrs_repository::{Access, Error, Password, Result};

use crate::answers::{self, Difference, Info, Item};
use crate::archive::{self, Archive, Listing};
use crate::extract::FileReader;
use crate::ingest::BorgIngest;
use crate::location::BorgLocation;
use crate::program::Borg;

/// How to reach a repository.
#[derive(Debug, Clone, Default)]
pub struct BorgOptions {
    /// `ssh`, limits, and whether the user asked to stop.
    pub access: Access,
    /// Variables that hold secrets and that no child process needs.
    pub secret_variables: Vec<String>,
    /// Where borg keeps its cache and what it knows of repositories, instead of the home folder.
    pub base_folder: Option<PathBuf>,
}

/// A borg repository, open.
#[derive(Debug)]
pub struct BorgRepository {
    pub(crate) borg: Borg,
    id: RepositoryId,
    /// As they were listed last.
    archives: Mutex<Vec<Archive>>,
    /// Of the archive that was asked for last.
    files: Mutex<Option<(SnapshotId, Arc<Vec<ArchivedFile>>)>>,
}

/// A file as borg lists it.
#[derive(Debug, Clone)]
pub(crate) struct ArchivedFile {
    pub(crate) path: TreePath,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Option<jiff::Timestamp>,
    /// Whether nothing of it was lost in a repair.
    pub(crate) is_whole: bool,
}

impl BorgRepository {
    /// Creates a repository whose key lies in it, protected by the password.
    pub fn init(location: &BorgLocation, password: &Password, options: &BorgOptions) -> Result<()> {
        let borg = Borg::new(location, password, options);
        let arguments = [
            "--encryption=repokey-blake2",
            "--make-parent-dirs",
            &location.argument(),
        ];
        borg.answer("create", &["init"], arguments, None)?;
        Self::open(location, password, options).map(drop)
    }

    /// Opens a repository.
    pub fn open(
        location: &BorgLocation,
        password: &Password,
        options: &BorgOptions,
    ) -> Result<Self> {
        let mut repository = Self {
            borg: Borg::new(location, password, options),
            id: RepositoryId::from_bytes([0; 32]),
            archives: Mutex::new(Vec::new()),
            files: Mutex::new(None),
        };
        let id = repository.refresh()?.repository_id;
        repository.id = RepositoryId::from_hex(&id).ok_or_else(|| {
            let reason = format!("its id is {id:?}");
            repository.borg.failed("read", reason)
        })?;
        Ok(repository)
    }

    /// Its sums. borg learns what other hosts stored meanwhile.
    pub(crate) fn info(&self, progress: Option<&dyn Progress>) -> Result<Info> {
        let location = [self.borg.location.argument()];
        self.borg
            .json("read", &["info", "--json"], location, progress)
    }

    /// The archives now.
    pub(crate) fn refresh(&self) -> Result<Listing> {
        let listing = archive::list(&self.borg)?;
        lock(&self.archives).clone_from(&listing.archives);
        Ok(listing)
    }

    /// A snapshot's archive.
    pub(crate) fn archive(&self, id: &SnapshotId) -> Result<Archive> {
        let is_it = |archive: &&Archive| archive.id == *id;
        if let Some(found) = lock(&self.archives).iter().find(is_it) {
            return Ok(found.clone());
        }
        let now = self.refresh()?.archives;
        now.iter()
            .find(is_it)
            .cloned()
            .ok_or_else(|| Error::NoSnapshot {
                location: self.location(),
                snapshot: *id,
            })
    }

    /// The regular files of an archive.
    pub(crate) fn archived_files(&self, id: &SnapshotId) -> Result<Arc<Vec<ArchivedFile>>> {
        if let Some((of, files)) = lock(&self.files).as_ref()
            && of == id
        {
            return Ok(Arc::clone(files));
        }
        let archive = self.archive(id)?;
        let arguments = [
            "--json-lines".to_owned(),
            "--format".to_owned(),
            "{size}{mtime}{health}".to_owned(),
            self.borg.location.archive_argument(&archive.name),
        ];
        let answer = self.borg.answer("list", &["list"], arguments, None)?;
        let mut files = Vec::new();
        for line in answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let item: Item = self.borg.parse("list", line)?;
            files.extend(archived_file(item, id)?);
        }
        files.sort_by(|one: &ArchivedFile, other| one.path.cmp(&other.path));
        let files = Arc::new(files);
        *lock(&self.files) = Some((*id, Arc::clone(&files)));
        Ok(files)
    }

    pub(crate) fn archived_file(&self, id: &SnapshotId, path: &TreePath) -> Result<ArchivedFile> {
        let files = self.archived_files(id)?;
        let found = files.iter().find(|file| file.path == *path).cloned();
        found.ok_or_else(|| Error::NoSuchFile {
            snapshot: *id,
            path: path.clone(),
        })
    }

    pub(crate) fn broken(&self) -> Error {
        Error::Broken {
            location: self.location(),
        }
    }
}

/// None: no regular file.
fn archived_file(item: Item, snapshot: &SnapshotId) -> Result<Option<ArchivedFile>> {
    if item.kind != "-" {
        return Ok(None);
    }
    let path = TreePath::new(item.path).map_err(|source| Error::UnusableName {
        snapshot: *snapshot,
        source,
    })?;
    Ok(Some(ArchivedFile {
        path,
        size_bytes: item.size,
        modified: answers::time(&item.mtime),
        is_whole: item.healthy,
    }))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SnapshotStore for BorgRepository {
    fn id(&self) -> RepositoryId {
        self.id
    }

    fn location(&self) -> String {
        self.borg.place()
    }

    fn snapshots(&self) -> Result<SnapshotList> {
        let Listing {
            archives,
            unreadable,
            ..
        } = self.refresh()?;
        let mut snapshots: Vec<_> = archives.iter().filter_map(Archive::record).collect();
        snapshots.sort_by_key(|record| (record.time, record.id));
        Ok(SnapshotList {
            snapshots,
            unreadable,
        })
    }

    fn ingest<'a>(&'a self, progress: &'a dyn Progress) -> Result<Box<dyn Ingest + 'a>> {
        Ok(Box::new(BorgIngest::new(self, progress)?))
    }

    fn files(&self, snapshot: &SnapshotId) -> Result<Vec<StoredFile>> {
        let files = self.archived_files(snapshot)?;
        let stored = files.iter().map(|file| StoredFile {
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            stamp: None,
        });
        Ok(stored.collect())
    }

    fn open_file<'a>(
        &'a self,
        snapshot: &SnapshotId,
        path: &TreePath,
    ) -> Result<Box<dyn StoredFileReader + 'a>> {
        let file = self.archived_file(snapshot, path)?;
        let archive = self.archive(snapshot)?;
        Ok(Box::new(FileReader::new(self, archive.name, file)))
    }

    fn changed_bytes(
        &self,
        old: (&SnapshotId, &TreePath),
        new: (&SnapshotId, &TreePath),
    ) -> Result<u64> {
        let file = self.archived_file(new.0, new.1)?;
        // borg compares files of one name only.
        if old.1 != new.1 {
            return Ok(file.size_bytes);
        }
        let (old, new) = (self.archive(old.0)?, self.archive(new.0)?);
        let arguments = [
            "--json-lines".to_owned(),
            "--content-only".to_owned(),
            self.borg.location.archive_argument(&old.name),
            new.name,
            file.path.to_string(),
        ];
        let answer = self.borg.answer("read", &["diff"], arguments, None)?;
        let mut changed: u64 = 0;
        for line in answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let difference: Difference = self.borg.parse("read", line)?;
            for change in difference.changes {
                let bytes = match change.kind.as_str() {
                    "modified" => change.added.unwrap_or(file.size_bytes),
                    "added" => change.size.unwrap_or(file.size_bytes),
                    _ => 0,
                };
                changed = changed.saturating_add(bytes);
            }
        }
        Ok(changed)
    }

    /// borg shows nobody its chunks.
    fn chunk_lists(&self) -> Option<&dyn ChunkLists> {
        None
    }

    fn restore(&self, request: &RestoreRequest, progress: &dyn Progress) -> Result<RestoreStats> {
        self.restore_files(request, progress)
    }

    fn plan_restore(
        &self,
        request: &RestoreRequest,
        progress: &dyn Progress,
    ) -> Result<RestoreStats> {
        self.plan_files(request, progress)
    }

    fn delete(&self, snapshots: &[SnapshotId], progress: &dyn Progress) -> Result<()> {
        self.delete_archives(snapshots, progress)
    }

    fn relabel(
        &self,
        snapshot: &SnapshotId,
        words: &SnapshotWords,
        progress: &dyn Progress,
    ) -> Result<SnapshotId> {
        self.relabel_archive(snapshot, words, progress)
    }

    fn plan_prune(
        &self,
        _options: &PruneOptions,
        without: &[SnapshotId],
        progress: &dyn Progress,
    ) -> Result<PruneStats> {
        self.plan_compact(without, progress)
    }

    fn prune(&self, options: &PruneOptions, progress: &dyn Progress) -> Result<PruneStats> {
        self.compact(options, progress)
    }

    fn check(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<CheckReport> {
        self.check_archives(options, progress)
    }

    fn repair(&self, options: &CheckOptions, progress: &dyn Progress) -> Result<Vec<String>> {
        self.repair_archives(options, progress)
    }
}
