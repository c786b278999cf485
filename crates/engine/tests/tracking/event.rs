//! What happens to a machine between two takes.

use proptest::prelude::*;

use crate::common::MIB;

/// What happens to a machine between two takes.
#[derive(Debug, Clone)]
pub enum Event {
    Write {
        disk: usize,
        at: u64,
        bytes: usize,
    },
    Zero {
        at: u64,
    },
    TakeVirtualBoxSnapshot,
    /// Merges an image into its parent.
    DeleteVirtualBoxSnapshot,
    RestoreVirtualBoxSnapshot,
    Compact,
    Grow,
    SaveState,
    /// Takes without the second disk, and with it again.
    LeaveOut,
    /// Another file with the same bytes.
    Replace,
    /// Another file with the same bytes, that shares them.
    ReplaceByClone,
    /// The file system lays the image down elsewhere.
    Rewrite,
}

pub fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let write = (0..2usize, 0..7 * MIB, 1..700_000usize);
    prop_oneof![
        6 => write.prop_map(|(disk, at, bytes)| Write { disk, at, bytes }),
        2 => (0..7u64).prop_map(|block| Zero { at: block * MIB }),
        2 => Just(TakeVirtualBoxSnapshot),
        2 => Just(DeleteVirtualBoxSnapshot),
        1 => Just(RestoreVirtualBoxSnapshot),
        1 => Just(Compact),
        1 => Just(Grow),
        1 => Just(SaveState),
        1 => Just(LeaveOut),
        1 => Just(Replace),
        1 => Just(ReplaceByClone),
        1 => Just(Rewrite),
    ]
}
