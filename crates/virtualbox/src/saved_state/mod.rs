//! Saved states (`.sav`): what the file says about itself, and whether it is whole.
//!
//! The format, as VirtualBox has written it since 3.1 and as observed in files of 7.2.22, numbers
//! little-endian: a [header](header) of 64 bytes; [units](unit), each a header with a name and then
//! [records](record) up to a terminator; a unit without a name that ends them; a [directory] of the
//! units of the last pass; a footer. A checksum (CRC-32) of everything so far runs through the file
//! and is noted at each unit's beginning and end and in the footer.
//!
//! Guarantees: memory is bounded whatever a file says; a file of a format version that is not known
//! is told from a damaged one. [`SavedState::read`] looks at both ends of the file only;
//! [`SavedState::verify`] reads all of it and finds every changed, missing or additional byte that
//! the checksums cover, which are all. Not guaranteed: that VirtualBox can resume from the state;
//! the meaning of the devices' data is theirs.

mod directory;
mod fault;
mod fields;
mod header;
mod processor;
mod record;
mod stream;
mod unit;
mod unit_data;
mod verification;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use vrs_progress::Progress;

pub use self::fault::{SavedStateFault, SavedStatePart};
pub use self::processor::{CpuidLeaf, GuestProcessor};
pub use self::unit::SavedStateUnit;

use self::directory::Directory;
use self::fault::{Failure, Outcome};
use self::header::Header;
use self::unit_data::HostDescription;
use crate::error::{Error, Result};
use crate::version::Version;

/// What a saved state says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// The VirtualBox that wrote it; the text has no revision.
    pub version: Version,
    /// Revision of VirtualBox's source.
    pub revision: u32,
    /// 32 or 64.
    pub host_bits: u8,
    /// System and architecture of the host, for example `linux.amd64`.
    pub host: Option<String>,
    /// `release` or `debug`.
    pub build_type: Option<String>,
    /// Whether it was saved while the machine ran (`snapshot take --live`). Memory is then stored in
    /// several passes.
    pub is_live: bool,
    /// Whether the data has a checksum; VirtualBox always writes one into a file.
    pub is_checksummed: bool,
    /// The units of the last pass, in the order of the file.
    pub units: Vec<SavedStateUnit>,
    /// The processor that the guest sees. `None` where it is none of the x86 family, or not found.
    pub processor: Option<GuestProcessor>,
    /// Size of the file.
    pub length_bytes: u64,
}

impl SavedState {
    /// Reads what the file says about itself, without looking at most of it.
    ///
    /// # Errors
    /// [`Error::SavedState`] where header, directory or footer are missing or damaged, [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_from(&mut open(path)?, path)
    }

    /// As [`SavedState::read`], from wherever the file is. Reads its two ends, the headers of its units
    /// and the processors. `name` is for errors.
    ///
    /// # Errors
    /// As [`SavedState::read`].
    pub fn read_from(file: &mut (impl Read + Seek), name: &Path) -> Result<Self> {
        read(file).map_err(Failure::of(name))
    }

    /// Reads the whole file and checks it. Reports the bytes read, and stops when asked to.
    ///
    /// # Errors
    /// [`Error::SavedState`] with the first fault found, [`Error::Io`], [`Error::Interrupted`].
    pub fn verify(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let mut file = open(path)?;
        verify(&mut file, progress).map_err(Failure::of(path))
    }

    /// The unit of a name, for example `pgm`, the guest's memory.
    pub fn unit(&self, name: &str) -> Option<&SavedStateUnit> {
        self.units.iter().find(|unit| unit.name == name)
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Io {
        operation: "open",
        path: path.to_owned(),
        source,
    })
}

/// What is at the two ends of the file.
struct Ends {
    header: Header,
    directory: Directory,
    length_bytes: u64,
}

impl Ends {
    fn read(file: &mut (impl Read + Seek)) -> Outcome<Self> {
        let header = Header::read(file)?;
        let length_bytes = file.seek(SeekFrom::End(0))?;
        let directory = Directory::read(file, length_bytes)?;
        Ok(Self {
            header,
            directory,
            length_bytes,
        })
    }

    fn describe(&self, file: &mut (impl Read + Seek)) -> Outcome<SavedState> {
        let units = self.directory.units(file)?;
        let mut data_of = |name: &str| {
            let unit = units.iter().find(|unit| unit.name == name)?;
            unit_data::read(file, unit).ok()
        };
        let host = data_of("SSM").map(|data| HostDescription::parse(&data));
        let processor = data_of("cpum").and_then(|data| GuestProcessor::find(&data));
        let HostDescription { system, build_type } = host.unwrap_or_default();
        Ok(SavedState {
            version: self.header.version.clone(),
            revision: self.header.revision,
            host_bits: self.header.host_bits,
            host: system,
            build_type,
            is_live: self.header.is_live,
            is_checksummed: self.header.is_checksummed,
            units,
            processor,
            length_bytes: self.length_bytes,
        })
    }
}

fn read(file: &mut (impl Read + Seek)) -> Outcome<SavedState> {
    Ends::read(file)?.describe(file)
}

fn verify(file: &mut (impl Read + Seek), progress: &dyn Progress) -> Outcome<SavedState> {
    let ends = Ends::read(file)?;
    let saved_state = ends.describe(file)?;
    verification::run(file, &ends.header, &ends.directory, progress)?;
    Ok(saved_state)
}

#[cfg(test)]
mod tests;
