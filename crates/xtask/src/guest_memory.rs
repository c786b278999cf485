//! The memory of a guest as a saved state holds it: pages, compressed one by one, zero pages as a mark.
//!
//! A fifth of the pages changes from one state to the next, in runs, and what lies behind a page whose
//! compressed length changed is shifted. How real ones behave: `cargo xtask saved-states`.

const PAGE: usize = 4096;
const ZERO: u8 = 0;
const COMPRESSED: u8 = 2;
const LEVEL: i32 = 1;
/// In tenths.
const IN_USE: u64 = 6;
const LONGEST_RUN: u64 = 64;

/// The stream of pages after so many changes.
pub(crate) fn stream(mebibytes: u64, changes: u64) -> Vec<u8> {
    let pages = mebibytes * 256;
    let versions = versions(pages, changes);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("a level of zstd");
    let mut stream = Vec::new();
    for (number, version) in (0..).zip(versions) {
        if fastrand::Rng::with_seed(number).u64(0..10) >= IN_USE {
            stream.push(ZERO);
            continue;
        }
        let page = compressor
            .compress(&page(number, version))
            .expect("memory for a page");
        stream.push(COMPRESSED);
        stream.extend(
            u16::try_from(page.len())
                .expect("a short page")
                .to_le_bytes(),
        );
        stream.extend(page);
    }
    stream
}

/// How often each page was written.
fn versions(pages: u64, changes: u64) -> Vec<u64> {
    let mut versions = vec![0; usize::try_from(pages).expect("memory for the guest's memory")];
    for change in 1..=changes {
        let mut random = fastrand::Rng::with_seed(change);
        let mut left = pages / 5;
        while left > 0 {
            let run = random.u64(1..=LONGEST_RUN).min(left);
            let start = random.u64(0..pages - run);
            for page in start..start + run {
                versions[usize::try_from(page).expect("a page")] = change;
            }
            left -= run;
        }
    }
    versions
}

fn page(number: u64, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number << 8 | version);
    let mut page = vec![0; random.usize(200..2400)];
    random.fill(&mut page);
    let word = random.u64(..).to_le_bytes();
    page.extend(word.iter().cycle().take(PAGE - page.len()));
    page
}
