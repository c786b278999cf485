//! Random access to stored files.
//!
//! Decoded chunks are kept up to a fixed number of bytes, so memory does not grow with the file
//! beyond its list of chunks.

use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use rustic_core::repofile::BlobType;

use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::layout::{ChunkList, StoredChunk};
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
    chunks: ChunkList,
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
    pub(crate) fn new(repository: &'a ResticRepository, file: FoundFile) -> Result<Self> {
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
        if let Some(content) = self.cache.get(&chunk.id) {
            return self.copy_from(content, chunk, offset, buffer);
        }
        let content = self.read(chunk)?;
        self.copy_from(&content, chunk, offset, buffer)?;
        self.cache.insert(chunk.id, content);
        Ok(())
    }

    fn copy_from(
        &self,
        content: &[u8],
        chunk: StoredChunk,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let (from, to) = (offset.max(chunk.offset), end.min(chunk.end()));
        let index = |at: u64, base: u64| usize::try_from(at.saturating_sub(base)).ok();
        let range = |base| Some(index(from, base)?..index(to, base)?);
        let target = range(offset).and_then(|range| buffer.get_mut(range));
        let source = range(chunk.offset).and_then(|range| content.get(range));
        let (target, source) = target.zip(source).ok_or_else(|| {
            let object = format!("chunk {}", chunk.id.short());
            self.repository
                .backend
                .damaged(object, "it is shorter than the index says")
        })?;
        target.copy_from_slice(source);
        Ok(())
    }

    fn read(&self, chunk: StoredChunk) -> Result<Vec<u8>> {
        let content = self.repository.read_blob(BlobType::Data, &chunk.id)?;
        content.ok_or_else(|| Error::MissingChunk {
            location: self.repository.backend.location().to_owned(),
            path: self.path.clone(),
            offset: chunk.offset,
            chunk: chunk.id,
        })
    }
}

impl StoredFileReader for ChunkReader<'_> {
    fn size_bytes(&self) -> u64 {
        self.chunks.size_bytes()
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
        let mut position = self.chunks.position_at(offset);
        while let Some(chunk) = self.chunks.get(position).filter(|chunk| chunk.offset < end) {
            self.copy_part(chunk, offset, buffer)?;
            position = position.saturating_add(1);
        }
        Ok(())
    }
}
