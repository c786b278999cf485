//! Runs of a guest disk's bytes.

/// What a run of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored in an image.
    Data,
    /// An image says that it is zero.
    Zero,
    /// No image says anything; it reads as zeros.
    Unallocated,
}

/// A run of bytes of the disk that are of one kind and come from one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where on the disk it begins.
    pub offset_bytes: u64,
    /// How long it is: never 0.
    pub length_bytes: u64,
    /// What it is.
    pub kind: ExtentKind,
    /// Which image supplies it, counted from the leaf; none for unallocated runs.
    pub layer: Option<usize>,
}

impl Extent {
    /// Joins `next` to this extent if it carries on where this one ends and is of the same sort.
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let is_same = self.kind == next.kind && self.layer == next.layer;
        let follows = self.offset_bytes.checked_add(self.length_bytes) == Some(next.offset_bytes);
        if is_same && follows {
            self.length_bytes = self.length_bytes.saturating_add(next.length_bytes);
        }
        is_same && follows
    }
}
