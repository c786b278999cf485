//! The first 64 bytes.

use std::io::{Read, Seek, SeekFrom};

use super::fault::{Outcome, SavedStateFault, SavedStatePart, check_crc};
use super::fields::{Fields, crc_without};
use super::stream::read_array;
use crate::version::Version;

pub(super) const HEADER_BYTES: usize = 64;

const MAGIC_BYTES: usize = 32;
/// What files of all versions begin with.
const MAGIC: &[u8] = b"\x7fVirtualBox SavedState ";
/// What follows in files that are understood here.
const FORMAT: &[u8] = b"V2.0\n\0\0\0\0";
const CRC_AT: usize = 60;

const FLAG_CHECKSUMMED: u32 = 1;
const FLAG_LIVE: u32 = 2;

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) revision: u32,
    pub(super) host_bits: u8,
    pub(super) is_checksummed: bool,
    pub(super) is_live: bool,
}

impl Header {
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Outcome<Self> {
        file.seek(SeekFrom::Start(0))?;
        let bytes = read_array::<HEADER_BYTES>(file, 0, &SavedStatePart::Header)?;
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Outcome<Self> {
        check_format(bytes)?;
        let mut fields = Fields(bytes.get(MAGIC_BYTES..).unwrap_or_default());
        let (major, minor, build) = (fields.u16(), fields.u16(), fields.u32());
        let revision = fields.u32();
        let [host_bits, _physical_bytes, _pointer_bytes, _reserved] = fields.array();
        let (_units, flags, _largest_block_bytes) = (fields.u32(), fields.u32(), fields.u32());
        let (recorded, computed) = (fields.u32(), crc_without(bytes, CRC_AT));
        check_crc(&SavedStatePart::Header, CRC_AT as u64, recorded, computed)?;
        Ok(Self {
            version: Version::of((major.into(), minor.into(), build)),
            revision,
            host_bits,
            is_checksummed: flags & FLAG_CHECKSUMMED != 0,
            is_live: flags & FLAG_LIVE != 0,
        })
    }
}

fn check_format(bytes: &[u8; HEADER_BYTES]) -> Outcome<()> {
    let format = bytes
        .strip_prefix(MAGIC)
        .ok_or(SavedStateFault::NotASavedState)?;
    if format.starts_with(FORMAT) {
        return Ok(());
    }
    let name = format.split(|byte| *byte == b'\n').next();
    match name.filter(|name| is_format(name) && !is_damaged(bytes)) {
        Some(name) => Err(SavedStateFault::UnknownFormat {
            format: String::from_utf8_lossy(name).into_owned(),
        }
        .into()),
        None => Err(SavedStateFault::NotASavedState.into()),
    }
}

/// `V2.0` and the like.
fn is_format(name: &[u8]) -> bool {
    let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    matches!(name, [b'V', numbers @ ..] if (1..=8).contains(&numbers.len()) && numbers.iter().all(is_number))
}

/// Whether the header would be sound if only its format were the known one.
fn is_damaged(bytes: &[u8; HEADER_BYTES]) -> bool {
    let magic = [MAGIC, FORMAT].concat();
    let rest = bytes.get(MAGIC_BYTES..).unwrap_or_default();
    let recorded = Fields(bytes.get(CRC_AT..).unwrap_or_default()).u32();
    crc_without(&[&magic, rest].concat(), CRC_AT) == recorded
}
