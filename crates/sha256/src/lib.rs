//! SHA-256 of several texts, two at a time.
//!
//! Each round of SHA-256 waits for what the one before it gives, so that the processor's instructions for it lie idle
//! about half of the time. The rounds of a second text fit in between: docs/design/hot-paths.md has the figures.
//!
//! Guarantees: the hashes that the `sha2` crate gives. Not guaranteed: that it is faster. Where the processor has no
//! such instructions, or is not an x86-64, texts are hashed one after the other by that crate.

#[cfg(target_arch = "x86_64")]
mod two_lanes;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hashes of texts, in their order.
#[must_use]
pub fn hash_all(texts: &[&[u8]]) -> Vec<Hash> {
    #[cfg(target_arch = "x86_64")]
    if let Some(hashes) = two_lanes::hash_all(texts) {
        return hashes;
    }
    texts.iter().map(|text| hash(text)).collect()
}

/// The hash of one text.
#[must_use]
pub fn hash(text: &[u8]) -> Hash {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_sha2(texts: &[&[u8]]) -> Vec<Hash> {
        texts
            .iter()
            .map(|text| Sha256::digest(text).into())
            .collect()
    }

    /// Also those that fill blocks, and those whose padding needs one more.
    #[test]
    fn lengths_around_blocks_are_right() {
        let text: Vec<u8> = (0..=255).cycle().take(300).collect();
        let texts: Vec<&[u8]> = (0..text.len()).filter_map(|end| text.get(..end)).collect();
        assert_eq!(hash_all(&texts), by_sha2(&texts));
        let reversed: Vec<&[u8]> = texts.iter().rev().copied().collect();
        for pair in texts.iter().zip(reversed) {
            let pair = [*pair.0, pair.1];
            assert_eq!(hash_all(&pair), by_sha2(&pair));
        }
    }

    #[test]
    fn texts_longer_than_a_page_are_right() {
        let long: Vec<u8> = (0..1_000_003_u32).map(|at| (at / 7 % 251) as u8).collect();
        let texts =
            [0, 1, 64, 4096, 500_000, 999_999].map(|from| long.get(from..).unwrap_or_default());
        assert_eq!(hash_all(&texts), by_sha2(&texts));
    }

    proptest! {
        #[test]
        fn hashes_are_those_of_sha2(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..9)) {
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(hash_all(&texts), by_sha2(&texts));
        }
    }
}
