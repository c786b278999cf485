//! Little-endian numbers, one after the other.

/// What is left of a structure. Past its end everything is zero: callers hold as many bytes as the
/// structure has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((array, rest)) = self.0.split_first_chunk() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *array
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// The checksum of a structure that holds it itself, in four bytes that count as zero.
pub(super) fn crc_without(bytes: &[u8], crc_at: usize) -> u32 {
    let (before, rest) = bytes.split_at_checked(crc_at).unwrap_or((bytes, &[]));
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(&[0; 4]);
    crc.update(rest.get(4..).unwrap_or_default());
    crc.finalize()
}
