//! A folder as storage.
//!
//! An object is written under a temporary name beside its own, flushed, and renamed; then the folder
//! is flushed, without which the name can be lost when the power fails.

use std::fs::{self, DirEntry, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::leftovers::Leftovers;
use super::limit::Limits;
use super::storage::{
    Ground, Kind, Listed, NO_ID, Object, Outcome, Part, Storage, TEMPORARY, listed,
};
use crate::direct::DirectStream;
use crate::platform;

/// See the module.
pub(super) struct Local {
    folder: PathBuf,
    limits: Arc<Limits>,
    leftovers: Leftovers<PathBuf>,
}

impl Local {
    pub(super) const fn new(folder: PathBuf, limits: Arc<Limits>) -> Self {
        Self {
            folder,
            limits,
            leftovers: Leftovers::none(),
        }
    }

    fn path(&self, object: Object) -> PathBuf {
        self.folder.join(object.path())
    }

    fn kind_folder(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.folder())
    }

    /// The objects in a folder, with what `size_bytes` says of them.
    fn list_folder(
        &self,
        folder: &Path,
        size_bytes: impl Fn(&DirEntry) -> Option<u64>,
    ) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in entries(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|_| is_file(&entry)) else {
                continue;
            };
            let modified = || entry.metadata().ok()?.modified().ok();
            self.leftovers.note(name, modified, || entry.path());
            found.extend(size_bytes(&entry).and_then(|bytes| listed(name, bytes)));
        }
        Ok(found)
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
        if kind != rustic_core::FileType::Pack.into() {
            // A thousand sizes that nobody asked for would take longer than the names.
            return Ok(self.list_folder(&folder, |_| Some(0))?);
        }
        let mut packs = Vec::new();
        for folder in pack_folders(&folder)? {
            let sized = |file: &DirEntry| Some(file.metadata().ok()?.len());
            packs.append(&mut self.list_folder(&folder, sized)?);
        }
        Ok(packs)
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
        for file in self.leftovers.take() {
            // The space is worth no failure.
            let _ = fs::remove_file(file);
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

/// What is in a folder, nothing if it is not there. An entry is asked about by its name in the folder: a path would be
/// followed from the root for each pack.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        entries => Ok(Some(entries?).into_iter().flatten()),
    }
}

/// The folder itself and those with two digits in it.
fn pack_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    for entry in entries(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && entry.file_name().len() == 2 {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// It may be gone meanwhile.
fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file())
}
