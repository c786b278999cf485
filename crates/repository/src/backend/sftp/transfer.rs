//! The content of one object, in many requests at the same time.

use std::sync::Arc;

use bytes::Bytes;
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::task::JoinSet;

use super::super::limit::Limits;
use super::super::storage::{Failure, FailureKind, Outcome};
use super::IN_FLIGHT;
use super::connection::{Connection, done};
use super::refusal::failure;

/// Bytes in one request; every server takes as many.
const PIECE_BYTES: usize = 32 << 10;

impl Connection {
    /// Writes a new file, flushes it and makes sure that it has arrived.
    pub(super) async fn fill(
        self: &Arc<Self>,
        path: &str,
        content: &[Bytes],
        limits: &Limits,
    ) -> Outcome<()> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let opened = self
            .session
            .open(path, flags, FileAttributes::empty())
            .await;
        let handle = opened.map_err(failure)?.handle;
        let filled = self.fill_open(&handle, content, limits).await;
        let closed = self.session.close(handle).await.map_err(failure);
        filled.and(closed.map(drop))
    }

    async fn fill_open(
        self: &Arc<Self>,
        handle: &str,
        content: &[Bytes],
        limits: &Limits,
    ) -> Outcome<()> {
        let mut under_way = JoinSet::new();
        let mut offset: u64 = 0;
        for part in content {
            let mut rest = part.clone();
            while !rest.is_empty() {
                let piece_bytes = PIECE_BYTES.min(limits.upload.piece_bytes());
                let piece = rest.split_to(piece_bytes.min(rest.len()));
                limits.upload.wait_async(piece.len()).await;
                if under_way.len() >= IN_FLIGHT {
                    done(under_way.join_next().await)?;
                }
                let (connection, handle, at) = (Arc::clone(self), handle.to_owned(), offset);
                offset = offset.saturating_add(piece.len() as u64);
                under_way.spawn(async move {
                    let written = connection.session.write(handle, at, piece.to_vec());
                    written.await.map(drop).map_err(failure)
                });
            }
        }
        while let Some(written) = under_way.join_next().await {
            done(Some(written))?;
        }
        if self.can_flush {
            self.session.fsync(handle).await.map_err(failure)?;
        }
        let found = self.session.fstat(handle).await.map_err(failure)?;
        if found.attrs.size == Some(offset) {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Unwell,
                "the server did not store all of it",
            ))
        }
    }

    pub(super) async fn read_range(
        self: &Arc<Self>,
        handle: &str,
        from: u64,
        length_bytes: usize,
        limits: &Limits,
    ) -> Outcome<Bytes> {
        let mut content = vec![0; length_bytes];
        let mut under_way = JoinSet::new();
        let piece_bytes = PIECE_BYTES.min(limits.download.piece_bytes());
        let mut next: usize = 0;
        while next < length_bytes || !under_way.is_empty() {
            if next < length_bytes && under_way.len() < IN_FLIGHT {
                let length = piece_bytes.min(length_bytes.saturating_sub(next));
                limits.download.wait_async(length).await;
                let (connection, handle, at) = (Arc::clone(self), handle.to_owned(), next);
                let offset = from.saturating_add(at as u64);
                under_way.spawn(async move {
                    let piece = connection.read_piece(&handle, offset, length).await?;
                    Ok((at, piece))
                });
                next = next.saturating_add(length);
                continue;
            }
            let (at, piece): (usize, Vec<u8>) = done(under_way.join_next().await)?;
            if let Some(place) = content.get_mut(at..at.saturating_add(piece.len())) {
                place.copy_from_slice(&piece);
            }
        }
        Ok(content.into())
    }

    /// Exactly so many bytes, although servers may answer with fewer at a time.
    async fn read_piece(&self, handle: &str, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let mut piece = Vec::with_capacity(length);
        while piece.len() < length {
            let at = offset.saturating_add(piece.len() as u64);
            let wanted = u32::try_from(length.saturating_sub(piece.len())).unwrap_or(u32::MAX);
            let read = self.session.read(handle, at, wanted).await;
            let data = read.map_err(failure)?.data;
            if data.is_empty() || data.len() > wanted as usize {
                return Err(Failure::new(
                    FailureKind::TooShort,
                    "the server sent a wrong number of bytes",
                ));
            }
            piece.extend_from_slice(&data);
        }
        Ok(piece)
    }
}
