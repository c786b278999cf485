//! What a look through a block map finds.

use std::fmt;

use super::block_map::BlockEntry;

/// Something that cannot be right about a block map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finding {
    /// Two blocks of the disk claim the same place in the file.
    Duplicate {
        /// One of them.
        first_block: u32,
        /// The other.
        second_block: u32,
        /// The file's block that both claim.
        stored: u32,
    },
    /// A block lies behind the end of the file, wholly or in part.
    OutsideFile {
        /// The block of the disk.
        block: u32,
        /// The file's block that it claims.
        stored: u32,
    },
    /// A block lies where VirtualBox will put the next new block, which would overwrite it.
    BeyondAllocated {
        /// The block of the disk.
        block: u32,
        /// The file's block that it claims.
        stored: u32,
        /// How many the header says there are.
        allocated_blocks: u32,
    },
    /// The header counts places that no block uses. They are lost, and with enough of them there
    /// is no room for a new block.
    Unused {
        /// How many blocks are stored.
        used_blocks: u32,
        /// How many the header says there are.
        allocated_blocks: u32,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate {
                first_block,
                second_block,
                stored,
            } => write!(
                formatter,
                "blocks {first_block} and {second_block} are both stored at place {stored}"
            ),
            Self::OutsideFile { block, stored } => write!(
                formatter,
                "block {block} is stored at place {stored}, behind the end of the file"
            ),
            Self::BeyondAllocated {
                block,
                stored,
                allocated_blocks,
            } => write!(
                formatter,
                "block {block} is stored at place {stored}, but the header says that only \
                 {allocated_blocks} are in use"
            ),
            Self::Unused {
                used_blocks,
                allocated_blocks,
            } => write!(
                formatter,
                "the header says that {allocated_blocks} blocks are stored, but only {used_blocks} are"
            ),
        }
    }
}

/// What [`crate::BlockMap::check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapReport {
    /// Blocks that the image leaves to its parent, or to chance.
    pub free_blocks: u32,
    /// Blocks marked as zero.
    pub zero_blocks: u32,
    /// Blocks stored in the file.
    pub allocated_blocks: u32,
    /// The first findings, at most [`MapReport::MOST_LISTED`].
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub findings_total: u64,
}

impl MapReport {
    /// How many findings are listed, so that a file full of nonsense does not fill the memory.
    pub const MOST_LISTED: usize = 100;

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings_total = self.findings_total.saturating_add(1);
        if self.findings.len() < Self::MOST_LISTED {
            self.findings.push(finding);
        }
    }

    pub(super) fn check_count(&mut self, allocated_blocks: u32) {
        let used_blocks = self.allocated_blocks;
        if used_blocks < allocated_blocks {
            self.add(Finding::Unused {
                used_blocks,
                allocated_blocks,
            });
        }
    }

    pub(super) const fn count(&mut self, entry: BlockEntry) {
        let counter = match entry {
            BlockEntry::Free => &mut self.free_blocks,
            BlockEntry::Zero => &mut self.zero_blocks,
            BlockEntry::Allocated(_) => &mut self.allocated_blocks,
        };
        *counter = counter.saturating_add(1);
    }
}
