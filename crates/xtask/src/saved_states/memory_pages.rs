//! Where the pages of the guest's memory are in a saved state that was not made live.
//!
//! The unit `pgm` holds one byte for each page: 0 zero, 1 stored, 8 ballooned; with bit 7 set eight
//! bytes with the page's address follow, otherwise it is the next page; 255 ends the memory. Such
//! bytes gather in raw records; a stored page is a record of its own behind the one that ends with
//! its byte. What precedes the memory (ROM, device memory) has other kinds.

use vrs_virtualbox::SavedState;

const PAGE_BYTES: u64 = 4096;
const KIND_MASK: u8 = 0x0f;
const TERMINATOR: u8 = 1;
const RAW: u8 = 2;
const HAS_ADDRESS: u8 = 0x80;
const END: u8 = 0xff;

/// A page that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryPage {
    /// The guest's physical address.
    pub(super) address: u64,
    /// Where the record in front of it begins, which also tells the zero pages in front of it.
    pub(super) start: usize,
}

/// All stored pages, in the order of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryPages {
    pub(super) list: Vec<MemoryPage>,
    /// Where the last one ends.
    pub(super) end: usize,
}

impl MemoryPages {
    pub(super) fn find(state: &[u8]) -> Option<Self> {
        let mut file = tempfile::NamedTempFile::new().ok()?;
        std::io::Write::write_all(&mut file, state).ok()?;
        let described = SavedState::read(file.path()).ok()?;
        let unit = described.unit("pgm").filter(|_| !described.is_live)?;
        let data = usize::try_from(unit.offset_bytes).ok()? + 44 + "pgm\0".len();
        Some(Self::of_records(state, data))
    }

    /// Reads the records of a unit's data up to its end.
    fn of_records(state: &[u8], mut at: usize) -> Self {
        let mut pages = Self::default();
        // The page whose record comes next, and the one that the next byte is about.
        let (mut stored, mut next) = (None, None);
        let mut start = None;
        loop {
            let (kind, data) = record(state, at);
            let own_start = std::mem::replace(&mut at, data.end);
            if kind == TERMINATOR {
                return pages;
            }
            if let Some(address) = stored.take() {
                let start = start.take().unwrap_or(own_start);
                pages.list.push(MemoryPage { address, start });
                pages.end = data.end;
            } else if kind == RAW {
                start = start.or(Some(own_start));
                stored = page_bytes(&state[data], &mut next);
            } else {
                start = None;
            }
            if next.is_none() {
                start = None;
            }
        }
    }
}

/// Follows a record's bytes. Returns the address of the page that is stored behind it.
fn page_bytes(bytes: &[u8], next: &mut Option<u64>) -> Option<u64> {
    let mut rest = match next {
        Some(_) => bytes,
        None => beginning_of_memory(bytes)?,
    };
    let mut address = next.unwrap_or(0);
    while let [kind, following @ ..] = rest {
        rest = following;
        if *kind == END {
            *next = None;
            return None;
        }
        if kind & HAS_ADDRESS != 0 {
            let (bytes, following) = rest.split_first_chunk()?;
            (address, rest) = (u64::from_le_bytes(*bytes), following);
        }
        *next = Some(address + PAGE_BYTES);
        if kind & !HAS_ADDRESS == 1 {
            return Some(address);
        }
        address += PAGE_BYTES;
    }
    None
}

/// The memory begins at address 0, behind device memory (kinds 2 and 3).
fn beginning_of_memory(bytes: &[u8]) -> Option<&[u8]> {
    let begins = |window: &[u8]| {
        matches!(window, [2 | 3, kind, address @ ..]
            if kind & !1 == HAS_ADDRESS && address.iter().all(|byte| *byte == 0))
    };
    let at = bytes.windows(10).position(begins)?;
    bytes.get(at + 1..)
}

/// Kind and data of the record at an offset.
fn record(state: &[u8], at: usize) -> (u8, std::ops::Range<usize>) {
    let first = state[at + 1];
    let length_bytes = first.leading_ones().max(1) as usize;
    let own_bits = first & (0xff_u16 >> (first.leading_ones() + 1)) as u8;
    let further = &state[at + 2..at + 1 + length_bytes];
    let add = |length: usize, byte: &u8| length << 6 | usize::from(byte & 0x3f);
    let length = further.iter().fold(own_bits.into(), add);
    let data = at + 1 + length_bytes;
    (state[at] & KIND_MASK, data..data + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_behind_device_memory_and_holes() {
        let memory = [
            &[0x92, 2, 1, 3][..],                         // not memory yet
            &[0x92, 10, 3, 0x81, 0, 0, 0, 0, 0, 0, 0, 0], // page 0 follows
            &[0x93, 3, 4, 7, 7],                          // compressed
            &[0x92, 3, 0, 0, 1],                          // two zero pages, then page 3
            &[0x92, 4, 1, 1, 1, 1],                       // not compressible
            &[0x92, 9, 0x80, 0, 0, 0x10, 0, 0, 0, 0, 0],  // a zero page at 1 MiB
            &[0x92, 1, 1],                                // the one behind it
            &[0x94, 1, 4],
            &[0x92, 1, 0xff],
            &[0x91, 14],
            &[0; 14],
        ];
        let pages = MemoryPages::of_records(&memory.concat(), 0);
        let found: Vec<_> = pages
            .list
            .iter()
            .map(|page| (page.address, page.start))
            .collect();
        assert_eq!(found, [(0, 4), (0x3000, 21), (0x10_1000, 32)]);
        assert_eq!(pages.end, 49);
    }
}
