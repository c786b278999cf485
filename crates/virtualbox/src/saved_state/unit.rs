//! Unit headers.

use std::io::{Read, Seek, SeekFrom};

use super::fault::{Outcome, SavedStatePart, check, check_crc};
use super::fields::{Fields, crc_without};
use super::stream::{Stream, read_array};

const FIXED_BYTES: usize = 44;
/// With its terminating zero, as in VirtualBox.
const MOST_NAME_BYTES: usize = 48;
const MAGIC: &[u8] = b"\nUnit\n\0\0";
const END_MAGIC: &[u8] = b"\nTheEnd\0";
const CRC_AT: usize = 20;
/// The pass in which everything is saved that no earlier one saved.
const FINAL_PASS: u32 = u32::MAX;

/// One component's data in a saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedStateUnit {
    /// Name of the component: `pgm` is the memory, `cpum` the processors, `ahci` a SATA controller.
    pub name: String,
    /// Which of several of the same name.
    pub instance: u32,
    /// Version of the component's own format.
    pub version: u32,
    /// The pass, counted from 0, of a state saved while the machine ran; `None` for the final one.
    pub pass: Option<u32>,
    /// Where it begins in the file.
    pub offset_bytes: u64,
}

impl SavedStateUnit {
    pub(super) fn part(&self) -> SavedStatePart {
        SavedStatePart::Unit(self.name.clone())
    }

    /// How many bytes there are before the data.
    pub(super) fn header_bytes(&self) -> u64 {
        let name_bytes = self.name.len().saturating_add(1);
        FIXED_BYTES.saturating_add(name_bytes) as u64
    }
}

/// What is at the beginning of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitHeader {
    /// `None` for the end of all units.
    pub(super) unit: Option<SavedStateUnit>,
    /// The checksum of everything before, as recorded.
    pub(super) stream_crc: u32,
}

impl UnitHeader {
    pub(super) fn read_at(
        file: &mut (impl Read + Seek),
        offset_bytes: u64,
        part: &SavedStatePart,
    ) -> Outcome<Self> {
        file.seek(SeekFrom::Start(offset_bytes))?;
        let fixed = read_array(file, offset_bytes, part)?;
        let name_bytes = name_length(&fixed, offset_bytes, part)?;
        let mut name = [0; MOST_NAME_BYTES];
        let name = name.get_mut(..name_bytes).unwrap_or_default();
        file.read_exact(name)?;
        Self::parse(&fixed, name, offset_bytes, part)
    }

    pub(super) fn read(stream: &mut Stream<impl Read>, part: &SavedStatePart) -> Outcome<Self> {
        let offset_bytes = stream.offset_bytes();
        let fixed = stream.array(part)?;
        let name_bytes = name_length(&fixed, offset_bytes, part)?;
        let name = stream.bytes(name_bytes, part)?;
        Self::parse(&fixed, name, offset_bytes, part)
    }

    fn parse(
        fixed: &[u8; FIXED_BYTES],
        name: &[u8],
        offset_bytes: u64,
        part: &SavedStatePart,
    ) -> Outcome<Self> {
        let mut fields = Fields(fixed);
        let magic = fields.array::<8>();
        let recorded_offset = fields.u64();
        let (stream_crc, recorded) = (fields.u32(), fields.u32());
        let (version, instance, pass) = (fields.u32(), fields.u32(), fields.u32());
        let computed = crc_without(&[fixed, name].concat(), CRC_AT);
        let crc_offset = offset_bytes.saturating_add(CRC_AT as u64);
        check_crc(part, crc_offset, recorded, computed)?;
        let is_here = recorded_offset == offset_bytes;
        check(
            is_here,
            part,
            offset_bytes,
            "there is a unit of another place",
        )?;
        let name = match name {
            [] => None,
            [name @ .., 0] if !name.contains(&0) => std::str::from_utf8(name).ok(),
            _ => None,
        };
        check(
            name.is_some() == (magic == *MAGIC),
            part,
            offset_bytes,
            "there is a unit without a proper name",
        )?;
        let unit = name.map(|name| SavedStateUnit {
            name: name.to_owned(),
            instance,
            version,
            pass: (pass != FINAL_PASS).then_some(pass),
            offset_bytes,
        });
        Ok(Self { unit, stream_crc })
    }
}

/// Checks that there is a unit before its name is looked at.
fn name_length(
    fixed: &[u8; FIXED_BYTES],
    offset_bytes: u64,
    part: &SavedStatePart,
) -> Outcome<usize> {
    let is_unit = fixed.starts_with(MAGIC) || fixed.starts_with(END_MAGIC);
    check(is_unit, part, offset_bytes, "there should be a unit")?;
    let [.., a, b, c, d] = *fixed;
    let name_bytes = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let is_bounded = name_bytes <= MOST_NAME_BYTES;
    check(
        is_bounded,
        part,
        offset_bytes,
        "there is a unit with a name too long",
    )?;
    Ok(name_bytes)
}
