//! Random access to stored files.
//!
//! Decoded chunks are kept up to a fixed number of bytes, so memory does not grow with the file
//! beyond its chunk list of 48 bytes a chunk.

use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use rustic_core::repofile::BlobType;

use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::layout::StoredChunk;
use crate::repository::ResticRepository;
use crate::store::{StoredFileReader, TreePath};
use crate::tree::FoundFile;

const CACHE_BYTES: u64 = 32 << 20;
/// Only sizes the cache's table.
const TYPICAL_CHUNK_BYTES: u64 = 256 << 10;

/// See the module.
pub(crate) struct ChunkReader<'a> {
    repository: &'a ResticRepository,
    path: TreePath,
    chunks: Vec<StoredChunk>,
    cache: Cache<ChunkId, Vec<u8>, ByLength>,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<ChunkId, Vec<u8>> for ByLength {
    fn weight(&self, _: &ChunkId, chunk: &Vec<u8>) -> u64 {
        chunk.len() as u64
    }
}

impl<'a> ChunkReader<'a> {
    pub(crate) fn new(repository: &'a ResticRepository, file: &FoundFile) -> Result<Self> {
        let items = usize::try_from(CACHE_BYTES / TYPICAL_CHUNK_BYTES).unwrap_or(usize::MAX);
        Ok(Self {
            repository,
            path: file.path.clone(),
            chunks: repository.stored_chunks(file)?,
            cache: Cache::with_weighter(items, CACHE_BYTES, ByLength),
        })
    }

    /// Copies what one chunk holds of the wanted range.
    fn copy_part(&mut self, chunk: StoredChunk, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let (from, to) = (offset.max(chunk.offset), end.min(chunk.end()));
        let index =
            |at: u64, base: u64| usize::try_from(at.saturating_sub(base)).unwrap_or(usize::MAX);
        let target = buffer.get_mut(index(from, offset)..index(to, offset));
        let content = self
            .content(chunk)?
            .get(index(from, chunk.offset)..index(to, chunk.offset));
        if let (Some(target), Some(content)) = (target, content) {
            target.copy_from_slice(content);
        }
        Ok(())
    }

    fn content(&mut self, chunk: StoredChunk) -> Result<&[u8]> {
        let (repository, path) = (self.repository, &self.path);
        let content = self.cache.get_or_insert_with(&chunk.id, || {
            repository
                .read_blob(BlobType::Data, &chunk.id)?
                .ok_or_else(|| Error::MissingChunk {
                    location: repository.backend.location().to_owned(),
                    path: path.clone(),
                    offset: chunk.offset,
                    chunk: chunk.id,
                })
        })?;
        Ok(content.map(Vec::as_slice).unwrap_or_default())
    }
}

impl StoredFileReader for ChunkReader<'_> {
    fn size_bytes(&self) -> u64 {
        self.chunks.last().map_or(0, StoredChunk::end)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (length_bytes, size_bytes) = (buffer.len() as u64, self.size_bytes());
        let end = offset
            .checked_add(length_bytes)
            .filter(|end| *end <= size_bytes);
        let end = end.ok_or_else(|| Error::OutOfBounds {
            path: self.path.clone(),
            offset,
            length_bytes,
            size_bytes,
        })?;
        let mut number = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        while let Some(chunk) = self
            .chunks
            .get(number)
            .copied()
            .filter(|chunk| chunk.offset < end)
        {
            self.copy_part(chunk, offset, buffer)?;
            number = number.saturating_add(1);
        }
        Ok(())
    }
}
