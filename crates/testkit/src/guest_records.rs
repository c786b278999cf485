//! What the guest `rig/guest/records.S` wrote to one of its two disks.
//!
//! Accepted is only a disk on which every record is, byte for byte, the one that the guest writes
//! for its count, and on which all records are there up to the newest. The format is described in
//! the guest's source.

use std::path::Path;

use crate::image;

const MAGIC: u32 = u32::from_le_bytes(*b"VRSR");
const RECORDS: u32 = 1024;
const SECTOR_BYTES: usize = 512;
const FIRST_SECTOR: usize = 2048;
const WORDS: usize = SECTOR_BYTES / 4;

/// The records of one disk, found to be sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestRecords {
    disk: u32,
    newest: u32,
}

impl GuestRecords {
    /// Checks the records of disk 1 or 2 in the bytes that its guest sees.
    ///
    /// # Errors
    /// Which record is damaged, torn, misplaced or missing.
    pub fn of_bytes(disk: u32, bytes: &[u8]) -> Result<Self, String> {
        let area = &bytes[FIRST_SECTOR * SECTOR_BYTES..][..RECORDS as usize * SECTOR_BYTES];
        let counts = (0..RECORDS)
            .zip(area.chunks_exact(SECTOR_BYTES))
            .map(|(place, sector)| count_at(place, disk, sector))
            .collect::<Result<Vec<_>, _>>()?;
        let newest = counts.iter().copied().max().unwrap_or_default();
        for (place, found) in (0..RECORDS).zip(counts) {
            let wanted = newest_at(place, newest);
            if found != wanted {
                return Err(format!(
                    "disk {disk} lacks the record of count {wanted}, though it has that of \
                     {newest}: in its place is {found}"
                ));
            }
        }
        Ok(Self { disk, newest })
    }

    /// As [`GuestRecords::of_bytes`], with the disk that a VDI image makes up together with its
    /// parents, which are looked for where VirtualBox puts them.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Panics
    /// When an image cannot be read.
    pub fn of_image(disk: u32, leaf: &Path) -> Result<Self, String> {
        Self::of_bytes(disk, &image::guest_bytes_of(leaf))
    }

    /// The newest count, 0 if there is none.
    #[must_use]
    pub const fn newest(&self) -> u32 {
        self.newest
    }

    /// The count of the last round that reached both disks, if these are of one instant: the guest
    /// writes to the first disk first.
    ///
    /// # Errors
    /// How far apart they are.
    pub fn last_round(first: &Self, second: &Self) -> Result<u32, String> {
        assert_eq!(
            (first.disk, second.disk),
            (1, 2),
            "the disks in their order"
        );
        match first.newest.checked_sub(second.newest) {
            Some(0 | 1) => Ok(second.newest),
            _ => Err(format!(
                "the disks are not of one instant: the first is at count {}, the second at {}",
                first.newest, second.newest
            )),
        }
    }
}

/// The newest count up to `newest` that is written to a place; 0 if none is.
fn newest_at(place: u32, newest: u32) -> u32 {
    let behind = (newest + RECORDS - place) % RECORDS;
    newest.saturating_sub(behind)
}

/// The count of the record in a place, 0 for none.
fn count_at(place: u32, disk: u32, sector: &[u8]) -> Result<u32, String> {
    if sector.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let sector_number = FIRST_SECTOR + place as usize;
    let words: Vec<u32> = sector
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
        .collect();
    let (magic, count, of_disk) = (words[0], words[1], words[2]);
    let wrong = |what: &str| Err(format!("disk {disk}, sector {sector_number}: {what}"));
    if magic != MAGIC {
        return wrong("no record");
    }
    if checksum(&words[..WORDS - 1]) != words[WORDS - 1] {
        return wrong("the record is torn or damaged");
    }
    if (of_disk, count % RECORDS) != (disk, place) {
        return wrong(&format!("the record of count {count} of disk {of_disk}"));
    }
    if words != record(count, disk) {
        return wrong("not a record that the guest writes");
    }
    Ok(count)
}

