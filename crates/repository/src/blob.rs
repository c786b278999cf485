//! Blobs: chunks and trees, compressed and sealed.
//!
//! A blob is only ever handed out after its content was hashed and found equal to its id.

use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::Bytes;
use rustic_core::repofile::BlobType;
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::crypto::{Digester, MasterKey, hash, hash_all};
use crate::decompression::{decompress_through, decompress_to};
use crate::direct::AlignedBuffer;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::index::{BlobLocation, PackNumber};
use crate::loaded_index::LoadedIndex;
use crate::pack::SealedBlob;
use crate::repository::ResticRepository;
use crate::tree_copies::TreeCopies;

/// Larger than any tree that this or another program writes. An index that claims more is wrong.
const LARGEST_RAW_BYTES: u32 = 1 << 30;

/// For so many bytes and fewer, zstd's own choice at level 1 finds matches of six bytes and less.
const WELL_CHOSEN_BYTES: usize = 256 << 10;
/// Larger blobs become smaller with these, in the same time: see docs/design/hot-paths.md.
const TUNED: [CParameter; 2] = [CParameter::HashLog(15), CParameter::MinMatch(6)];
const UNTUNED: [CParameter; 2] = [CParameter::HashLog(0), CParameter::MinMatch(0)];
const TUNED_LEVEL: i32 = 1;

/// Compresses and seals blobs. Every thread has its own, as the compressor keeps its tables and the buffer its
/// memory.
pub(crate) struct Sealer<'a> {
    key: &'a MasterKey,
    compression_level: i32,
    compressor: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
}

impl<'a> Sealer<'a> {
    pub(crate) fn new(key: &'a MasterKey, compression_level: i32) -> Result<Self> {
        let compressor =
            zstd::bulk::Compressor::new(compression_level).map_err(|_| Error::InvalidRequest {
                subject: format!("compression level {compression_level}"),
                reason: "zstd does not know it",
            })?;
        Ok(Self {
            key,
            compression_level,
            compressor,
            compressed: Vec::new(),
        })
    }

    /// What is stored for a blob: compressed where that makes it smaller.
    pub(crate) fn seal(&mut self, kind: BlobType, id: ChunkId, raw: &[u8]) -> Result<SealedBlob> {
        let is_smaller = self.compress(raw).is_ok() && self.compressed.len() < raw.len();
        let stored = if is_smaller { &self.compressed } else { raw };
        let sealed = self.key.seal(stored)?;
        let uncompressed_length = u32::try_from(raw.len()).ok().filter(|_| is_smaller);
        Ok(SealedBlob {
            id,
            kind,
            sealed,
            uncompressed_length,
        })
    }

    fn compress(&mut self, raw: &[u8]) -> io::Result<()> {
        let tune = self.compression_level == TUNED_LEVEL && raw.len() > WELL_CHOSEN_BYTES;
        for parameter in if tune { TUNED } else { UNTUNED } {
            self.compressor.set_parameter(parameter)?;
        }
        self.compressed.clear();
        self.compressed.reserve(compress_bound(raw.len()));
        self.compressor
            .compress_to_buffer(raw, &mut self.compressed)
            .map(drop)
    }

    /// What is stored for a blob of `raw_bytes` bytes that `write` produces. Only its compressed
    /// form is ever in memory.
    pub(crate) fn seal_written(
        &self,
        kind: BlobType,
        id: ChunkId,
        raw_bytes: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<SealedBlob> {
        let invalid = |reason| Error::InvalidRequest {
            subject: format!("an object of {raw_bytes} bytes"),
            reason,
        };
        let uncompressed_length =
            u32::try_from(raw_bytes).map_err(|_| invalid("it is too large for a pack"))?;
        let envelope = self.key.envelope(uncompressed_length as usize)?;
        let compress = || {
            let mut encoder = zstd::Encoder::new(envelope, self.compression_level)?;
            encoder.set_pledged_src_size(Some(raw_bytes))?;
            write(&mut encoder)?;
            encoder.finish()
        };
        let envelope = compress().map_err(|_| invalid("it cannot be compressed"))?;
        let mut sealed = self.key.close(envelope)?;
        sealed.shrink_to_fit();
        Ok(SealedBlob {
            id,
            kind,
            sealed,
            uncompressed_length: Some(uncompressed_length),
        })
    }
}

/// Why stored bytes are not the blob they should be.
pub(crate) type Flaw = &'static str;

/// Opens, decompresses and verifies a single stored blob.
pub(crate) fn unseal(
    key: &MasterKey,
    id: &ChunkId,
    location: &BlobLocation,
    sealed: &[u8],
) -> std::result::Result<Vec<u8>, Flaw> {
    let (mut unsealer, mut sealed) = (Unsealer::new(key), sealed.to_vec());
    let raw = unsealer.unseal(id, location, &mut sealed)?;
    Ok(raw.to_vec())
}

/// Opens, decompresses and verifies blobs one after the other. Every thread has its own, as the buffer keeps
/// its memory.
pub(crate) struct Unsealer<'a> {
    key: &'a MasterKey,
    raw: AlignedBuffer,
}

