//! What the Linux guest wrote to one of its disks, read without the guest.

use std::path::Path;
use std::process::{Command, Output};

const RECORD_WORDS: u64 = 64;
const RECORD_BYTES: usize = 512;
const RECORDS_PER_FILE: u64 = 1024;

/// The records on a disk of the Linux guest. All between the two are there and as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinuxRecords {
    /// The oldest record that the guest had not deleted yet.
    pub first: u64,
    /// The newest record.
    pub last: u64,
}

impl LinuxRecords {
    /// Reads the records from the raw image of an ext4 file system, after replaying its journal, as
    /// the guest would after a power failure. Changes the image.
    ///
    /// # Panics
    /// When the file system is inconsistent, or a record is missing or not what was written.
    #[must_use]
    pub fn read(image: &Path) -> Self {
        check_file_system(image);
        let names = file_names(image);
        let oldest: u64 = names
            .first()
            .unwrap_or_else(|| panic!("no records on {}", image.display()))
            .parse()
            .expect("a file's number");
        let first = oldest * RECORDS_PER_FILE;
        let mut next = first;
        for name in &names {
            assert_eq!(
                next % RECORDS_PER_FILE,
                0,
                "the file before {name} is incomplete"
            );
            assert_eq!(
                *name,
                format!("{:08}", next / RECORDS_PER_FILE),
                "a file is missing"
            );
            let bytes = debugfs(image, &format!("cat /{name}"));
            assert_eq!(bytes.len() % RECORD_BYTES, 0, "{name} ends within a record");
            for record in bytes.chunks(RECORD_BYTES) {
                assert_eq!(record, record_bytes(next), "record {next} in {name}");
                next += 1;
            }
        }
        assert!(next > first, "{} holds no record", names.join(", "));
        Self {
            first,
            last: next - 1,
        }
    }
}

/// The same as `word` in rig/linux/init.c.
fn word(number: u64, index: u64) -> u64 {
    const A: u64 = 0xbf58_476d_1ce4_e5b9;
    if index == 0 {
        return number;
    }
    let z = number
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(index.wrapping_mul(A));
    let z = (z ^ (z >> 30)).wrapping_mul(A);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn record_bytes(number: u64) -> Vec<u8> {
    let words = (0..RECORD_WORDS).map(|index| word(number, index));
    words.flat_map(u64::to_le_bytes).collect()
}

fn check_file_system(image: &Path) {
    let replayed = e2fsck(image, &["-y", "-E", "journal_only"]);
    let checked = e2fsck(image, &["-f", "-n"]);
    assert!(
        checked.status.success(),
        "the file system of {} is damaged:\n{}{}",
        image.display(),
        String::from_utf8_lossy(&replayed.stdout),
        String::from_utf8_lossy(&checked.stdout),
    );
}

fn e2fsck(image: &Path, options: &[&str]) -> Output {
    let mut e2fsck = Command::new("/sbin/e2fsck");
    e2fsck
        .args(options)
        .arg(image)
        .output()
        .expect("e2fsck starts; scripts/setup-tests installs it")
}

/// Names of the files with records, the oldest first.
fn file_names(image: &Path) -> Vec<String> {
    let listing = String::from_utf8(debugfs(image, "ls -p /")).expect("names in ASCII");
    let names = listing.lines().filter_map(|line| line.split('/').nth(5));
    let mut names: Vec<_> = names
        .filter(|name| name.parse::<u64>().is_ok())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

fn debugfs(image: &Path, request: &str) -> Vec<u8> {
    let mut debugfs = Command::new("/sbin/debugfs");
    let output = debugfs
        .args(["-R", request])
        .arg(image)
        .output()
        .expect("debugfs starts; scripts/setup-tests installs it");
    assert!(output.status.success(), "debugfs: {}", output.status);
    output.stdout
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that the guest's own function computed.
    #[test]
    fn records_are_what_the_guest_writes() {
        assert_eq!(word(7, 0), 7);
        assert_eq!(record_bytes(7).len(), RECORD_BYTES);
        let words = [word(1, 1), word(123_456, 63)];
        assert_eq!(words, [0xe4ba_cea5_c4b9_b499, 0x8712_10c3_31c0_dc66]);
    }
}
