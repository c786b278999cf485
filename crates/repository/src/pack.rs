//! Packs: many sealed blobs in one object.
//!
//! Layout (restic's design document, "Pack Format"): the sealed blobs, then a sealed header with an
//! entry for each of them, then the length of the sealed header as a little-endian `u32`. An entry
//! is a type (0 data, 1 tree, 2 compressed data, 3 compressed tree), the sealed length, for
//! compressed ones the raw length, and the id.

use bytes::Bytes;
use jiff::Timestamp;
use rustic_core::BytesList;
use rustic_core::repofile::BlobType;
use sha2::{Digest, Sha256};

use crate::crypto::{MasterKey, SEAL_BYTES};
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::index::{IndexBlob, IndexPack};

const LENGTH_BYTES: u32 = 4;

/// Small blobs need several times their size in memory as long as the pack is open. restic refuses
/// headers of more than 16 MiB, which would be far more of them.
const MOST_BLOBS: usize = 4096;

/// A blob ready for a pack.
pub(crate) struct SealedBlob {
    pub(crate) id: ChunkId,
    pub(crate) kind: BlobType,
    pub(crate) sealed: Vec<u8>,
    /// Length before compression, absent when it was not compressed.
    pub(crate) uncompressed_length: Option<u32>,
}

/// A pack that is being filled.
#[derive(Default)]
pub(crate) struct PackBuilder {
    content: Vec<Bytes>,
    blobs: Vec<IndexBlob>,
    size_bytes: u32,
}

/// A complete pack.
pub(crate) struct Pack {
    pub(crate) content: BytesList,
    pub(crate) entry: IndexPack,
}

impl PackBuilder {
    pub(crate) fn add(&mut self, blob: SealedBlob) {
        let length = u32::try_from(blob.sealed.len()).unwrap_or(u32::MAX);
        self.blobs.push(IndexBlob {
            id: blob.id,
            kind: blob.kind,
            offset: self.size_bytes,
            length,
            uncompressed_length: blob.uncompressed_length,
        });
        self.size_bytes = self.size_bytes.saturating_add(length);
        self.content.push(blob.sealed.into());
    }

    /// Whether it is time to send it.
    pub(crate) fn is_full(&self, pack_bytes: u32) -> bool {
        self.size_bytes >= pack_bytes || self.blobs.len() >= MOST_BLOBS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Adds the header and names the pack.
    pub(crate) fn finish(mut self, key: &MasterKey, time: Timestamp) -> Result<Pack> {
        let header = key.seal(&encode_header(&self.blobs))?;
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        self.content.push(header.into());
        self.content.push(length.to_le_bytes().to_vec().into());
        let size_bytes = self
            .size_bytes
            .saturating_add(length)
            .saturating_add(LENGTH_BYTES);
        let mut digest = Sha256::new();
        let mut content = BytesList::default();
        for part in self.content {
            digest.update(&part);
            content.add(part);
        }
        let id = PackId::from_bytes(digest.finalize().into());
        let entry = IndexPack {
            id,
            blobs: self.blobs,
            time: Some(time),
            size: Some(size_bytes),
        };
        Ok(Pack { content, entry })
    }
}

fn encode_header(blobs: &[IndexBlob]) -> Vec<u8> {
    let mut header = Vec::new();
    for blob in blobs {
        let kind = match (blob.kind, blob.uncompressed_length) {
            (BlobType::Data, None) => 0,
            (BlobType::Tree, None) => 1,
            (BlobType::Data, Some(_)) => 2,
            (BlobType::Tree, Some(_)) => 3,
        };
        header.push(kind);
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed_length {
            header.extend_from_slice(&length.to_le_bytes());
        }
        header.extend_from_slice(blob.id.as_bytes());
    }
    header
}

/// What a header says about the blobs, or None when it makes no sense.
fn decode_header(mut header: &[u8]) -> Option<Vec<IndexBlob>> {
    let mut blobs = Vec::new();
    let mut offset: u32 = 0;
    while let Some((kind, rest)) = header.split_first() {
        let (length, rest) = take_u32(rest)?;
        let (uncompressed_length, rest) = match kind {
            0 | 1 => (None, rest),
            2 | 3 => take_u32(rest).map(|(length, rest)| (Some(length), rest))?,
            _ => return None,
        };
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let kind = if kind & 1 == 0 {
            BlobType::Data
        } else {
            BlobType::Tree
        };
        blobs.push(IndexBlob {
            id: ChunkId::from_bytes(*id),
            kind,
            offset,
            length,
            uncompressed_length,
        });
        offset = offset.checked_add(length)?;
        header = rest;
    }
    Some(blobs)
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*value), rest))
}