impl<'a> Unsealer<'a> {
    pub(crate) const fn new(key: &'a MasterKey) -> Self {
        let raw = AlignedBuffer::new();
        Self { key, raw }
    }

    /// The content of a blob, aligned, until the next one is unsealed. The sealed bytes are of no use
    /// afterwards.
    pub(crate) fn unseal(
        &mut self,
        id: &ChunkId,
        location: &BlobLocation,
        sealed: &mut [u8],
    ) -> std::result::Result<&[u8], Flaw> {
        let blob = StoredBlob {
            id: *id,
            location: *location,
            sealed: 0..sealed.len(),
        };
        let unsealed = self.unseal_all(&[blob], sealed).pop();
        unsealed.unwrap_or(Err(UNSEALABLE))
    }

    /// The contents of several blobs whose sealed bytes lie in `bytes`; those of all of them are in memory at once.
    pub(crate) fn unseal_all(
        &mut self,
        blobs: &[StoredBlob],
        bytes: &mut [u8],
    ) -> Vec<std::result::Result<&[u8], Flaw>> {
        let claimed = blobs.iter().map(|blob| claimed_length(&blob.location));
        let claimed: Vec<_> = claimed.map(|length| length.unwrap_or(0)).collect();
        let rooms = self.raw.rooms(&claimed);
        let opened = blobs.iter().zip(rooms).map(|(blob, room)| {
            let sealed = bytes.get_mut(blob.sealed.clone()).ok_or(UNSEALABLE)?;
            open(self.key, &blob.location, sealed, room)
        });
        let opened: Vec<_> = opened.collect();
        let contents: Vec<&[u8]> = opened.iter().flatten().copied().collect();
        let mut hashes = hash_all(&contents).into_iter();
        let verified = blobs.iter().zip(opened).map(|(blob, opened)| {
            let content = opened?;
            let hash = hashes.next().unwrap_or_else(|| hash(content));
            verify(&blob.id, &blob.location, content.len() as u64, hash)?;
            Ok(content)
        });
        verified.collect()
    }
}

/// A blob among stored bytes.
pub(crate) struct StoredBlob {
    pub(crate) id: ChunkId,
    pub(crate) location: BlobLocation,
    /// Its part of the bytes.
    pub(crate) sealed: Range<usize>,
}

/// Opens and decompresses a blob into a room of the length that the index says. It is not verified.
fn open<'r>(
    key: &MasterKey,
    location: &BlobLocation,
    sealed: &mut [u8],
    room: &'r mut [u8],
) -> std::result::Result<&'r [u8], Flaw> {
    claimed_length(location)?;
    let plain = key.open_in_place(sealed).ok_or(UNSEALABLE)?;
    let length_bytes = if location.is_compressed() {
        decompress_to(plain, room).map_err(|_| UNREADABLE)?
    } else {
        let room = room.get_mut(..plain.len()).ok_or(OF_OTHER_LENGTH)?;
        room.copy_from_slice(plain);
        plain.len()
    };
    Ok(room.get(..length_bytes).unwrap_or_default())
}

/// Opens a stored blob and hands its content to `read` while it is decompressed. What that returns
/// is worth something only if the content as a whole turns out right.
fn unseal_through<T>(
    key: &MasterKey,
    id: &ChunkId,
    location: &BlobLocation,
    sealed: Bytes,
    read: impl Fn(&mut dyn Read) -> T,
) -> std::result::Result<T, Flaw> {
    // No copy where nobody else holds the bytes.
    let mut sealed = Vec::from(sealed);
    let plain = key.open_in_place(&mut sealed).ok_or(UNSEALABLE)?;
    let most_bytes = claimed_length(location)? as u64;
    let mut digest = Digester::default();
    let mut read_all = |content: &mut dyn Read| {
        let mut source = Digested {
            // One more, so that a longer content does not look right.
            source: content.take(most_bytes.saturating_add(1)),
            digest: &mut digest,
        };
        let value = read(&mut source);
        io::copy(&mut source, &mut io::sink())?;
        Ok(value)
    };
    let value = if location.is_compressed() {
        decompress_through(plain, read_all)
    } else {
        read_all(&mut &*plain)
    };
    let value = value.map_err(|_| UNREADABLE)?;
    let (length_bytes, digest) = digest.finish();
    verify(id, location, length_bytes, digest)?;
    Ok(value)
}

const UNSEALABLE: Flaw = "it cannot be decrypted";
const UNREADABLE: Flaw = "it cannot be decompressed";
const OF_OTHER_LENGTH: Flaw = "its length differs from what the index says";

fn claimed_length(location: &BlobLocation) -> std::result::Result<usize, Flaw> {
    if location.raw_bytes() > LARGEST_RAW_BYTES {
        return Err("the index gives it an impossible length");
    }
    Ok(usize::try_from(location.raw_bytes()).unwrap_or(usize::MAX))
}

fn verify(
    id: &ChunkId,
    location: &BlobLocation,
    length_bytes: u64,
    digest: [u8; 32],
) -> std::result::Result<(), Flaw> {
    if length_bytes != u64::from(location.raw_bytes()) {
        return Err(OF_OTHER_LENGTH);
    }
    if digest == *id.as_bytes() {
        Ok(())
    } else {
        Err("its content does not match its id")
    }
}

