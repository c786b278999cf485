//! Contents of guests' disks: pieces like files, some text, some noise, some alike; the same on
//! every run.

use vrs_testkit::SampleMachine;

const MIB: u64 = 1 << 20;
/// Written at once.
const STEP_BYTES: usize = 16 << 20;

/// Fills `mebibytes` of the first disk, from `start_bytes` on.
pub(crate) fn fill(machine: &mut SampleMachine, start_bytes: u64, mebibytes: u64) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut offset_bytes = 0;
    while offset_bytes < mebibytes * MIB {
        let left = usize::try_from(mebibytes * MIB - offset_bytes).unwrap_or(usize::MAX);
        let contents = files(&mut random, left.min(STEP_BYTES));
        machine.write(0, start_bytes + offset_bytes, &contents);
        offset_bytes += contents.len() as u64;
    }
}

/// What a guest does between two snapshots: a page here and there, and some new files. About a
/// twentieth of the chunks change.
pub(crate) fn change(machine: &mut SampleMachine, start_bytes: u64, mebibytes: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..mebibytes / 20 {
        let offset_bytes = random.u64(0..mebibytes * MIB / 4096 - 1) * 4096;
        let mut page = vec![0; 4096];
        random.fill(&mut page);
        machine.write(0, start_bytes + offset_bytes, &page);
    }
    let new_bytes = usize::try_from(mebibytes * MIB / 50).unwrap_or(usize::MAX);
    let middle_bytes = start_bytes + mebibytes * MIB / 3;
    machine.write(0, middle_bytes, &files(&mut random, new_bytes));
}

fn files(random: &mut fastrand::Rng, length_bytes: usize) -> Vec<u8> {
    let mut contents = Vec::with_capacity(length_bytes);
    while contents.len() < length_bytes {
        let file_bytes = 4096 << random.u32(0..9);
        let end = (contents.len() + file_bytes).min(length_bytes);
        if random.u8(0..3) == 0 {
            let start = contents.len();
            contents.resize(end, 0);
            random.fill(&mut contents[start..]);
        } else {
            while contents.len() < end {
                let (number, word) = (random.u32(..), random.u16(0..500));
                let line = format!("daemon[{word}]: request {number:08x} took {word} us\n");
                contents.extend_from_slice(line.as_bytes());
            }
            contents.truncate(end);
        }
    }
    contents
}
