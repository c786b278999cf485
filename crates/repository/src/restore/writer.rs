//! Chunks on their way into the targets. Small ones that follow each other in a file are written together.
//!
//! Whoever writes chunks knows that they are what their ids stand for. What was written is there at the latest when its
//! target settles after [`Writer::flush`]; nothing is promised of it before.

use vrs_progress::Counter;

use crate::direct::{Run, is_aligned};
use crate::error::Result;
use crate::sink::is_zero;

use super::Restore;
use super::place::Place;
use super::target::Target;

/// Chunks of this length are written by themselves, from where they are.
const LONG_BYTES: usize = 256 << 10;

/// Every thread has its own. Memory: one piece of a file.
pub(super) struct Writer<'a> {
    restore: &'a Restore<'a>,
    run: Run,
    /// Of the run.
    target: Option<&'a Target>,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(restore: &'a Restore<'a>) -> Self {
        Self {
            restore,
            run: Run::new(),
            target: None,
        }
    }

    /// Writes a verified chunk to all its places, and counts it as dealt with.
    pub(super) fn put(&mut self, needs: &[Place], content: &[u8]) -> Result<()> {
        self.write(needs, content)?;
        let bytes = (content.len() as u64).saturating_mul(needs.len() as u64);
        self.restore.progress.add(Counter::Scanned, bytes);
        Ok(())
    }

    /// Writes a verified chunk to all its places.
    pub(super) fn write(&mut self, needs: &[Place], content: &[u8]) -> Result<()> {
        for place in needs {
            let target = self.restore.target(*place);
            let stored =
                target.and_then(|(target, chunk)| Some((target, target.chunks.get(chunk)?)));
            if let Some((target, chunk)) = stored {
                self.write_at(target, chunk.offset, content)?;
            }
        }
        Ok(())
    }

    fn write_at(&mut self, target: &'a Target, offset: u64, content: &[u8]) -> Result<()> {
        let progress = self.restore.progress;
        if is_zero(content) {
            let end = offset.saturating_add(content.len() as u64);
            return target.write_zeros(offset..end, progress);
        }
        if content.len() >= LONG_BYTES && is_aligned(content, offset) {
            return target.write(content, offset, progress);
        }
        let goes_on = |of: &Target| std::ptr::eq(of, target) && self.run.end() == offset;
        if !self.target.is_some_and(goes_on) {
            self.flush()?;
            self.run.begin(offset);
            self.target = Some(target);
        }
        let mut rest = content;
        loop {
            let taken = self.run.take(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Writes what is still in memory.
    pub(super) fn flush(&mut self) -> Result<()> {
        match self.target {
            Some(target) if !self.run.is_empty() => {
                target.write_run(&mut self.run, self.restore.progress)
            }
            _ => Ok(()),
        }
    }
}
