//! A buffer at a place in memory from which storage takes bytes without copying them.

/// What every file system that can do without a copy asks of places in memory and in files, or less.
pub(crate) const ALIGNMENT: usize = 4096;

/// Keeps its memory, which is as much as the most that was asked for.
pub(crate) struct AlignedBuffer(Vec<u8>);

impl AlignedBuffer {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// So many bytes, in which anything may be.
    pub(crate) fn room(&mut self, length_bytes: usize) -> &mut [u8] {
        let needed = length_bytes.saturating_add(ALIGNMENT);
        if self.0.len() < needed {
            // Nothing of what is in it needs to be moved.
            self.0 = vec![0; needed];
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        let room = start..start.saturating_add(length_bytes);
        self.0.get_mut(room).unwrap_or_default()
    }
}

/// Whether bytes and their place in a file are such that storage can take them without a copy.
pub(crate) fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let is_multiple = |number: u64| number.is_multiple_of(ALIGNMENT as u64);
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
        && is_multiple(bytes.len() as u64)
        && is_multiple(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_aligned_and_as_long_as_asked_for() {
        let mut buffer = AlignedBuffer::new();
        for length_bytes in [0, 1, 8192, 100, 1 << 20, 4096] {
            let room = buffer.room(length_bytes);
            assert_eq!(room.len(), length_bytes);
            assert_eq!(room.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(is_aligned(room, 8192), length_bytes % ALIGNMENT == 0);
            assert!(!is_aligned(room, 512));
        }
        assert!(!is_aligned(&buffer.room(8192)[1..4097], 0));
    }
}
