//! Reading a whole saved state from the front, checking everything on the way.

use std::io::{Read, Seek, SeekFrom};

use vrs_progress::{Counter, Progress};

use super::directory::Directory;
use super::fault::{Failure, Outcome, SavedStatePart, check, check_crc};
use super::header::{HEADER_BYTES, Header};
use super::record::{RecordHeader, RecordKind, Terminator};
use super::stream::Stream;
use super::unit::UnitHeader;

/// How much is read between two looks at whether to go on.
const BYTES_PER_REPORT: u64 = 4 << 20;

/// Checks every byte against the checksums, and the units against the directory.
pub(super) fn run(
    file: &mut (impl Read + Seek),
    header: &Header,
    directory: &Directory,
    progress: &dyn Progress,
) -> Outcome<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut walk = Walk {
        stream: Stream::new(file, 0),
        is_checksummed: header.is_checksummed,
        reported_bytes: 0,
        progress,
    };
    walk.stream.array::<HEADER_BYTES>(&SavedStatePart::Header)?;
    walk.units(directory)?;
    walk.end(directory)
}

struct Walk<'a, R> {
    stream: Stream<R>,
    is_checksummed: bool,
    reported_bytes: u64,
    progress: &'a dyn Progress,
}

impl<R: Read> Walk<'_, R> {
    /// The directory lists the units of the last pass, each of which has to come along.
    fn units(&mut self, directory: &Directory) -> Outcome<()> {
        let mut listed = directory.unit_offsets().peekable();
        let mut part = SavedStatePart::Header;
        loop {
            let (start, before) = (self.stream.offset_bytes(), self.stream.crc());
            let header = UnitHeader::read(&mut self.stream, &part)?;
            self.check_stream(&part, start, header.stream_crc, before)?;
            listed.next_if_eq(&start);
            let Some(unit) = header.unit else { break };
            part = unit.part();
            self.records(&part)?;
        }
        let part = &SavedStatePart::Directory;
        let is_met = listed.next().is_none();
        check(
            is_met,
            part,
            directory.offset_bytes,
            "it lists a unit that is not there",
        )
    }

    fn records(&mut self, part: &SavedStatePart) -> Outcome<()> {
        let start = self.stream.offset_bytes();
        loop {
            let record = RecordHeader::read(&mut self.stream, part)?;
            if record.kind == RecordKind::Terminator {
                return self.terminator(part, start);
            }
            self.skip(record.length_bytes, part)?;
        }
    }

    fn terminator(&mut self, part: &SavedStatePart, start: u64) -> Outcome<()> {
        let (offset_bytes, before) = (self.stream.offset_bytes(), self.stream.crc());
        let terminator = Terminator::read(&mut self.stream, part)?;
        let has_crc = terminator.crc.is_some();
        let problem = "the unit ends without a checksum";
        check(has_crc == self.is_checksummed, part, offset_bytes, problem)?;
        let recorded = terminator.crc.unwrap_or_default();
        self.check_stream(part, offset_bytes, recorded, before)?;
        let length_bytes = self.stream.offset_bytes().saturating_sub(start);
        let problem = "the unit ends with another length than it has";
        check(
            terminator.length_bytes == length_bytes,
            part,
            offset_bytes,
            problem,
        )
    }

    fn end(&mut self, directory: &Directory) -> Outcome<()> {
        let part = &SavedStatePart::Directory;
        let offset_bytes = self.stream.offset_bytes();
        let is_here = offset_bytes == directory.offset_bytes;
        check(is_here, part, offset_bytes, "it does not follow the units")?;
        self.skip(directory.end_bytes.saturating_sub(offset_bytes), part)?;
        let computed = self.stream.crc();
        let part = &SavedStatePart::Footer;
        self.check_stream(part, directory.end_bytes, directory.stream_crc, computed)?;
        self.report();
        Ok(())
    }

    fn check_stream(
        &self,
        part: &SavedStatePart,
        offset_bytes: u64,
        recorded: u32,
        computed: u32,
    ) -> Outcome<()> {
        if self.is_checksummed {
            check_crc(part, offset_bytes, recorded, computed)?;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64, part: &SavedStatePart) -> Outcome<()> {
        let mut left = count;
        while left > 0 {
            let piece = left.min(BYTES_PER_REPORT);
            self.stream.skip(piece, part)?;
            left = left.saturating_sub(piece);
            let unreported = self
                .stream
                .offset_bytes()
                .saturating_sub(self.reported_bytes);
            if unreported >= BYTES_PER_REPORT {
                self.report();
                if self.progress.interrupted() {
                    return Err(Failure::Interrupted);
                }
            }
        }
        Ok(())
    }

    fn report(&mut self) {
        let offset_bytes = self.stream.offset_bytes();
        let new_bytes = offset_bytes.saturating_sub(self.reported_bytes);
        self.progress.add(Counter::Scanned, new_bytes);
        self.reported_bytes = offset_bytes;
    }
}
