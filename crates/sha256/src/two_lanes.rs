//! Two texts at a time with the SHA instructions of x86-64 (FIPS 180-4, section 6.2, and Intel's "Intel SHA
//! Extensions"). Where a text ends, the next one takes its lane.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

use crate::Hash;

const BLOCK_BYTES: usize = 64;
type Block = [u8; BLOCK_BYTES];
/// Words a to h.
type Words = [u32; 8];

const BEGIN: Words = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Of four rounds each.
const CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Nothing where it is of no use: for a single text, or without the instructions.
pub(crate) fn hash_all(texts: &[&[u8]]) -> Option<Vec<Hash>> {
    if texts.len() < 2 || !is_possible() {
        return None;
    }
    let mut hashes = vec![Hash::default(); texts.len()];
    let mut lanes = texts
        .iter()
        .zip(&mut hashes)
        .map(|(text, hash)| Lane::of(text, hash));
    let mut longer = lanes.next()?;
    for mut lane in lanes {
        longer.go_on_beside(&mut lane);
        if longer.rest.is_empty() {
            std::mem::swap(&mut longer, &mut lane);
        }
        lane.finish();
    }
    longer.finish();
    Some(hashes)
}

fn is_possible() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// A text on its way to its hash.
struct Lane<'a> {
    words: Words,
    /// Whole blocks that are not hashed yet.
    rest: &'a [Block],
    text: &'a [u8],
    hash: &'a mut Hash,
}

impl<'a> Lane<'a> {
    fn of(text: &'a [u8], hash: &'a mut Hash) -> Self {
        let (rest, _) = text.as_chunks();
        Self {
            words: BEGIN,
            rest,
            text,
            hash,
        }
    }

    /// As far as the shorter one of both goes.
    fn go_on_beside(&mut self, other: &mut Self) {
        let count = self.rest.len().min(other.rest.len());
        let (own, others) = (self.take(count), other.take(count));
        #[allow(
            unsafe_code,
            reason = "the only way to call what only some processors can do"
        )]
        // SAFETY: this processor has the instructions, or there would be no lanes (`is_possible`).
        unsafe {
            compress_both([&mut self.words, &mut other.words], [own, others]);
        }
    }

    fn take(&mut self, count: usize) -> &'a [Block] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or_default();
        self.rest = rest;
        taken
    }

    fn finish(mut self) {
        let ending = ending(self.text);
        let (last, _) = ending.as_chunks();
        for block in self.rest.iter().chain(last) {
            let block = GenericArray::from_slice(block);
            compress256(&mut self.words, std::slice::from_ref(block));
        }
        let (parts, _) = self.hash.as_chunks_mut();
        for (part, word) in parts.iter_mut().zip(self.words) {
            *part = word.to_be_bytes();
        }
    }
}

/// The last blocks of a text: what fills no block, a one, zeros and the length in bits.
fn ending(text: &[u8]) -> Vec<u8> {
    let (_, rest) = text.as_chunks::<BLOCK_BYTES>();
    let mut ending = [rest, &[0x80]].concat();
    let length_bits = (text.len() as u64).wrapping_mul(8).to_be_bytes();
    while !ending
        .len()
        .saturating_add(length_bits.len())
        .is_multiple_of(BLOCK_BYTES)
    {
        ending.push(0);
    }
    ending.extend(length_bits);
    ending
}

/// Words a, b, e and f, and words c, d, g and h, each from the highest place down.
type State = [__m128i; 2];

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_both([words, others]: [&mut Words; 2], [blocks, beside]: [&[Block]; 2]) {
    let [
        k0,
        k1,
        k2,
        k3,
        k4,
        k5,
        k6,
        k7,
        k8,
        k9,
        k10,
        k11,
        k12,
        k13,
        k14,
        k15,
    ] = CONSTANTS;
    let (mut one, mut other) = (load(words), load(others));
    for (block, beside) in blocks.iter().zip(beside) {
        let (before, other_before) = (one, other);
        let (mut input, mut other_input) = (words_of(block), words_of(beside));
        // A loop takes a third longer.
        macro_rules! rounds {
            ($($constants:ident)*) => { $(
                four_rounds(&mut one, &input, $constants);
                four_rounds(&mut other, &other_input, $constants);
                input = next_words(input);
                other_input = next_words(other_input);
            )* };
        }
        rounds!(k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 k10 k11 k12 k13 k14 k15);
        one = sum(one, before);
        other = sum(other, other_before);
    }
    (*words, *others) = (store(one), store(other));
}

/// With the first of four groups of four words.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four_rounds([abef, cdgh]: &mut State, [input, ..]: &[__m128i; 4], constants: [u32; 4]) {
    let [k0, k1, k2, k3] = constants.map(u32::cast_signed);
    let input = _mm_add_epi32(*input, _mm_set_epi32(k3, k2, k1, k0));
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, input);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0E>(input));
}

/// Without the first group, and with the one that follows.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn next_words([w0, w1, w2, w3]: [__m128i; 4]) -> [__m128i; 4] {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    [w1, w2, w3, _mm_sha256msg2_epu32(sum, w3)]
}

#[inline]
#[target_feature(enable = "ssse3")]
fn words_of(block: &Block) -> [__m128i; 4] {
    let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let (parts, _) = block.as_chunks();
    let group = |number: usize| {
        let part = parts.get(number).copied().unwrap_or_default();
        let (low, high) = halves(part);
        _mm_shuffle_epi8(_mm_set_epi64x(high, low), big_endian)
    };
    [group(0), group(1), group(2), group(3)]
}

#[inline]
const fn halves(part: [u8; 16]) -> (i64, i64) {
    let number = i128::from_le_bytes(part);
    (number as i64, (number >> 64) as i64)
}

#[inline]
#[target_feature(enable = "sse2")]
fn sum([abef, cdgh]: State, [other_abef, other_cdgh]: State) -> State {
    [
        _mm_add_epi32(abef, other_abef),
        _mm_add_epi32(cdgh, other_cdgh),
    ]
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(words: &Words) -> State {
    let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store([abef, cdgh]: State) -> Words {
    let words = [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ];
    words.map(i32::cast_unsigned)
}
