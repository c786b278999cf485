//! Blobs: chunks and trees, compressed and sealed.
//!
//! A blob is only ever handed out after its content was hashed and found equal to its id.

use rustic_core::repofile::BlobType;

use crate::crypto::{MasterKey, hash};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::index::{BlobLocation, PackNumber};
use crate::pack::SealedBlob;
use crate::repository::ResticRepository;

/// Larger than any tree that this or another program writes. An index that claims more is wrong.
const LARGEST_RAW_BYTES: u32 = 1 << 30;

/// Compresses and seals blobs. Every thread has its own, as the compressor keeps its tables.
pub(crate) struct Sealer<'a> {
    key: &'a MasterKey,
    compressor: zstd::bulk::Compressor<'static>,
}

impl<'a> Sealer<'a> {
    pub(crate) fn new(key: &'a MasterKey, compression_level: i32) -> Result<Self> {
        let compressor =
            zstd::bulk::Compressor::new(compression_level).map_err(|_| Error::InvalidRequest {
                subject: format!("compression level {compression_level}"),
                reason: "zstd does not know it",
            })?;
        Ok(Self { key, compressor })
    }

    /// What is stored for a blob: compressed where that makes it smaller.
    pub(crate) fn seal(&mut self, kind: BlobType, id: ChunkId, raw: &[u8]) -> Result<SealedBlob> {
        let compressed = self
            .compressor
            .compress(raw)
            .ok()
            .filter(|compressed| compressed.len() < raw.len());
        let sealed = self.key.seal(compressed.as_deref().unwrap_or(raw))?;
        let uncompressed_length = compressed.and_then(|_| u32::try_from(raw.len()).ok());
        Ok(SealedBlob {
            id,
            kind,
            sealed,
            uncompressed_length,
        })
    }
}

/// Why stored bytes are not the blob they should be.
pub(crate) type Flaw = &'static str;

/// Opens, decompresses and verifies a stored blob.
pub(crate) fn unseal(
    key: &MasterKey,
    id: &ChunkId,
    location: &BlobLocation,
    sealed: &[u8],
) -> std::result::Result<Vec<u8>, Flaw> {
    let mut raw = key.open(sealed).ok_or("it cannot be decrypted")?;
    if location.is_compressed() {
        if location.raw_bytes() > LARGEST_RAW_BYTES {
            return Err("the index gives it an impossible length");
        }
        let capacity = usize::try_from(location.raw_bytes()).unwrap_or(usize::MAX);
        raw = zstd::bulk::decompress(&raw, capacity).map_err(|_| "it cannot be decompressed")?;
    }
    if raw.len() as u64 != u64::from(location.raw_bytes()) {
        return Err("its length differs from what the index says");
    }
    if hash(&raw) == *id.as_bytes() {
        Ok(raw)
    } else {
        Err("its content does not match its id")
    }
}

impl ResticRepository {
    /// Reads a blob from the first pack that holds it undamaged. None when no index knows it.
    pub(crate) fn read_blob(&self, kind: BlobType, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        let loaded = self.index()?;
        let mut failure = None;
        for location in loaded.index.copies(kind, id) {
            match self.read_copy(&loaded.index, id, &location) {
                Ok(raw) => return Ok(Some(raw)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn read_copy(
        &self,
        index: &crate::index::Index,
        id: &ChunkId,
        location: &BlobLocation,
    ) -> Result<Vec<u8>> {
        let pack = pack_id(index, location.pack);
        let sealed = self
            .backend
            .read_pack(pack, location.offset, location.length)?;
        self.unseal(id, location, pack, &sealed)
    }

    /// Opens, decompresses and verifies a stored blob.
    pub(crate) fn unseal(
        &self,
        id: &ChunkId,
        location: &BlobLocation,
        pack: PackId,
        sealed: &[u8],
    ) -> Result<Vec<u8>> {
        unseal(&self.key, id, location, sealed).map_err(|reason| Error::DamagedChunk {
            location: self.backend.location().to_owned(),
            chunk: *id,
            pack,
            reason: reason.to_owned(),
        })
    }
}

fn pack_id(index: &crate::index::Index, number: PackNumber) -> PackId {
    index
        .pack(number)
        .map_or(PackId::from_bytes([0; 32]), |pack| pack.id)
}
