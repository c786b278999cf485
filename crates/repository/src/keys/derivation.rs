//! From a password to the key that a key file's content is sealed with.
//!
//! restic's format says how: scrypt with the parameters in the file. Its p lanes are independent of each
//! other, and here they are mixed at the same time, in no more than [`LARGEST_SCRYPT_BYTES`] together. What
//! a file may ask for is bounded, because anybody with access to the storage can change it.

use rustic_core::repofile::KeyFile;
use scrypt::Params;
use secrecy::zeroize::Zeroizing;

use crate::crypto::MasterKey;
use crate::error::{Error, Result};
use crate::password::Password;

/// Four times what restic writes (N = 2^15, r = 8), and what rustic does.
const LARGEST_SCRYPT_BYTES: u64 = 128 << 20;
/// What is mixed in all. restic chooses small N with large p where its measurement of the computer's
/// speed was disturbed, so p by itself means nothing.
const LARGEST_SCRYPT_WORK_BYTES: u64 = 16 * LARGEST_SCRYPT_BYTES;

/// The cost of scrypt: 128 N r bytes of memory for each of p lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    n: u32,
    r: u32,
    p: u32,
}

impl Cost {
    /// Of new keys. The memory of restic's own and the work of rustic's; OWASP's Password Storage Cheat Sheet
    /// asks for p = 3 at this N. In four lanes it takes a part of the time, and on few processors a part of
    /// the memory, that N = 2^17 takes in one.
    pub(super) const NEW: Self = Self {
        n: 1 << 15,
        r: 8,
        p: 4,
    };

    /// What a file asks for, if that is possible and not too costly.
    pub(super) fn of(file: &KeyFile) -> Option<Self> {
        let cost = Self {
            n: file.n,
            r: file.r,
            p: file.p,
        };
        (file.kdf == "scrypt" && cost.is_affordable()).then_some(cost)
    }

    fn is_affordable(self) -> bool {
        self.n.is_power_of_two()
            && self.n > 1
            && self.r > 0
            && self.p > 0
            && self.lane_bytes() <= LARGEST_SCRYPT_BYTES
            && self.lane_bytes().saturating_mul(self.p.into()) <= LARGEST_SCRYPT_WORK_BYTES
    }

    fn lane_bytes(self) -> u64 {
        let blocks = u64::from(self.n).saturating_mul(self.r.into());
        blocks.saturating_mul(128)
    }

    /// Lanes that are mixed at the same time.
    fn threads(self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let fit = LARGEST_SCRYPT_BYTES.checked_div(self.lane_bytes());
        let fit = fit.and_then(|lanes| usize::try_from(lanes).ok());
        let lanes = usize::try_from(self.p).unwrap_or(usize::MAX);
        processors.min(lanes).min(fit.unwrap_or(1)).max(1)
    }

    /// The parameters as a key file has them: N, r and p.
    pub(super) const fn parameters(self) -> (u32, u32, u32) {
        (self.n, self.r, self.p)
    }

    /// The key that a password gives, if these parameters are of scrypt.
    pub(super) fn derive(self, password: &Password, salt: &[u8]) -> Result<Option<MasterKey>> {
        let log_n = u8::try_from(self.n.trailing_zeros()).unwrap_or(u8::MAX);
        let Ok(params) = Params::new(log_n, self.r, self.p) else {
            return Ok(None);
        };
        let lanes = rayon::ThreadPoolBuilder::new().num_threads(self.threads());
        let lanes = lanes.build().map_err(|source| Error::NoThread {
            source: Box::new(source),
        })?;
        let mut bytes = Zeroizing::new([0; 64]);
        let derive = || scrypt::scrypt(password.expose().as_bytes(), salt, &params, &mut *bytes);
        let derived = lanes.install(derive);
        let (encrypt, rest) = bytes.split_at(32);
        let (k, r) = rest.split_at(16);
        Ok(derived
            .ok()
            .and_then(|()| MasterKey::from_parts(encrypt, k, r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cost(n: u32, r: u32, p: u32) -> Cost {
        Cost { n, r, p }
    }

    #[test]
    fn what_restic_may_choose_is_affordable_and_nothing_absurd() {
        assert!(Cost::NEW.is_affordable());
        assert!(cost(1 << 15, 8, 7).is_affordable());
        assert!(cost(1 << 17, 8, 1).is_affordable());
        assert!(cost(1 << 10, 8, 900).is_affordable());
        assert!(!cost(1 << 18, 8, 1).is_affordable());
        assert!(!cost(1 << 15, 8, 70).is_affordable());
        assert!(!cost(1 << 10, u32::MAX, u32::MAX).is_affordable());
        assert!(!cost(1, 8, 1).is_affordable() && !cost(3, 8, 1).is_affordable());
        assert!(!cost(1 << 15, 0, 1).is_affordable() && !cost(1 << 15, 8, 0).is_affordable());
    }

    #[test]
    fn lanes_take_no_more_memory_together_than_one_may() {
        for cost in [Cost::NEW, cost(1 << 17, 8, 16), cost(1 << 10, 8, 900)] {
            let threads = cost.threads() as u64;
            assert!(threads >= 1 && threads <= cost.p.into());
            assert!(threads.saturating_mul(cost.lane_bytes()) <= LARGEST_SCRYPT_BYTES);
        }
        assert_eq!(cost(1 << 17, 8, 16).threads(), 1);
    }

    /// RFC 7914, section 12.
    #[test]
    fn it_is_scrypt() {
        let derived = |password: &str, salt: &str, cost: Cost| {
            let password = Password::new(password.to_owned());
            cost.derive(&password, salt.as_bytes()).unwrap().unwrap()
        };
        let expected = |text: &str| {
            let bytes = const_hex::decode(text.replace(' ', "")).unwrap();
            MasterKey::from_parts(&bytes[..32], &bytes[32..48], &bytes[48..]).unwrap()
        };
        let cases = [
            (
                derived("password", "NaCl", cost(1024, 8, 16)),
                "fdbabe1c9d347200 7856e7190d01e9fe 7c6ad7cbc8237830 e77376634b373162 \
                 2eaf30d92e22a388 6ff109279d9830da c727afb94a83ee6d 8360cbdfa2cc0640",
            ),
            (
                derived("pleaseletmein", "SodiumChloride", cost(16384, 8, 1)),
                "7023bdcb3afd7348 461c06cd81fd38eb fda8fbba904f8e3e a9b543f6545da1f2 \
                 d5432955613f0fcf 62d49705242a9af9 e61e85dc0d651e40 dfcf017b45575887",
            ),
        ];
        for (derived, text) in cases {
            let sealed = derived.seal(b"text").unwrap();
            assert_eq!(expected(text).open(&sealed).unwrap(), b"text");
        }
    }
}
