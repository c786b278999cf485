//! The end of the file: the list of the units of the last pass, and the footer.

use std::io::{Read, Seek, SeekFrom};

use super::fault::{Outcome, SavedStateFault, SavedStatePart, check, check_crc};
use super::fields::{Fields, crc_without};
use super::header::HEADER_BYTES;
use super::stream::read_array;
use super::unit::{SavedStateUnit, UnitHeader};

const MAGIC: &[u8; 8] = b"\nDir\n\0\0\0";
const FIXED_BYTES: usize = 16;
const CRC_AT: usize = 8;
const ENTRY_BYTES: usize = 16;
/// A machine has a few dozen components.
const MOST_ENTRIES: u32 = 4096;

const FOOTER_MAGIC: &[u8; 8] = b"\nFooter\0";
const FOOTER_BYTES: usize = 32;
const FOOTER_CRC_AT: usize = 28;

/// The directory, with what the footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// Where it begins, which is where the units end.
    pub(super) offset_bytes: u64,
    pub(super) entries: Vec<Entry>,
    /// The checksum of everything before the footer, as recorded.
    pub(super) stream_crc: u32,
    /// Where the footer begins.
    pub(super) end_bytes: u64,
}

/// What the directory says about a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    offset_bytes: u64,
    instance: u32,
    name_crc: u32,
}

struct Footer {
    offset_bytes: u64,
    stream_crc: u32,
    entries: u32,
}

impl Directory {
    pub(super) fn read(file: &mut (impl Read + Seek), length_bytes: u64) -> Outcome<Self> {
        let footer = Footer::read(file, length_bytes)?;
        let part = &SavedStatePart::Directory;
        let entries_bytes = u64::from(footer.entries).saturating_mul(ENTRY_BYTES as u64);
        let directory_bytes = entries_bytes.saturating_add(FIXED_BYTES as u64);
        let offset_bytes = footer.offset_bytes.saturating_sub(directory_bytes);
        let has_room = footer.entries <= MOST_ENTRIES && offset_bytes >= HEADER_BYTES as u64;
        check(
            has_room,
            &SavedStatePart::Footer,
            footer.offset_bytes,
            "it lists more units than there can be",
        )?;
        file.seek(SeekFrom::Start(offset_bytes))?;
        let mut bytes = vec![0; usize::try_from(directory_bytes).unwrap_or(0)];
        file.read_exact(&mut bytes)?;
        let entries = parse(&bytes, footer.entries, offset_bytes, part)?;
        Ok(Self {
            offset_bytes,
            entries,
            stream_crc: footer.stream_crc,
            end_bytes: footer.offset_bytes,
        })
    }

    /// Where the units that it lists begin, in order.
    pub(super) fn unit_offsets(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.offset_bytes)
    }

    /// The units that it lists, read where they are.
    pub(super) fn units(&self, file: &mut (impl Read + Seek)) -> Outcome<Vec<SavedStateUnit>> {
        let part = &SavedStatePart::Directory;
        let unit = |entry: &Entry| {
            let offset_bytes = entry.offset_bytes;
            check(
                offset_bytes < self.offset_bytes,
                part,
                self.offset_bytes,
                "it names a unit behind itself",
            )?;
            let unit = UnitHeader::read_at(file, offset_bytes, part)?.unit;
            let unit = unit.filter(|unit| entry.is_of(unit));
            check(
                unit.is_some(),
                part,
                offset_bytes,
                "there is not the unit that it lists",
            )?;
            Ok(unit)
        };
        let units: Outcome<Vec<_>> = self.entries.iter().map(unit).collect();
        Ok(units?.into_iter().flatten().collect())
    }
}

impl Entry {
    fn is_of(self, unit: &SavedStateUnit) -> bool {
        self.instance == unit.instance
            && self.name_crc == crc32fast::hash(unit.name.as_bytes())
            && unit.pass.is_none()
    }
}

fn parse(
    bytes: &[u8],
    entries: u32,
    offset_bytes: u64,
    part: &SavedStatePart,
) -> Outcome<Vec<Entry>> {
    let mut fields = Fields(bytes);
    let magic = fields.array::<8>();
    check(magic == *MAGIC, part, offset_bytes, "it does not begin")?;
    let (recorded, computed) = (fields.u32(), crc_without(bytes, CRC_AT));
    check_crc(
        part,
        offset_bytes.saturating_add(CRC_AT as u64),
        recorded,
        computed,
    )?;
    check(
        fields.u32() == entries,
        part,
        offset_bytes,
        "it is not as long as the footer says",
    )?;
    let entry = |_| Entry {
        offset_bytes: fields.u64(),
        instance: fields.u32(),
        name_crc: fields.u32(),
    };
    let entries: Vec<_> = (0..entries).map(entry).collect();
    let is_sorted = entries.is_sorted_by(|a, b| a.offset_bytes < b.offset_bytes);
    check(is_sorted, part, offset_bytes, "its units are not in order")?;
    Ok(entries)
}

impl Footer {
    fn read(file: &mut (impl Read + Seek), length_bytes: u64) -> Outcome<Self> {
        let part = &SavedStatePart::Footer;
        let offset_bytes = length_bytes.saturating_sub(FOOTER_BYTES as u64);
        file.seek(SeekFrom::Start(offset_bytes))?;
        let bytes = read_array::<FOOTER_BYTES>(file, offset_bytes, part)?;
        let mut fields = Fields(&bytes);
        if fields.array() != *FOOTER_MAGIC {
            return Err(SavedStateFault::NoFooter { offset_bytes }.into());
        }
        let own_offset = fields.u64();
        let footer = Self {
            offset_bytes,
            stream_crc: fields.u32(),
            entries: fields.u32(),
        };
        let (_reserved, recorded) = (fields.u32(), fields.u32());
        let crc_offset = offset_bytes.saturating_add(FOOTER_CRC_AT as u64);
        check_crc(
            part,
            crc_offset,
            recorded,
            crc_without(&bytes, FOOTER_CRC_AT),
        )?;
        check(
            own_offset == offset_bytes,
            part,
            offset_bytes,
            "it belongs elsewhere",
        )?;
        Ok(footer)
    }
}
