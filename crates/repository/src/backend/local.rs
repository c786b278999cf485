//! A folder as storage.
//!
//! An object is written under a temporary name beside its own, flushed, and renamed; then the folder
//! is flushed, without which the name can be lost when the power fails.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walkdir::{DirEntry, WalkDir};

use super::limit::Limits;
use super::storage::{
    Ground, Kind, Listed, NO_ID, Object, Outcome, Part, Storage, TEMPORARY, listed,
};
use crate::direct::DirectStream;
use crate::platform;

const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module.
pub(super) struct Local {
    folder: PathBuf,
    limits: Arc<Limits>,
}

impl Local {
    pub(super) const fn new(folder: PathBuf, limits: Arc<Limits>) -> Self {
        Self { folder, limits }
    }

    fn path(&self, object: Object) -> PathBuf {
        self.folder.join(object.path())
    }

    fn kind_folder(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.folder())
    }

    /// Writes without flushing the folder.
    fn persist(&self, path: &Path, parent: &Path, content: &[Bytes]) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!("{name}{TEMPORARY}"))
            .permissions_if_unix()
            .tempfile_in(parent)?;
        let (file, temporary) = file.into_parts();
        let mut stream = DirectStream::new(&file, &temporary);
        for piece in content
            .iter()
            .flat_map(|part| part.chunks(self.limits.upload.piece_bytes()))
        {
            self.limits.upload.wait(piece.len());
            stream.write_all(piece)?;
        }
        stream.flush()?;
        drop(stream);
        file.sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Other programs of the same repository may run as other users of its group.
trait UsualPermissions {
    fn permissions_if_unix(&mut self) -> &mut Self;
}

impl UsualPermissions for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_if_unix(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        self.permissions(fs::Permissions::from_mode(0o666))
    }

    #[cfg(not(unix))]
    fn permissions_if_unix(&mut self) -> &mut Self {
        self
    }
}

impl Storage for Local {
    fn ground(&self) -> Outcome<Ground> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ground::Nothing),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(Ground::Unusable);
            }
            entries => entries?,
        };
        let names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        Ok(Ground::of_names(names.iter().map(String::as_str)))
    }

    fn create(&self) -> Outcome<()> {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_config()) {
            fs::create_dir_all(self.kind_folder(kind))?;
        }
        let packs = self.kind_folder(rustic_core::FileType::Pack.into());
        for first in 0..=u8::MAX {
            fs::create_dir_all(packs.join(format!("{first:02x}")))?;
        }
        platform::sync_folder(&packs)?;
        Ok(platform::sync_folder(&self.folder)?)
    }

    fn list(&self, kind: Kind) -> Outcome<Vec<Listed>> {
        let folder = self.kind_folder(kind);
        if kind.is_config() {
            return match fs::metadata(folder) {
                Err(error) if is_absence(&error) => Ok(Vec::new()),
                found => Ok(vec![(NO_ID, size(&found?))]),
            };
        }
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        if kind == rustic_core::FileType::Pack.into() {
            let entries = WalkDir::new(folder).into_iter().flatten();
            return Ok(entries.filter_map(|entry| listed_pack(&entry)).collect());
        }
        // A thousand sizes that nobody asked for would take longer than the names.
        let files = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        Ok(files
            .filter_map(|file| listed(file.file_name().to_str()?, 0))
            .collect())
    }

    fn read(&self, object: Object, part: Option<Part>) -> Outcome<Bytes> {
        let mut file = File::open(self.path(object))?;
        let mut content = Vec::new();
        match part {
            None => {
                file.read_to_end(&mut content)?;
            }
            Some(part) => {
                file.seek(SeekFrom::Start(part.offset.into()))?;
                let length_bytes = part.length_bytes as usize;
                content.reserve_exact(length_bytes);
                file.take(part.length_bytes.into())
                    .read_to_end(&mut content)?;
                if content.len() < length_bytes {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
        self.limits.download.wait(content.len());
        Ok(content.into())
    }

    fn write(&self, object: Object, content: &[Bytes]) -> Outcome<()> {
        let path = self.path(object);
        let parent = path.parent().unwrap_or(&self.folder);
        match self.persist(&path, parent, content) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(parent)?;
                self.persist(&path, parent, content)?;
            }
            outcome => outcome?,
        }
        Ok(platform::sync_folder(parent)?)
    }

    fn remove(&self, object: Object) -> Outcome<()> {
        let path = self.path(object);
        fs::remove_file(&path)?;
        Ok(platform::sync_folder(
            path.parent().unwrap_or(&self.folder),
        )?)
    }

    fn remove_leftovers(&self) {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_config()) {
            let files = WalkDir::new(self.kind_folder(kind)).into_iter().flatten();
            for file in files.filter(is_leftover) {
                // The space is worth no failure.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// Whether it only means that there is no such file, and can be none.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn size(metadata: &fs::Metadata) -> u32 {
    u32::try_from(metadata.len()).unwrap_or(u32::MAX)
}

fn listed_pack(entry: &DirEntry) -> Option<Listed> {
    let is_file = entry.file_type().is_file();
    let name = entry.file_name().to_str().filter(|_| is_file)?;
    listed(name, entry.metadata().ok()?.len())
}

fn is_leftover(file: &DirEntry) -> bool {
    let age = || file.metadata().ok()?.modified().ok()?.elapsed().ok();
    file.file_type().is_file()
        && file.file_name().to_string_lossy().contains(TEMPORARY)
        && age().is_some_and(|age| age > LEFTOVER_AGE)
}