/// A stream whose bytes are hashed as they pass.
struct Digested<'a, R> {
    source: R,
    digest: &'a mut Digester,
}

impl<R: Read> Read for Digested<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.digest
            .write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}

impl ResticRepository {
    /// Reads a blob from the first pack that holds it undamaged. None when no index knows it.
    pub(crate) fn read_blob(&self, kind: BlobType, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        self.sound(&*self.known_index()?, kind, id, |location, sealed| {
            unseal(&self.key, id, location, &sealed)
        })
    }

    /// Like [`Self::read_blob`], for a tree, which is understood while it is decompressed. Looks into
    /// `loaded` first, and into `copies`, where it is kept.
    pub(crate) fn read_tree<T>(
        &self,
        loaded: &LoadedIndex,
        id: &ChunkId,
        copies: Option<&TreeCopies>,
        read: impl Fn(&mut dyn Read) -> T,
    ) -> Result<Option<T>> {
        let unseal = |location: &BlobLocation, sealed| {
            unseal_through(&self.key, id, location, sealed, &read)
        };
        let Some(copies) = copies else {
            return self.sound(loaded, BlobType::Tree, id, unseal);
        };
        let unseal = |location: &BlobLocation, sealed| {
            unseal(location, sealed).inspect_err(|_| copies.remove(id))
        };
        let known = loaded.index.copies(BlobType::Tree, id).next();
        let copied = known.and_then(|location| Some((location, copies.get(id)?)));
        let copied = copied.map(|(location, sealed)| unseal(&location, sealed.into()));
        if let Some(Ok(tree)) = copied {
            return Ok(Some(tree));
        }
        self.sound(loaded, BlobType::Tree, id, |location, sealed: Bytes| {
            // Before it is verified: afterwards the bytes are not there any more.
            copies.put(id, &sealed);
            unseal(location, sealed)
        })
    }

    /// By an index that may be an old one, and if that is in vain by the one of now: asking the storage for
    /// its list of index files each time would take longer.
    fn sound<T>(
        &self,
        loaded: &LoadedIndex,
        kind: BlobType,
        id: &ChunkId,
        unseal: impl Fn(&BlobLocation, Bytes) -> std::result::Result<T, Flaw>,
    ) -> Result<Option<T>> {
        match self.first_sound(loaded, kind, id, &unseal) {
            Ok(Some(content)) => Ok(Some(content)),
            _ => self.first_sound(&*self.index()?, kind, id, unseal),
        }
    }

    fn first_sound<T>(
        &self,
        loaded: &LoadedIndex,
        kind: BlobType,
        id: &ChunkId,
        unseal: impl Fn(&BlobLocation, Bytes) -> std::result::Result<T, Flaw>,
    ) -> Result<Option<T>> {
        let mut failure = None;
        for location in loaded.index.copies(kind, id) {
            let pack = pack_id(&loaded.index, location.pack);
            let sealed = self
                .backend
                .read_pack(pack, location.offset, location.length);
            let content = sealed.and_then(|sealed| {
                unseal(&location, sealed).map_err(|flaw| self.damaged_chunk(id, pack, flaw))
            });
            match content {
                Ok(content) => return Ok(Some(content)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn damaged_chunk(&self, id: &ChunkId, pack: PackId, reason: Flaw) -> Error {
        Error::DamagedChunk {
            location: self.backend.location().to_owned(),
            chunk: *id,
            pack,
            reason: reason.to_owned(),
        }
    }
}

fn pack_id(index: &crate::index::Index, number: PackNumber) -> PackId {
    index
        .pack(number)
        .map_or(PackId::from_bytes([0; 32]), |pack| pack.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of six bytes, with noise between them.
    fn words(bytes: usize) -> Vec<u8> {
        let mut state: u32 = 7;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let words = std::iter::repeat_with(|| format!("{:03}abc{}", random() % 500, random()));
        words.flat_map(String::into_bytes).take(bytes).collect()
    }

    #[test]
    fn large_blobs_become_smaller_than_by_the_level_alone_and_small_ones_as_by_it() {
        let key = MasterKey::from_parts(&[1; 32], &[2; 16], &[3; 16]).unwrap();
        let mut sealer = Sealer::new(&key, TUNED_LEVEL).unwrap();
        for bytes in [512 << 10, 16 << 10, 256 << 10, 512 << 10] {
            let raw = words(bytes);
            let id = ChunkId::from_bytes(hash(&raw));
            let sealed = sealer.seal(BlobType::Data, id, &raw).unwrap();
            let plain = key.open(&sealed.sealed).unwrap();
            assert_eq!(zstd::bulk::decompress(&plain, bytes).unwrap(), raw);
            let by_level = zstd::bulk::compress(&raw, TUNED_LEVEL).unwrap();
            if bytes > WELL_CHOSEN_BYTES {
                assert!(plain.len().saturating_mul(100) < by_level.len().saturating_mul(99));
            } else {
                assert!(plain == by_level);
            }
        }
    }
}
