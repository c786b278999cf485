//! The processor that a guest saw, against the one of this computer.
//!
//! VirtualBox refuses a saved state whose guest used features that the host does not have, unless
//! `VBoxInternal/CPUM/StrictCpuIdChecks` is off. Compared are the features in CPUID's leaves 1, 7,
//! 80000001h and 80000008h and, in leaf Dh, the registers that can be saved (XCR0) and how. Not
//! compared: features that VirtualBox makes up itself, leaf 7's further subleaves, caches, topology,
//! the widths of addresses, model-specific registers, and what XCR0 was set to by the guest, whose
//! place in the unit differs from version to version.

use vrs_virtualbox::{CpuidLeaf, GuestProcessor};

use crate::platform;

const FEATURES: u32 = 1;
const MORE_FEATURES: u32 = 7;
/// Subleaf 0: which parts of its registers the processor can save, the bits of XCR0. Subleaf 1: how.
const SAVED_REGISTERS: u32 = 0xd;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
/// AMD's more recent features.
const MORE_EXTENDED_FEATURES: u32 = 0x8000_0008;
/// Everything that is asked.
const QUESTIONS: [(u32, u32); 6] = [
    (FEATURES, 0),
    (MORE_FEATURES, 0),
    (SAVED_REGISTERS, 0),
    (SAVED_REGISTERS, 1),
    (EXTENDED_FEATURES, 0),
    (MORE_EXTENDED_FEATURES, 0),
];

/// A processor of the x86 family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostProcessor {
    pub(super) vendor: String,
    leaves: Vec<CpuidLeaf>,
}

/// A register of an answer, and which of its bits VirtualBox makes up.
struct Register {
    leaf: u32,
    subleaf: u32,
    name: &'static str,
    of: fn(&CpuidLeaf) -> u32,
    made_up: u32,
}

const REGISTERS: [Register; 11] = [
    Register {
        leaf: FEATURES,
        subleaf: 0,
        name: "1.ecx",
        of: |leaf| leaf.ecx,
        // MONITOR, x2APIC, TSC deadline, OSXSAVE, hypervisor.
        made_up: 1 << 3 | 1 << 21 | 1 << 24 | 1 << 27 | 1 << 31,
    },
    Register {
        leaf: FEATURES,
        subleaf: 0,
        name: "1.edx",
        of: |leaf| leaf.edx,
        // APIC, several logical processors.
        made_up: 1 << 9 | 1 << 28,
    },
    Register {
        leaf: MORE_FEATURES,
        subleaf: 0,
        name: "7.ebx",
        of: |leaf| leaf.ebx,
        made_up: 0,
    },
    Register {
        leaf: MORE_FEATURES,
        subleaf: 0,
        name: "7.ecx",
        of: |leaf| leaf.ecx,
        // OSPKE.
        made_up: 1 << 4,
    },
    Register {
        leaf: MORE_FEATURES,
        subleaf: 0,
        name: "7.edx",
        of: |leaf| leaf.edx,
        made_up: 0,
    },
    Register {
        leaf: EXTENDED_FEATURES,
        subleaf: 0,
        name: "80000001.ecx",
        of: |leaf| leaf.ecx,
        // Several cores, extended APIC.
        made_up: 1 << 1 | 1 << 3,
    },
    Register {
        leaf: EXTENDED_FEATURES,
        subleaf: 0,
        name: "80000001.edx",
        of: |leaf| leaf.edx,
        // APIC.
        made_up: 1 << 9,
    },
    Register {
        leaf: SAVED_REGISTERS,
        subleaf: 0,
        name: "XCR0",
        of: |leaf| leaf.eax,
        made_up: 0,
    },
    Register {
        leaf: SAVED_REGISTERS,
        subleaf: 0,
        name: "XCR0 high",
        of: |leaf| leaf.edx,
        made_up: 0,
    },
    Register {
        leaf: SAVED_REGISTERS,
        subleaf: 1,
        name: "d.1.eax",
        of: |leaf| leaf.eax,
        made_up: 0,
    },
    Register {
        leaf: MORE_EXTENDED_FEATURES,
        subleaf: 0,
        name: "80000008.ebx",
        of: |leaf| leaf.ebx,
        // That SSBD is not required, on all of AMD's ("CPUM: Set SSBD not required flag for AMD to work around some
        // buggy Linux kernels!" in VBox.log).
        made_up: 1 << 26,
    },
];

/// Features by which people know a processor.
const KNOWN: [(&str, u32, &str); 19] = [
    ("1.ecx", 12, "FMA"),
    ("1.ecx", 20, "SSE4.2"),
    ("1.ecx", 25, "AES"),
    ("1.ecx", 26, "XSAVE"),
    ("1.ecx", 28, "AVX"),
    ("1.ecx", 30, "RDRAND"),
    ("7.ebx", 5, "AVX2"),
    ("7.ebx", 8, "BMI2"),
    ("7.ebx", 16, "AVX512F"),
    ("7.ebx", 18, "RDSEED"),
    ("7.ebx", 29, "SHA"),
    ("80000001.ecx", 6, "SSE4A"),
    ("XCR0", 2, "AVX registers"),
    ("XCR0", 5, "AVX-512 masks"),
    ("XCR0", 6, "AVX-512 registers"),
    ("XCR0", 9, "protection keys"),
    ("d.1.eax", 1, "XSAVEC"),
    ("d.1.eax", 3, "XSAVES"),
    ("80000008.ebx", 0, "CLZERO"),
];

