//! What differs between operating systems: private files, folder syncing, who holds a file open, the
//! processor's name.
//!
//! Guarantees: files and folders made here can be read by their owner only, where the system knows
//! owners. Not guaranteed: that [`writers_of`] sees processes of other users.

pub(crate) mod reflink;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_holder::FileHolder;

/// Creates a folder, with its parents, that only its owner may enter.
pub fn create_private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .map_err(|error| Error::io("create the folder", folder, error))
}

/// Creates or empties a file that only its owner may read.
pub fn create_private_file(path: &Path) -> Result<File> {
    private_options()
        .truncate(true)
        .open(path)
        .map_err(|error| Error::io("create", path, error))
}

/// Opens a file that only its owner may read, creating it if need be and keeping its content.
pub fn open_private_file(path: &Path) -> Result<File> {
    private_options()
        .truncate(false)
        .open(path)
        .map_err(|error| Error::io("open", path, error))
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Whose a file or folder is, where the system knows owners.
pub fn owner_of(path: &Path) -> Result<Option<Owner>> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("look at", path, error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(Some(Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
        }))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Ok(None)
    }
}

/// Refuses a file with a secret that others than its owner can read, where the system can tell.
pub fn refuse_if_others_can_read(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("look at", path, error))?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Err(Error::OpenSecret {
            path: path.to_owned(),
        });
    }
    #[cfg(not(unix))]
    let _ = metadata;
    Ok(())
}

/// Lets everybody read a file that only its owner could, where the system knows owners.
pub fn let_others_read(path: &Path) -> Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(|error| Error::io("change the mode of", path, error))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes the creation, renaming or removal of entries in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| Error::io("sync the folder", folder, error))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Replaces a file's content with one atomic rename; the new content is durable first. A crash may
/// leave [`unfinished`]; the next replacement takes it away.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let failed = |error| Error::io("write", path, error);
    let new = unfinished(path);
    let _ = fs::remove_file(&new);
    let mut file = create_private_file(&new)?;
    std::io::Write::write_all(&mut file, content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    sync_folder(folder)
}

/// Removes a file for good, if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Refuses a file that some process has open for writing.
pub fn refuse_if_written_to(path: &Path) -> Result<()> {
    match writers_of(path)?.into_iter().next() {
        Some(holder) => Err(Error::FileInUse {
            path: path.to_owned(),
            holder,
        }),
        None => Ok(()),
    }
}

/// Where the new content of a file is until it is complete.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".vrs-new");
    name.into()
}

/// The processes that have `path` open for writing, as far as this user may see.
#[cfg(target_os = "linux")]
pub fn writers_of(path: &Path) -> Result<Vec<FileHolder>> {
    /// A process that is being started has for a moment all that its parent has open, also files that
    /// the parent has closed since.
    const TIME_TO_START: std::time::Duration = std::time::Duration::from_millis(50);
    if writers_now(path)?.is_empty() {
        return Ok(Vec::new());
    }
    std::thread::sleep(TIME_TO_START);
    writers_now(path)
}

#[cfg(target_os = "linux")]
fn writers_now(path: &Path) -> Result<Vec<FileHolder>> {
    let wanted =
        file_identity(&fs::metadata(path).map_err(|error| Error::io("look at", path, error))?);
    let processes =
        fs::read_dir("/proc").map_err(|error| Error::io("read", Path::new("/proc"), error))?;
    Ok(processes
        .flatten()
        .filter_map(|process| {
            let process_id = process.file_name().to_str()?.parse().ok()?;
            (process_id != std::process::id() && writes_to(&process.path(), wanted)).then(|| {
                FileHolder {
                    process_id,
                    name: fs::read_to_string(process.path().join("comm"))
                        .unwrap_or_default()
                        .trim()
                        .to_owned(),
                }
            })
        })
        .collect())
}

#[cfg(target_os = "linux")]
fn writes_to(process: &Path, wanted: (u64, u64)) -> bool {
    // Processes end while they are looked at, and those of others are closed to us: both are skipped.
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::metadata(descriptor.path()).is_ok_and(|file| file_identity(&file) == wanted)
            && is_open_for_writing(&process.join("fdinfo").join(descriptor.file_name()))
    })
}

