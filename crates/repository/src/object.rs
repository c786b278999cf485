//! Objects that hold JSON: configuration, index files and snapshots.
//!
//! Format version 2 (restic's design document, "Unpacked Data Format"): sealed; the text is JSON,
//! or a byte 2 and JSON under zstd. The id is the SHA-256 of the sealed bytes.

use std::io::{BufWriter, Read};

use rustic_core::{FileType, Id};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, name};
use crate::crypto::{MasterKey, hash};
use crate::decompression::decompress_through;
use crate::error::Result;
use crate::gathered::Gathered;
use crate::object_cache::ObjectCache;

const COMPRESSED: u8 = 2;

/// Room for the largest index file that any program writes; a longer one is an attack or damage.
const LARGEST_BYTES: u64 = 1 << 30;

/// Storage with the key to its contents.
#[derive(Clone, Copy)]
pub(crate) struct Vault<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) key: &'a MasterKey,
    /// Copies of what was read before.
    pub(crate) cache: Option<&'a ObjectCache>,
}

impl Vault<'_> {
    /// Reads an object, or a copy of it.
    pub(crate) fn load<T: DeserializeOwned>(&self, kind: FileType, id: impl Into<Id>) -> Result<T> {
        let id = id.into();
        let copy = self.cache.and_then(|cache| cache.get(kind, id));
        let copied = copy.and_then(|sealed| self.open(&name(kind, &id), id, &sealed).ok());
        copied.map_or_else(|| self.fetch(kind, id), Ok)
    }

    fn fetch<T: DeserializeOwned>(&self, kind: FileType, id: Id) -> Result<T> {
        let sealed = self.backend.read(kind, id)?;
        let value = self.open(&name(kind, &id), id, &sealed)?;
        self.keep_copy(kind, id, &sealed);
        Ok(value)
    }

    /// Keeps a copy of a sound object on this host.
    pub(crate) fn keep_copy(&self, kind: FileType, id: Id, sealed: &[u8]) {
        if let Some(cache) = self.cache {
            cache.put(kind, id, sealed);
        }
    }

    /// What was gathered of objects of a kind.
    pub(crate) fn gathered(&self, kind: FileType) -> Option<Gathered<'_>> {
        let path = self.cache?.gathered_path(kind)?;
        let key = self.key;
        Some(Gathered { path, key })
    }

    /// Verifies, decrypts and understands the content of an object.
    pub(crate) fn open<T: DeserializeOwned>(
        &self,
        object: &str,
        id: Id,
        sealed: &[u8],
    ) -> Result<T> {
        let damaged = |reason: String| self.backend.damaged(object, reason);
        if Id::new(hash(sealed)) != id {
            return Err(damaged("its content does not match its name".to_owned()));
        }
        let plain = self
            .key
            .open(sealed)
            .ok_or_else(|| damaged("it cannot be decrypted".to_owned()))?;
        let json = unpack(plain).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
    }

    /// What an object becomes in storage, and its id.
    pub(crate) fn prepare<T: Serialize>(
        &self,
        value: &T,
        compression_level: i32,
    ) -> Result<(Id, Vec<u8>)> {
        let invalid =
            |error: std::io::Error| self.backend.damaged("an object to be written", error);
        let mut envelope = self.key.envelope(0)?;
        envelope.push(COMPRESSED);
        let compress = || {
            let mut json = BufWriter::new(zstd::Encoder::new(envelope, compression_level)?);
            serde_json::to_writer(&mut json, value)?;
            json.into_inner()?.finish()
        };
        let sealed = self.key.close(compress().map_err(invalid)?)?;
        Ok((Id::new(hash(&sealed)), sealed))
    }
}

fn unpack(plain: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let Some((&COMPRESSED, compressed)) = plain.split_first() else {
        return Ok(plain);
    };
    decompress_through(compressed, |content| {
        let mut json = Vec::new();
        content.take(LARGEST_BYTES).read_to_end(&mut json)?;
        Ok(json)
    })
}