impl Register {
    /// No bits where there is no such answer.
    fn in_answers(&self, leaves: &[CpuidLeaf]) -> u32 {
        let is_it = |leaf: &&CpuidLeaf| (leaf.leaf, leaf.subleaf) == (self.leaf, self.subleaf);
        leaves.iter().find(is_it).map_or(0, self.of)
    }
}

impl HostProcessor {
    /// `None` where the processor is none of the x86 family.
    pub(super) fn of_this_computer() -> Option<Self> {
        let first = leaf(0, 0)?;
        let vendor: Vec<u8> = [first.ebx, first.edx, first.ecx]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        Some(Self {
            vendor: String::from_utf8_lossy(&vendor).trim().to_owned(),
            leaves: QUESTIONS
                .into_iter()
                .filter_map(|(question, subleaf)| leaf(question, subleaf))
                .collect(),
        })
    }

    /// Features that the guest saw and this processor does not have, by name where it is known.
    pub(super) fn lacks(&self, guest: &GuestProcessor) -> Vec<String> {
        let lacks = |register: &Register| {
            let seen = register.in_answers(&guest.leaves);
            let missing = seen & !register.in_answers(&self.leaves) & !register.made_up;
            let bits = (0..u32::BITS).filter(move |bit| missing & 1 << bit != 0);
            let name = register.name;
            bits.map(move |bit| name_of(name, bit)).collect::<Vec<_>>()
        };
        REGISTERS.iter().flat_map(lacks).collect()
    }
}

fn leaf(leaf: u32, subleaf: u32) -> Option<CpuidLeaf> {
    let [eax, ebx, ecx, edx] = platform::cpuid(leaf, subleaf)?;
    Some(CpuidLeaf {
        leaf,
        subleaf,
        eax,
        ebx,
        ecx,
        edx,
    })
}

fn name_of(register: &str, bit: u32) -> String {
    let known = KNOWN
        .iter()
        .find(|(of, at, _)| (*of, *at) == (register, bit));
    known.map_or_else(
        || format!("{register} bit {bit}"),
        |(_, _, name)| (*name).to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(leaf: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidLeaf {
        CpuidLeaf {
            leaf,
            subleaf: 0,
            eax: 0,
            ebx,
            ecx,
            edx,
        }
    }

    fn guest(leaves: Vec<CpuidLeaf>) -> GuestProcessor {
        GuestProcessor {
            vendor: "GenuineIntel".to_owned(),
            family: 6,
            model: 0,
            stepping: 0,
            brand: String::new(),
            leaves,
        }
    }

    fn host(leaves: Vec<CpuidLeaf>) -> HostProcessor {
        HostProcessor {
            vendor: "GenuineIntel".to_owned(),
            leaves,
        }
    }

    #[test]
    fn missing_features_have_names() {
        let guest = guest(vec![
            answer(1, 0xffff_ffff, 1 << 28 | 1 << 2, 1 << 4),
            answer(7, 1 << 5, 0, 0),
            answer(0x8000_0001, 0, 0, 1 << 29),
        ]);
        let old = host(vec![answer(1, 0, 1 << 2, 1 << 4)]);
        assert_eq!(old.lacks(&guest), ["AVX", "AVX2", "80000001.edx bit 29"]);
        let more = u32::MAX;
        let new = [1, 7, 0x8000_0001].map(|leaf| answer(leaf, more, more, more));
        assert_eq!(host(new.to_vec()).lacks(&guest), Vec::<String>::new());
    }

    #[test]
    fn what_the_processor_cannot_save_is_missed() {
        let saved = |subleaf, eax| CpuidLeaf {
            subleaf,
            eax,
            ..answer(0xd, 0, 0, 0)
        };
        let guest = guest(vec![saved(0, 0b111), saved(1, 0b1010)]);
        let old = host(vec![saved(0, 0b11), saved(1, 0b10)]);
        assert_eq!(old.lacks(&guest), ["AVX registers", "XSAVES"]);
    }

    #[test]
    fn what_virtualbox_makes_up_is_not_missed() {
        let guest = guest(vec![
            answer(1, 0, 1 << 21 | 1 << 31, 1 << 9 | 1 << 28),
            answer(0x8000_0001, 0, 1 << 1, 0),
            answer(0x8000_0008, 1 << 26, 0, 0),
        ]);
        assert_eq!(host(Vec::new()).lacks(&guest), Vec::<String>::new());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_processor_is_known() {
        let own = HostProcessor::of_this_computer().unwrap();
        assert!(own.vendor.is_ascii() && !own.vendor.is_empty());
        // Every 64-bit processor has SSE2.
        let sse2 = guest(vec![answer(1, 0, 0, 1 << 26)]);
        assert_eq!(own.lacks(&sse2), Vec::<String>::new());
    }
}
