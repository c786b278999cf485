//! The processor that the guest sees.
//!
//! The unit `cpum` holds, behind the registers, the answers to the instruction CPUID that the guest
//! was given: their size (32), their number, then each as leaf, subleaf, mask, EAX, EBX, ECX, EDX,
//! flags. What precedes differs from version to version, so the list is found by its form, which
//! nothing else has.

use super::fields::Fields;

const LEAF_BYTES: usize = 32;
/// VirtualBox has some eighty.
const MOST_LEAVES: usize = 1024;
const FIRST_EXTENDED: u32 = 0x8000_0000;
/// The three leaves that spell the processor's name.
const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

/// One answer to CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question, where the answer depends on it.
    pub subleaf: u32,
    /// The answer.
    pub eax: u32,
    /// The answer.
    pub ebx: u32,
    /// The answer.
    pub ecx: u32,
    /// The answer.
    pub edx: u32,
}

/// A processor of the x86 family, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProcessor {
    /// For example `GenuineIntel`.
    pub vendor: String,
    /// Family, as AMD and Intel count it (with the extended family).
    pub family: u32,
    /// Model, with the extended model.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// The name, for people; empty where there is none.
    pub brand: String,
    /// All answers to CPUID, sorted by leaf and subleaf.
    pub leaves: Vec<CpuidLeaf>,
}

impl GuestProcessor {
    /// The answer for a leaf and subleaf 0.
    pub fn leaf(&self, leaf: u32) -> Option<&CpuidLeaf> {
        leaf_of(&self.leaves, leaf)
    }

    /// Looks for the list of answers in the data of a unit `cpum`.
    pub(super) fn find(data: &[u8]) -> Option<Self> {
        (0..data.len()).find_map(|at| Self::from_leaves(leaves_at(data.get(at..)?)?))
    }

    fn from_leaves(leaves: Vec<CpuidLeaf>) -> Option<Self> {
        let (first, signature) = (leaf_of(&leaves, 0)?, leaf_of(&leaves, 1)?);
        let vendor = text([first.ebx, first.edx, first.ecx])?;
        let brand = leaves.iter().filter(|leaf| BRAND.contains(&leaf.leaf));
        let brand = brand.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        let brand = text(brand).unwrap_or_default();
        let (family, model) = family_and_model(signature.eax);
        Some(Self {
            vendor,
            family,
            model,
            stepping: signature.eax & 0xf,
            brand,
            leaves,
        })
    }
}

fn leaf_of(leaves: &[CpuidLeaf], leaf: u32) -> Option<&CpuidLeaf> {
    leaves
        .iter()
        .find(|found| found.leaf == leaf && found.subleaf == 0)
}

/// The list, if it begins here.
fn leaves_at(data: &[u8]) -> Option<Vec<CpuidLeaf>> {
    let mut fields = Fields(data);
    if fields.u32() != u32::try_from(LEAF_BYTES).ok()? {
        return None;
    }
    let count = usize::try_from(fields.u32()).ok()?;
    let list = fields.0.get(..count.checked_mul(LEAF_BYTES)?)?;
    if count > MOST_LEAVES {
        return None;
    }
    let leaves: Vec<_> = list.chunks_exact(LEAF_BYTES).map(leaf_from).collect();
    let is_sorted = leaves.is_sorted_by(|a, b| (a.leaf, a.subleaf) < (b.leaf, b.subleaf));
    let has = |leaf| leaf_of(&leaves, leaf).is_some();
    (is_sorted && has(0) && has(1) && has(FIRST_EXTENDED)).then_some(leaves)
}

fn leaf_from(bytes: &[u8]) -> CpuidLeaf {
    let mut fields = Fields(bytes);
    let (leaf, subleaf, _mask) = (fields.u32(), fields.u32(), fields.u32());
    CpuidLeaf {
        leaf,
        subleaf,
        eax: fields.u32(),
        ebx: fields.u32(),
        ecx: fields.u32(),
        edx: fields.u32(),
    }
}

/// Printable ASCII up to the first zero.
fn text(words: impl IntoIterator<Item = u32>) -> Option<String> {
    let bytes = words.into_iter().flat_map(u32::to_le_bytes);
    let text: String = bytes
        .take_while(|byte| *byte != 0)
        .map(char::from)
        .collect();
    let is_text = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    is_text.then(|| text.trim().to_owned())
}

/// Intel's and AMD's rule for the signature in leaf 1.
const fn family_and_model(signature: u32) -> (u32, u32) {
    let (family, model) = (signature >> 8 & 0xf, signature >> 4 & 0xf);
    let (more_family, more_model) = (signature >> 20 & 0xff, signature >> 16 & 0xf);
    let full_model = model | more_model << 4;
    match family {
        0xf => (family.saturating_add(more_family), full_model),
        6 => (family, full_model),
        _ => (family, model),
    }
}
