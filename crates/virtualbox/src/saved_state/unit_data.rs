//! What the records of a unit hold, for small units.

use std::io::{Read, Seek, SeekFrom};

use super::fault::{Outcome, check};
use super::fields::Fields;
use super::record::{RecordHeader, RecordKind};
use super::stream::Stream;
use super::unit::SavedStateUnit;

/// More than what is looked for ever needs; the rest is not read.
const MOST_BYTES: usize = 4 << 20;
const BYTES_PER_SIZE_UNIT: usize = 1 << 10;

/// The data of a unit, up to a limit. What is compressed reads as zeros: VirtualBox compresses only
/// whole pages, which nothing here is looked for in.
pub(super) fn read(file: &mut (impl Read + Seek), unit: &SavedStateUnit) -> Outcome<Vec<u8>> {
    let part = unit.part();
    let start = unit.offset_bytes.saturating_add(unit.header_bytes());
    file.seek(SeekFrom::Start(start))?;
    let mut stream = Stream::new(file, start);
    let mut data = Vec::new();
    while data.len() < MOST_BYTES {
        let offset_bytes = stream.offset_bytes();
        let record = RecordHeader::read(&mut stream, &part)?;
        match record.kind {
            RecordKind::Terminator => return Ok(data),
            RecordKind::Raw => {
                let length = usize::try_from(record.length_bytes).unwrap_or(usize::MAX);
                check(
                    length <= MOST_BYTES,
                    &part,
                    offset_bytes,
                    "there is too large a record",
                )?;
                data.extend_from_slice(stream.bytes(length, &part)?);
            }
            RecordKind::Compressed | RecordKind::Zeros => {
                let [size] = stream.array(&part)?;
                let length = usize::from(size).saturating_mul(BYTES_PER_SIZE_UNIT);
                data.resize(data.len().saturating_add(length), 0);
                stream.skip(record.length_bytes.saturating_sub(1), &part)?;
            }
            RecordKind::Named => stream.skip(record.length_bytes, &part)?,
        }
    }
    Ok(data)
}

/// What the unit `SSM` says about the host: pairs of texts, each after its length, and an empty one
/// at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostDescription {
    pub(super) system: Option<String>,
    pub(super) build_type: Option<String>,
}

impl HostDescription {
    pub(super) fn parse(data: &[u8]) -> Self {
        let mut fields = Fields(data);
        let mut description = Self::default();
        while let Some(name) = text(&mut fields).filter(|name| !name.is_empty()) {
            let value = text(&mut fields);
            match name.as_str() {
                "Host OS" => description.system = value,
                "Build Type" => description.build_type = value,
                _ => {}
            }
        }
        description
    }
}

fn text(fields: &mut Fields<'_>) -> Option<String> {
    let length = usize::try_from(fields.u32()).ok()?;
    let (text, rest) = fields.0.split_at_checked(length)?;
    fields.0 = rest;
    std::str::from_utf8(text).ok().map(str::to_owned)
}