#[cfg(target_os = "linux")]
fn is_open_for_writing(descriptor_info: &Path) -> bool {
    const ACCESS_MODE: u32 = 0o3;
    fs::read_to_string(descriptor_info).is_ok_and(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
            .is_some_and(|flags| flags & ACCESS_MODE != 0)
    })
}

#[cfg(target_os = "linux")]
fn file_identity(file: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

/// Elsewhere an open file shows itself when it is opened (Windows) or by its changed stamp (macOS).
#[cfg(not(target_os = "linux"))]
pub fn writers_of(path: &Path) -> Result<Vec<FileHolder>> {
    let _ = path;
    Ok(Vec::new())
}

/// Bytes that this user may still write to the volume that holds `path`.
pub fn free_bytes(path: &Path) -> Result<u64> {
    fs4::available_space(path).map_err(|error| Error::io("ask for the free space of", path, error))
}

/// Each of some places, and how many bytes are needed in all on its volume.
pub fn needed_on_volumes(needed: &[(PathBuf, u64)]) -> impl Iterator<Item = (&Path, u64)> {
    needed.iter().map(|(place, _)| {
        let volume = volume_of(place);
        let here = needed
            .iter()
            .filter(|(other, _)| volume_of(other) == volume);
        let bytes = here.map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        (place.as_path(), bytes)
    })
}

/// Bytes that a file takes on its volume; its length where that is not known.
pub fn allocated_bytes(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("look at", path, error))?;
    #[cfg(unix)]
    {
        const BLOCK_BYTES: u64 = 512;
        let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
        Ok(blocks.saturating_mul(BLOCK_BYTES))
    }
    #[cfg(not(unix))]
    Ok(metadata.len())
}

/// Whether a folder is there and this user's, or at least open to this user. Everything is open to
/// root, and yet the folders of others are none of root's.
#[cfg(unix)]
pub fn is_own_folder(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid();
    let is_open = || rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    fs::metadata(path).is_ok_and(|folder| {
        folder.is_dir() && (folder.uid() == user.as_raw() || (!user.is_root() && is_open()))
    })
}

/// Whether a folder is there; whose it is cannot be told.
#[cfg(not(unix))]
pub fn is_own_folder(path: &Path) -> bool {
    path.is_dir()
}

/// What is equal for files on one volume; none where that cannot be told.
#[cfg(unix)]
pub fn volume_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|file| file.dev())
}

/// Drive letters and shares stand at the beginning of a path.
#[cfg(not(unix))]
pub fn volume_of(path: &Path) -> Option<std::ffi::OsString> {
    let first = path.components().next()?;
    Some(first.as_os_str().to_owned())
}

/// The answer of the processor to CPUID: EAX, EBX, ECX, EDX. `None` where it has none.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub fn cpuid(leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    const FIRST_EXTENDED: u32 = 0x8000_0000;
    let last = raw_cpuid::cpuid!(leaf & FIRST_EXTENDED).eax;
    let answer = raw_cpuid::cpuid!(leaf, subleaf);
    (leaf <= last).then_some([answer.eax, answer.ebx, answer.ecx, answer.edx])
}

/// Other processors have no such question.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
pub fn cpuid(leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    let _ = (leaf, subleaf);
    None
}

/// The processor's model name, from where Linux shows it.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_named_and_a_reader_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vdi");
        fs::write(&path, b"x").unwrap();
        let sleeper = |redirect: &str| {
            std::process::Command::new("sh")
                .args(["-c", &format!("exec sleep 60 {redirect} \"$0\"")])
                .arg(&path)
                .spawn()
                .unwrap()
        };
        let mut reader = sleeper("<");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(writers_of(&path).unwrap(), []);
        let mut writer = sleeper(">>");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let holders = writers_of(&path).unwrap();
        reader.kill().unwrap();
        writer.kill().unwrap();
        reader.wait().unwrap();
        writer.wait().unwrap();
        assert_eq!(holders.len(), usize::from(cfg!(target_os = "linux")));
        assert!(
            holders
                .iter()
                .all(|holder| holder.process_id == writer.id() && holder.name == "sleep")
        );
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_private_folder(&inner).unwrap();
        let file = create_private_file(&inner.join("f")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(&inner).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
