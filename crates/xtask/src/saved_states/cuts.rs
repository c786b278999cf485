//! Ways of cutting a saved state.

use std::fmt;

use fastcdc::v2020::{FastCDC, Normalization};

use super::memory_pages::MemoryPages;

const KIB: u32 = 1 << 10;
/// A chunk of what is not memory.
const LARGEST_BYTES: usize = 1 << 20;

/// A way of cutting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cuts {
    /// As the repository cuts saved states, with this average.
    ContentDefined { average_bytes: u32 },
    /// Before the first stored page at or behind each multiple of so much guest memory.
    Memory { grid_bytes: u32 },
}

impl Cuts {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let content = [4, 8, 16, 32, 64].map(|kib| Self::ContentDefined {
            average_bytes: kib * KIB,
        });
        let memory = [16, 32, 64, 128, 256].map(|kib| Self::Memory {
            grid_bytes: kib * KIB,
        });
        content.into_iter().chain(memory)
    }

    /// The chunks.
    pub(super) fn chunks<'a>(&self, state: &'a [u8]) -> Vec<&'a [u8]> {
        match *self {
            Self::ContentDefined { average_bytes } => content_defined(state, average_bytes),
            Self::Memory { grid_bytes } => at(state, &memory_cuts(state, grid_bytes.into())),
        }
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentDefined { average_bytes } => {
                write!(formatter, "content-defined, {} KiB", average_bytes / KIB)
            }
            Self::Memory { grid_bytes } => {
                write!(formatter, "pages of {} KiB of memory", grid_bytes / KIB)
            }
        }
    }
}

/// The same numbers as in the repository.
fn content_defined(state: &[u8], average: u32) -> Vec<&[u8]> {
    let average = average as usize;
    let (smallest, largest) = (average >> 2, average << 2);
    let cutter = FastCDC::with_level(state, smallest, average, largest, Normalization::Level1);
    cutter
        .map(|chunk| &state[chunk.offset..chunk.offset + chunk.length])
        .collect()
}

fn memory_cuts(state: &[u8], grid_bytes: u64) -> Vec<usize> {
    let Some(pages) = MemoryPages::find(state) else {
        return Vec::new();
    };
    let mut cell = None;
    let starts = pages.list.iter().filter_map(|page| {
        let own = Some(page.address / grid_bytes);
        (std::mem::replace(&mut cell, own) != own).then_some(page.start)
    });
    starts.chain([pages.end]).collect()
}

fn at<'a>(state: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([state.len()]);
    let pieces = starts.zip(ends).map(|(start, end)| &state[start..end]);
    pieces
        .flat_map(|piece| piece.chunks(LARGEST_BYTES))
        .collect()
}
