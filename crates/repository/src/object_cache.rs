//! Copies of a repository's index files and snapshots on this host, so that each travels once.
//!
//! An object's name is the hash of its content, so a copy is never out of date, and whoever reads one
//! verifies it as if it came from the storage. What exists is always asked of the storage itself. A copy
//! that is missing or damaged costs its transfer again, and nothing else.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustic_core::{FileType, Id};
use tempfile::NamedTempFile;

/// The copies of one repository.
pub(crate) struct ObjectCache {
    folder: PathBuf,
}

impl ObjectCache {
    /// In a folder that may not exist yet.
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The sealed content, to be verified.
    pub(crate) fn get(&self, kind: FileType, id: Id) -> Option<Vec<u8>> {
        std::fs::read(self.folder_of(kind)?.join(id.to_hex().as_str())).ok()
    }

    /// Keeps a copy of a verified object.
    pub(crate) fn put(&self, kind: FileType, id: Id, sealed: &[u8]) {
        if let Some(folder) = self.folder_of(kind) {
            // Who cannot keep a copy fetches the object again.
            let _ = write(&folder, &folder.join(id.to_hex().as_str()), sealed);
        }
    }

    /// Removes the copies of objects that are no longer there.
    pub(crate) fn retain(&self, kind: FileType, is_there: impl Fn(&Id) -> bool) {
        let folder = self.folder_of(kind);
        let copies = folder.and_then(|folder| std::fs::read_dir(folder).ok());
        for copy in copies.into_iter().flatten().flatten() {
            let id = copy.file_name().to_str().and_then(|name| name.parse().ok());
            if id.is_some_and(|id| !is_there(&id)) {
                let _ = std::fs::remove_file(copy.path());
            }
        }
    }

    /// None for objects that are too large, secret or read only once.
    fn folder_of(&self, kind: FileType) -> Option<PathBuf> {
        let name = match kind {
            FileType::Index => "index",
            FileType::Snapshot => "snapshots",
            FileType::Config | FileType::Key | FileType::Pack => return None,
        };
        Some(self.folder.join(name))
    }
}

fn write(folder: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
