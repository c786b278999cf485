//! A saved state read from the front, with its running checksum.

use std::io::{self, BufReader, Read};

use super::fault::{Outcome, SavedStateFault, SavedStatePart};

const BUFFER_BYTES: usize = 256 << 10;

/// Reads `N` bytes that belong to `part` and lie at `offset_bytes`.
pub(super) fn read_array<const N: usize>(
    source: &mut impl Read,
    offset_bytes: u64,
    part: &SavedStatePart,
) -> Outcome<[u8; N]> {
    let mut array = [0; N];
    let read_bytes = read_up_to(source, &mut array)?;
    if read_bytes < N {
        return Err(truncated(part, offset_bytes.saturating_add(read_bytes as u64)).into());
    }
    Ok(array)
}

/// Fills `buffer` as far as there is something.
pub(super) fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn truncated(part: &SavedStatePart, offset_bytes: u64) -> SavedStateFault {
    SavedStateFault::Truncated {
        part: part.clone(),
        offset_bytes,
    }
}

/// Where a reader is, and the checksum of everything before.
#[derive(Debug)]
pub(super) struct Stream<R> {
    source: BufReader<R>,
    offset_bytes: u64,
    crc: crc32fast::Hasher,
    scratch: Vec<u8>,
}

impl<R: Read> Stream<R> {
    /// `source` starts at `offset_bytes`; the checksum starts there, too.
    pub(super) fn new(source: R, offset_bytes: u64) -> Self {
        Self {
            source: BufReader::with_capacity(BUFFER_BYTES, source),
            offset_bytes,
            crc: crc32fast::Hasher::new(),
            scratch: Vec::new(),
        }
    }

    pub(super) const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    pub(super) fn array<const N: usize>(&mut self, part: &SavedStatePart) -> Outcome<[u8; N]> {
        let array = read_array(&mut self.source, self.offset_bytes, part)?;
        self.passed(&array);
        Ok(array)
    }

    /// The next `count` bytes, valid until the next call. `count` must be bounded by the caller.
    pub(super) fn bytes(&mut self, count: usize, part: &SavedStatePart) -> Outcome<&[u8]> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(count, 0);
        let read_bytes = read_up_to(&mut self.source, &mut scratch)?;
        if read_bytes < count {
            return Err(
                truncated(part, self.offset_bytes.saturating_add(read_bytes as u64)).into(),
            );
        }
        self.passed(&scratch);
        self.scratch = scratch;
        Ok(&self.scratch)
    }

    /// Passes over bytes, however many.
    pub(super) fn skip(&mut self, count: u64, part: &SavedStatePart) -> Outcome<()> {
        let mut left = count;
        while left > 0 {
            let piece = left.min(BUFFER_BYTES as u64);
            self.bytes(usize::try_from(piece).unwrap_or(BUFFER_BYTES), part)?;
            left = left.saturating_sub(piece);
        }
        Ok(())
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.offset_bytes = self.offset_bytes.saturating_add(bytes.len() as u64);
    }
}
