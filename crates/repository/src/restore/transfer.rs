//! Brings all missing chunks to their places.
//!
//! First those are moved that lie where this restore writes ([`moves`](super::moves)). All else can be done in any
//! order: chunks are copied from where they stay on this host, and at the same time others are fetched
//! ([`fetch`](super::fetch)), several of each at once.

use itertools::Itertools;

use crate::blob::Unsealer;
use crate::error::{Result, stop_if_interrupted};
use crate::index::ChunkNumber;
use crate::parallel;
use crate::store::RestoreStats;

use super::fetch::{Fetcher, Stretch};
use super::moves::{Copier, Mover, move_overwritten};
use super::place::Place;
use super::sources::Source;
use super::survey::Survey;
use super::writer::Writer;
use super::{Restore, TOGETHER_BYTES};

/// Copied by one thread before it looks for something else to do, unless a single chunk is longer.
const COPIED_BYTES: u64 = 4 << 20;

/// What one thread does at a time.
enum Job<'a> {
    Copy(&'a [Source]),
    Fetch(Stretch<'a>),
}

struct Worker<'a> {
    fetcher: &'a Fetcher<'a>,
    mover: Mover<'a>,
    unsealer: Unsealer<'a>,
    writer: Writer<'a>,
}

/// Fails after everything that can be had is written. What turns out not to lie on this host is fetched, and counted
/// so.
pub(super) fn carry_out(
    restore: &Restore<'_>,
    survey: Survey,
    stats: &mut RestoreStats,
) -> Result<()> {
    let Survey { mut sources, seeds } = survey;
    let mut needs = restore.needs(|_| true);
    let moving = std::mem::take(&mut sources.moving);
    let lost = move_overwritten(&Copier::new(restore, &seeds, &needs), moving)?;
    restore.count_lost(&needs, &lost, stats);
    sources.lost(&lost);
    // Until here this would have destroyed what is moved.
    restore.make_room(|target| target.existed)?;
    let staying = std::mem::take(&mut sources.staying);
    let sought = restore.split_sought(&mut needs, &sources);
    drop(sources);
    let fetcher = Fetcher::new(restore);
    let copier = Copier::new(restore, &seeds, &needs);
    let lost = transfer(&copier, &staying, sought, &fetcher)?;
    restore.count_lost(&needs, &lost, stats);
    let lost = lost
        .into_iter()
        .flat_map(|chunk| restore.needs_of(&needs, chunk));
    transfer(&copier, &[], lost.copied().collect(), &fetcher)?;
    fetcher.finish()
}

/// Copies chunks, and fetches others. Returns those chunks that were not where they should be copied from.
fn transfer(
    copier: &Copier<'_>,
    sources: &[Source],
    mut sought: Vec<Place>,
    fetcher: &Fetcher<'_>,
) -> Result<Vec<ChunkNumber>> {
    let restore = copier.restore();
    fetcher.sort(&mut sought);
    let fetches = fetcher.stretches(&sought).map(Job::Fetch);
    let jobs = groups(sources, COPIED_BYTES)
        .map(Job::Copy)
        .interleave(fetches);
    let worker = || {
        Ok(Worker {
            fetcher,
            mover: Mover::new(copier),
            unsealer: Unsealer::new(&restore.repository.key),
            writer: Writer::new(restore),
        })
    };
    let mut lost = Vec::new();
    parallel::each(
        restore.waiting_threads(),
        jobs.map(Ok),
        worker,
        |worker, job| {
            stop_if_interrupted(restore.progress)?;
            worker.work(job)
        },
        |of_job| lost.extend(of_job),
    )?;
    Ok(lost)
}

/// Neighbours in a list of sources, of so many bytes at most or of one.
fn groups(mut rest: &[Source], most_bytes: u64) -> impl Iterator<Item = &[Source]> {
    std::iter::from_fn(move || {
        let mut bytes: u64 = 0;
        let fits = |source: &&Source| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(source.length_bytes.into());
            is_first || bytes <= most_bytes
        };
        let count = rest.iter().take_while(fits).count();
        let (group, after) = rest.split_at_checked(count)?;
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}

impl Worker<'_> {
    /// Returns those chunks that were not where they should be.
    fn work(&mut self, job: Job<'_>) -> Result<Vec<ChunkNumber>> {
        let mut lost = Vec::new();
        match job {
            Job::Copy(sources) => {
                for sources in groups(sources, TOGETHER_BYTES.into()) {
                    lost.extend(self.mover.copy(sources, &mut self.writer)?);
                }
            }
            Job::Fetch(stretch) => {
                let (unsealer, writer) = (&mut self.unsealer, &mut self.writer);
                self.fetcher.fetch(&stretch, unsealer, writer)?;
            }
        }
        self.writer.flush()?;
        Ok(lost)
    }
}

impl Restore<'_> {
    fn count_lost(&self, needs: &[Place], lost: &[ChunkNumber], stats: &mut RestoreStats) {
        for chunk in lost {
            let places = self.needs_of(needs, *chunk).iter();
            let chunks = places.filter_map(|place| self.stored(*place));
            let bytes = chunks.map(|chunk| u64::from(chunk.length_bytes)).sum();
            stats.local_bytes = stats.local_bytes.saturating_sub(bytes);
            stats.fetched_bytes = stats.fetched_bytes.saturating_add(bytes);
            stats.fetched_chunks = stats.fetched_chunks.saturating_add(1);
        }
    }
}
