//! The files that a VMDK image consists of besides itself.
//!
//! A VMDK image may be a text, its descriptor, that names the files ("extents") with the data. Who
//! stores the image must store those, too. Nothing inside the extents is read. Source: VMware,
//! `Virtual Disk Format 1.1`, and what `VBoxManage` and `qemu-img` write.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::VMDK_DESCRIPTOR_MAGICS;
use crate::platform;

/// A file with data of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentFile {
    /// Where it is: as the image names it, put into the image's folder if it is relative.
    pub path: PathBuf,
    /// Whether it is a disk or partition of the host rather than a file.
    pub is_device: bool,
}

/// More than any descriptor has: VirtualBox itself stops at 64 KiB.
const MOST_DESCRIPTOR_BYTES: u64 = 1 << 20;

/// The files other than `image` itself that hold its data, in the order of the disk, each once; none
/// unless it is a VMDK descriptor.
///
/// # Errors
/// [`Error::Io`] if `image` cannot be read; [`Error::Descriptor`] if it is a descriptor that names
/// its extents in a way that is not understood, because what is not understood would not be stored.
pub fn extent_files(image: &Path) -> Result<Vec<ExtentFile>> {
    let mut bytes = Vec::new();
    let file = File::open(image).map_err(Error::io("open", image))?;
    let limit_bytes = MOST_DESCRIPTOR_BYTES.saturating_add(1);
    file.take(limit_bytes)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", image))?;
    let fault = |problem| Error::Descriptor {
        path: image.to_path_buf(),
        problem,
    };
    let names = extent_names(&bytes).map_err(fault)?;
    let folder = image.parent().unwrap_or(Path::new(""));
    let mut files: Vec<ExtentFile> = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let is_known = files.iter().any(|file| file.path == path);
        if !is_known && path != image {
            files.push(ExtentFile {
                is_device: is_device(&name, &path),
                path,
            });
        }
    }
    Ok(files)
}

/// The names of the extents in the descriptor `bytes`, which may be any file's beginning.
///
/// # Errors
/// What is not understood.
pub fn extent_names(bytes: &[u8]) -> std::result::Result<Vec<String>, &'static str> {
    if !VMDK_DESCRIPTOR_MAGICS
        .iter()
        .any(|magic| bytes.starts_with(magic))
    {
        return Ok(Vec::new());
    }
    if bytes.len() as u64 > MOST_DESCRIPTOR_BYTES {
        return Err("it is longer than 1 MiB");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not encoded in UTF-8")?;
    let lines = text.lines().map(str::trim).filter(|line| is_extent(line));
    lines
        .filter_map(|line| extent_name(line).transpose())
        .collect()
}

/// Whether a line of a descriptor has the form `ACCESS SECTORS TYPE ["NAME" [OFFSET]]`.
fn is_extent(line: &str) -> bool {
    let access = line.split_whitespace().next().unwrap_or_default();
    ["RW", "RDONLY", "NOACCESS"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(access))
}

fn extent_name(line: &str) -> std::result::Result<Option<String>, &'static str> {
    if line
        .split_whitespace()
        .nth(2)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("ZERO"))
    {
        return Ok(None);
    }
    let quoted = line
        .split_once('"')
        .and_then(|(_, rest)| rest.rsplit_once('"'));
    match quoted {
        Some((name, _)) if !name.is_empty() && !name.contains('\0') => Ok(Some(name.to_owned())),
        _ => Err("it has an extent without a file name"),
    }
}

/// Raw disks are named by device paths, on Windows too, whatever is there at the moment.
fn is_device(name: &str, path: &Path) -> bool {
    name.starts_with("/dev/") || name.starts_with(r"\\.\") || platform::is_device(path)
}
