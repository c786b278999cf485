//! Telling disk image formats apart by their contents; names and extensions are not looked at.

use std::fmt;
use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::platform;
use crate::vdi;

/// How a file stores a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageFormat {
    /// VirtualBox's own format.
    Vdi,
    /// VMware: a sparse extent, or the text descriptor of a split or flat image.
    Vmdk,
    /// Microsoft Virtual PC, fixed or dynamic.
    Vhd,
    /// Microsoft Hyper-V.
    Vhdx,
    /// QEMU's copy-on-write format, any version.
    Qcow2,
    /// Parallels HDD.
    Parallels,
    /// No magic number of a known format: a plain disk, or no disk at all.
    Raw,
}

/// `Microsoft Virtual Hard Disk Image Format Specification`: the footer takes the last 512 bytes;
/// images of Virtual PC before 2004 lack its last byte. Dynamic images begin with a copy.
const VHD_MAGIC: &[u8] = b"conectix";
const VHD_FOOTER_BYTES: u64 = 512;

/// How the text of a VMDK image begins; VMware has used both.
pub const VMDK_DESCRIPTOR_MAGICS: [&[u8]; 2] = [b"# Disk DescriptorFile", b"#Disk DescriptorFile"];

const LEADING_MAGICS: [(&[u8], ImageFormat); 9] = [
    (b"KDMV", ImageFormat::Vmdk),
    (b"COWD", ImageFormat::Vmdk),
    (VMDK_DESCRIPTOR_MAGICS[0], ImageFormat::Vmdk),
    (VMDK_DESCRIPTOR_MAGICS[1], ImageFormat::Vmdk),
    (b"vhdxfile", ImageFormat::Vhdx),
    (VHD_MAGIC, ImageFormat::Vhd),
    (b"QFI\xfb", ImageFormat::Qcow2),
    (b"WithoutFreeSpace", ImageFormat::Parallels),
    (b"WithouFreSpacExt", ImageFormat::Parallels),
];

impl ImageFormat {
    /// Reads the first and last 512 bytes of `path` and names its format.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or read.
    pub fn probe(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::probe_file(&file).map_err(Error::io("read", path))
    }

    fn probe_file(file: &File) -> std::io::Result<Self> {
        let len_bytes = file.metadata()?.len();
        let tail_offset_bytes = len_bytes.saturating_sub(VHD_FOOTER_BYTES);
        let head = read_sector(file, 0, len_bytes)?;
        let tail = read_sector(file, tail_offset_bytes, len_bytes)?;
        Ok(Self::recognise(&head, &tail))
    }

    /// The format of a file that begins with `head` and ends with `tail` (512 bytes each are
    /// enough; fewer if the file is shorter).
    #[must_use]
    pub fn recognise(head: &[u8], tail: &[u8]) -> Self {
        if vdi::has_signature(head) {
            return Self::Vdi;
        }
        let leading = LEADING_MAGICS
            .iter()
            .find(|(magic, _)| head.starts_with(magic));
        match leading {
            Some((_, format)) => *format,
            None if ends_with_vhd_footer(tail) => Self::Vhd,
            None => Self::Raw,
        }
    }
}

fn ends_with_vhd_footer(tail: &[u8]) -> bool {
    let is_whole = tail.starts_with(VHD_MAGIC);
    let lacks_last_byte = tail
        .get(1..)
        .is_some_and(|rest| rest.starts_with(VHD_MAGIC));
    is_whole || lacks_last_byte
}

fn read_sector(file: &File, offset_bytes: u64, len_bytes: u64) -> std::io::Result<Vec<u8>> {
    let available_bytes = len_bytes.saturating_sub(offset_bytes).min(VHD_FOOTER_BYTES);
    let mut sector = vec![0; usize::try_from(available_bytes).unwrap_or(0)];
    platform::read_exact_at(file, &mut sector, offset_bytes)?;
    Ok(sector)
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Vdi => "VDI",
            Self::Vmdk => "VMDK",
            Self::Vhd => "VHD",
            Self::Vhdx => "VHDX",
            Self::Qcow2 => "QCOW2",
            Self::Parallels => "Parallels",
            Self::Raw => "raw",
        })
    }
}
