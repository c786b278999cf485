//! Encryption and hashing as restic's repository format defines them.
//!
//! A sealed message is a nonce of 16 bytes, the text under AES-256-CTR, and a Poly1305-AES tag of
//! 16 bytes (restic's design document, "Keys, Encryption and MAC"). Opening fails on any change.
//! The master key is never printed and cleared when it is dropped.

use std::io::{self, Write};

use aes256ctr_poly1305aes::aead::{Aead, AeadInPlace};
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use secrecy::zeroize::Zeroize;
use sha2::{Digest, Sha256};
pub(crate) use vrs_sha256::{hash, hash_all};

use crate::error::{Error, Result};
use crate::scan_cache::ScanKey;

/// Bytes that sealing adds.
pub(crate) const SEAL_BYTES: usize = 32;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// The key of all data of one repository.
pub(crate) struct MasterKey {
    cipher: Aes256CtrPoly1305Aes,
    pub(crate) scan: ScanKey,
}

impl MasterKey {
    /// From the three parts that a key file holds. None when a part has the wrong length.
    pub(crate) fn from_parts(encrypt: &[u8], k: &[u8], r: &[u8]) -> Option<Self> {
        if (encrypt.len(), k.len(), r.len()) != (32, 16, 16) {
            return None;
        }
        let mut bytes = [encrypt, k, r].concat();
        let cipher = Aes256CtrPoly1305Aes::new(Key::from_slice(&bytes));
        let scan = ScanKey::derived_from(&bytes);
        bytes.zeroize();
        Some(Self { cipher, scan })
    }

    /// Encrypts and authenticates.
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut envelope = self.envelope(plain.len())?;
        envelope.extend_from_slice(plain);
        self.close(envelope)
    }

    /// An envelope to which a text is to be appended before it is closed, with room for one of so
    /// many bytes.
    pub(crate) fn envelope(&self, capacity_bytes: usize) -> Result<Vec<u8>> {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).map_err(|_| Error::NoRandom)?;
        let mut envelope = Vec::with_capacity(capacity_bytes.saturating_add(SEAL_BYTES));
        envelope.extend_from_slice(&nonce);
        Ok(envelope)
    }

    /// Encrypts and authenticates the text in an envelope, where it is.
    pub(crate) fn close(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>> {
        let (nonce, text) = sealed.split_at_mut(NONCE_BYTES);
        let tag = self
            .cipher
            .encrypt_in_place_detached(Nonce::from_slice(nonce), &[], text)
            // Only a text of 2^36 bytes and more is refused.
            .map_err(|_| Error::InvalidRequest {
                subject: "a chunk".to_owned(),
                reason: "it is too large to encrypt",
            })?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Decrypts where it is, or None when it was not sealed with this key or has changed since.
    pub(crate) fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_BYTES)?;
        let (text, tag) = rest.split_at_mut_checked(rest.len().checked_sub(TAG_BYTES)?)?;
        let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
        let opened = self.cipher.decrypt_in_place_detached(nonce, &[], text, tag);
        opened.ok().map(|()| &*text)
    }

    /// Decrypts, or None when it was not sealed with this key or has changed since.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES)?;
        self.cipher.decrypt(Nonce::from_slice(nonce), text).ok()
    }
}

/// Hashes and counts what is written to it.
#[derive(Default)]
pub(crate) struct Digester {
    digest: Sha256,
    length_bytes: u64,
}

impl Digester {
    /// The length in bytes, and the SHA-256.
    pub(crate) fn finish(self) -> (u64, [u8; 32]) {
        (self.length_bytes, self.digest.finalize().into())
    }
}

impl Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.length_bytes = self.length_bytes.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_noticed() {
        let key = MasterKey::from_parts(&[1; 32], &[2; 16], &[3; 16]).unwrap();
        let sealed = key.seal(b"guest disk").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"guest disk");
        assert_eq!(
            key.open_in_place(&mut sealed.clone()).unwrap(),
            b"guest disk"
        );
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed).is_none(), "byte {at}");
            assert!(key.open_in_place(&mut changed).is_none(), "byte {at}");
            assert!(key.open(&sealed[..at]).is_none(), "cut at {at}");
            let mut cut = sealed[..at].to_vec();
            assert!(key.open_in_place(&mut cut).is_none(), "cut at {at}");
        }
    }
}
