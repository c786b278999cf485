//! Writes past the page cache: a disk that is restored is larger than what anybody will read of it soon, and
//! copying it there takes as long as decrypting it.
//!
//! It is tried, and left to the usual way wherever it is not possible.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::aligned::is_aligned;
use crate::platform;

pub(super) struct DirectFile {
    file: File,
    is_refused: AtomicBool,
}

impl DirectFile {
    /// Another way to write to a file that is open, if its file system has one.
    pub(super) fn beside(file: &File, path: &Path) -> Option<Self> {
        let direct = platform::open_direct(path).ok()?;
        let inode = |file: &File| file.metadata().map(|found| platform::stamp(&found).inode);
        let is_same = inode(file).ok()? == inode(&direct).ok()?;
        is_same.then_some(Self {
            file: direct,
            is_refused: AtomicBool::new(false),
        })
    }

    /// Writes bytes, if it can be done with them. When it returns false they have to be written in the usual
    /// way.
    pub(super) fn write(&self, content: &[u8], offset: u64) -> io::Result<bool> {
        if !is_aligned(content, offset) || self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match platform::write_all_at(&self.file, content, offset) {
            // A file system that opens files in this way, and then wants other alignments.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }
}
