//! Records, which the data of a unit consists of.
//!
//! A byte for the kind, then the length of what follows in the manner of UTF-8 (up to six bytes).

use std::io::Read;

use super::fault::{Outcome, SavedStatePart, check};
use super::fields::Fields;
use super::stream::Stream;

const KIND_MASK: u8 = 0x0f;
/// Bit 7 is always set, bit 4 marks records that may not be skipped, the others are clear.
const FLAGS_MASK: u8 = 0xe0;
const FLAGS: u8 = 0x80;
/// A terminator behind its kind and length.
const TERMINATOR_BYTES: u64 = 14;

/// What the data of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// The end of the unit.
    Terminator,
    /// The bytes themselves.
    Raw,
    /// A byte with the length in KiB, then bytes compressed with LZF.
    Compressed,
    /// A byte with the length in KiB of a run of zeros.
    Zeros,
    /// Not used by VirtualBox so far.
    Named,
}

/// The beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: RecordKind,
    /// How much follows.
    pub(super) length_bytes: u64,
}

impl RecordHeader {
    pub(super) fn read(stream: &mut Stream<impl Read>, part: &SavedStatePart) -> Outcome<Self> {
        let offset_bytes = stream.offset_bytes();
        let [first, length] = stream.array(part)?;
        let kind = kind_of(first);
        check(kind.is_some(), part, offset_bytes, "there is no record")?;
        let kind = kind.unwrap_or(RecordKind::Named);
        let length_bytes = read_length(stream, length, part)?;
        let is_possible = match kind {
            RecordKind::Terminator => length_bytes == TERMINATOR_BYTES,
            RecordKind::Zeros => length_bytes == 1,
            RecordKind::Compressed => length_bytes > 1,
            RecordKind::Raw | RecordKind::Named => true,
        };
        check(
            is_possible,
            part,
            offset_bytes,
            "there is a record of a length that it cannot have",
        )?;
        Ok(Self { kind, length_bytes })
    }
}

const fn kind_of(byte: u8) -> Option<RecordKind> {
    if byte & FLAGS_MASK != FLAGS {
        return None;
    }
    match byte & KIND_MASK {
        1 => Some(RecordKind::Terminator),
        2 => Some(RecordKind::Raw),
        3 => Some(RecordKind::Compressed),
        4 => Some(RecordKind::Zeros),
        5 => Some(RecordKind::Named),
        _ => None,
    }
}

/// The length that begins with `first`: as many leading ones as it has bytes, six bits in each
/// further one.
fn read_length(stream: &mut Stream<impl Read>, first: u8, part: &SavedStatePart) -> Outcome<u64> {
    let offset_bytes = stream.offset_bytes();
    let bytes = first.leading_ones();
    let is_possible = bytes != 1 && bytes <= 6;
    check(is_possible, part, offset_bytes, "there is no record length")?;
    let own_bits = u8::MAX.checked_shr(bytes.saturating_add(1)).unwrap_or(0);
    let mut length = u64::from(first & own_bits);
    for _ in 1..bytes {
        let [byte] = stream.array(part)?;
        check(
            byte & 0xc0 == 0x80,
            part,
            offset_bytes,
            "there is no record length",
        )?;
        length = length << 6 | u64::from(byte & 0x3f);
    }
    Ok(length)
}

/// What ends a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminator {
    /// The checksum of everything before [`Terminator::crc_end_bytes`], as recorded.
    pub(super) crc: Option<u32>,
    /// Length of the unit's data, this record included.
    pub(super) length_bytes: u64,
}

impl Terminator {
    /// Reads what follows a terminator's kind and length.
    pub(super) fn read(stream: &mut Stream<impl Read>, part: &SavedStatePart) -> Outcome<Self> {
        let bytes = stream.array::<{ TERMINATOR_BYTES as usize }>(part)?;
        let mut fields = Fields(&bytes);
        let (flags, crc) = (fields.u16(), fields.u32());
        Ok(Self {
            crc: (flags == 1).then_some(crc),
            length_bytes: fields.u64(),
        })
    }
}