/// What the guest writes.
fn record(count: u32, disk: u32) -> Vec<u32> {
    let mut word = count.wrapping_mul(0x9e37_79b1).wrapping_add(disk);
    let mut words = vec![MAGIC, count, disk];
    words.resize_with(WORDS - 1, || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word
    });
    words.push(checksum(&words));
    words
}

fn checksum(words: &[u32]) -> u32 {
    words
        .iter()
        .fold(0, |sum: u32, word| sum.rotate_left(5).wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_bytes(disk: u32, newest: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4 << 20];
        for count in newest.saturating_sub(RECORDS - 1).max(1)..=newest {
            let at = sector_of(count);
            let record: Vec<u8> = record(count, disk)
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
            bytes[at..][..SECTOR_BYTES].copy_from_slice(&record);
        }
        bytes
    }

    fn sector_of(count: u32) -> usize {
        (FIRST_SECTOR + (count % RECORDS) as usize) * SECTOR_BYTES
    }

    #[test]
    fn whole_disks_are_accepted() {
        for newest in [0, 1, 5, 1023, 1024, 1025, 5000] {
            let records = GuestRecords::of_bytes(2, &disk_bytes(2, newest)).unwrap();
            assert_eq!(records.newest(), newest);
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let mut bytes = disk_bytes(1, 20);
        for byte in 0..SECTOR_BYTES {
            bytes[sector_of(15) + byte] ^= 0x40;
            let fault = GuestRecords::of_bytes(1, &bytes).unwrap_err();
            assert!(fault.starts_with("disk 1, sector 2063: "), "{fault}");
            bytes[sector_of(15) + byte] ^= 0x40;
        }
    }

    #[test]
    fn a_torn_record_is_noticed() {
        let mut torn = disk_bytes(1, 3000);
        let earlier = disk_bytes(1, 3000 - RECORDS);
        let half = sector_of(3000) + SECTOR_BYTES / 2;
        torn[half..][..SECTOR_BYTES / 2].copy_from_slice(&earlier[half..][..SECTOR_BYTES / 2]);
        let fault = GuestRecords::of_bytes(1, &torn).unwrap_err();
        assert_eq!(fault, "disk 1, sector 3000: the record is torn or damaged");
    }

    #[test]
    fn a_missing_record_is_noticed() {
        for (newest, instead) in [(3000, 2900 - RECORDS), (1000, 0)] {
            let wanted = newest - 100;
            let mut bytes = disk_bytes(1, newest);
            let stale = disk_bytes(1, instead);
            let at = sector_of(wanted);
            bytes[at..][..SECTOR_BYTES].copy_from_slice(&stale[at..][..SECTOR_BYTES]);
            assert_eq!(
                GuestRecords::of_bytes(1, &bytes).unwrap_err(),
                format!(
                    "disk 1 lacks the record of count {wanted}, though it has that of {newest}: \
                     in its place is {instead}"
                )
            );
        }
    }

    #[test]
    fn the_other_disk_is_noticed() {
        let fault = GuestRecords::of_bytes(2, &disk_bytes(1, 1)).unwrap_err();
        assert_eq!(
            fault,
            "disk 2, sector 2049: the record of count 1 of disk 1"
        );
    }

    #[test]
    fn only_the_first_disk_may_be_ahead_and_by_one_round() {
        let at = |disk, newest| GuestRecords { disk, newest };
        assert_eq!(GuestRecords::last_round(&at(1, 7), &at(2, 7)), Ok(7));
        assert_eq!(GuestRecords::last_round(&at(1, 8), &at(2, 7)), Ok(7));
        for (first, second) in [(9, 7), (6, 7)] {
            let fault = GuestRecords::last_round(&at(1, first), &at(2, second)).unwrap_err();
            assert!(fault.contains("not of one instant"), "{fault}");
        }
    }
}