/// Reads what a pack itself says about its blobs. None when it is no complete pack of this size.
pub(crate) fn read_header(
    key: &MasterKey,
    size_bytes: u32,
    read: impl Fn(u32, u32) -> Result<Bytes>,
) -> Result<Option<Vec<IndexBlob>>> {
    let Some(length_at) = size_bytes.checked_sub(LENGTH_BYTES) else {
        return Ok(None);
    };
    let length = read(length_at, LENGTH_BYTES)?;
    let length = length.first_chunk().copied().map_or(0, u32::from_le_bytes);
    let smallest = u32::try_from(SEAL_BYTES).unwrap_or(u32::MAX);
    let Some(header_at) = length_at.checked_sub(length).filter(|_| length >= smallest) else {
        return Ok(None);
    };
    let blobs = key
        .open(&read(header_at, length)?)
        .and_then(|header| decode_header(&header));
    let ends_at = |blobs: &[IndexBlob]| {
        blobs
            .iter()
            .map(|blob| blob.length)
            .fold(0, u32::saturating_add)
    };
    Ok(blobs.filter(|blobs| ends_at(blobs) == header_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MasterKey {
        MasterKey::from_parts(&[1; 32], &[2; 16], &[3; 16]).unwrap()
    }

    fn blob(number: u8, kind: BlobType, uncompressed_length: Option<u32>) -> SealedBlob {
        SealedBlob {
            id: ChunkId::from_bytes([number; 32]),
            kind,
            sealed: key().seal(&[number; 40]).unwrap(),
            uncompressed_length,
        }
    }

    fn sample() -> Pack {
        let mut builder = PackBuilder::default();
        builder.add(blob(1, BlobType::Data, None));
        builder.add(blob(2, BlobType::Data, Some(70)));
        builder.add(blob(3, BlobType::Tree, Some(9)));
        builder.finish(&key(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn header_of(content: &[u8]) -> Option<Vec<IndexBlob>> {
        read_header(
            &key(),
            u32::try_from(content.len()).unwrap(),
            |offset, length| {
                Ok(Bytes::copy_from_slice(
                    &content[offset as usize..][..length as usize],
                ))
            },
        )
        .unwrap()
    }

    #[test]
    fn the_header_gives_back_what_the_index_holds() {
        let pack = sample();
        let content = pack.content.into_vec().concat();
        assert_eq!(pack.entry.size, Some(u32::try_from(content.len()).unwrap()));
        assert_eq!(
            IndexPack {
                size: None,
                ..pack.entry.clone()
            }
            .size_bytes(),
            pack.entry.size.unwrap()
        );
        assert_eq!(header_of(&content).unwrap(), pack.entry.blobs);
    }

    #[test]
    fn a_pack_is_full_by_its_size_or_by_its_number_of_blobs() {
        let mut builder = PackBuilder::default();
        while !builder.is_full(u32::MAX) {
            builder.add(blob(1, BlobType::Data, None));
        }
        assert_eq!(builder.blobs.len(), MOST_BLOBS);
        let size_bytes = builder.size_bytes;
        builder.blobs.pop();
        assert!(builder.is_full(size_bytes) && !builder.is_full(size_bytes + 1));
    }

    #[test]
    fn a_cut_pack_has_no_header() {
        let content = sample().content.into_vec().concat();
        for length in 0..content.len() {
            assert_eq!(header_of(&content[..length]), None, "cut at {length}");
        }
    }
}
