//! Work for several threads, with a short queue and an end at the first failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};

/// Does all jobs and hands what they gave to `take`, in the order of the jobs.
///
/// Jobs are drawn one by one as threads become free and results are handed over as soon as all
/// before them are, so a lazy iterator bounds memory. Each thread has a state of its own. After a
/// failure no new job is started.
pub(crate) fn each<J: Send, S, T: Send>(
    threads: usize,
    jobs: impl Iterator<Item = Result<J>>,
    state: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, J) -> Result<T> + Sync,
    mut take: impl FnMut(T) + Send,
) -> Result<()> {
    if threads < 2 {
        let mut state = state()?;
        return jobs
            .map(|job| work(&mut state, job?))
            .try_for_each(|result| {
                take(result?);
                Ok(())
            });
    }
    let pool = Pool {
        results: Mutex::new(InOrder {
            next: 0,
            early: BTreeMap::new(),
            take,
        }),
        failure: Mutex::new(None),
        failed: AtomicBool::new(false),
    };
    let (queue, waiting) = bounded(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let waiting = waiting.clone();
            scope.spawn(|| pool.keep(pool.drain(waiting, &state, &work)));
        }
        // Otherwise feeding would wait for ever once all threads have failed.
        drop(waiting);
        pool.keep(pool.feed(jobs, queue));
    });
    let failure = lock(&pool.failure).take();
    failure.map_or(Ok(()), Err)
}

/// At most so many jobs are handed over at once by [`each_short`]: what they give is in memory together.
const MOST_AT_ONCE: usize = 8;
/// So many times each thread takes jobs at least, so that no thread waits long for the others at the end.
const SHARES: usize = 8;

/// Does all jobs like [`each`], where a job may take less time than handing it over: of many, several are
/// handed over at once.
pub(crate) fn each_short<J: Send, T: Send>(
    threads: usize,
    jobs: impl ExactSizeIterator<Item = J>,
    work: impl Fn(J) -> Result<T> + Sync,
    mut take: impl FnMut(T) + Send,
) -> Result<()> {
    let shares = threads.saturating_mul(SHARES);
    let at_once = jobs.len().checked_div(shares).unwrap_or_default();
    let at_once = at_once.clamp(1, MOST_AT_ONCE);
    let mut jobs = jobs;
    let groups = std::iter::from_fn(|| {
        let group: Vec<J> = jobs.by_ref().take(at_once).collect();
        (!group.is_empty()).then_some(Ok(group))
    });
    each(
        threads,
        groups,
        || Ok(()),
        |(), group| group.into_iter().map(&work).collect::<Result<Vec<T>>>(),
        |results| results.into_iter().for_each(&mut take),
    )
}

/// Does two things at the same time.
pub(crate) fn both<A, B: Send>(
    one: impl FnOnce() -> A,
    other: impl FnOnce() -> Result<B> + Send,
) -> (A, Result<B>) {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        let other = other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (one, other)
    })
}

/// The content of a mutex, also after a panic of another thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands results over in the order of their jobs.
struct InOrder<T, F> {
    next: usize,
    /// Results of jobs that overtook others.
    early: BTreeMap<usize, T>,
    take: F,
}

impl<T, F: FnMut(T)> InOrder<T, F> {
    fn add(&mut self, number: usize, result: T) {
        self.early.insert(number, result);
        while let Some(result) = self.early.remove(&self.next) {
            (self.take)(result);
            self.next = self.next.saturating_add(1);
        }
    }
}

/// What all threads share.
struct Pool<T, F> {
    results: Mutex<InOrder<T, F>>,
    /// The first one.
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

impl<T, F: FnMut(T)> Pool<T, F> {
    fn drain<J, S>(
        &self,
        waiting: Receiver<(usize, J)>,
        state: &impl Fn() -> Result<S>,
        work: &impl Fn(&mut S, J) -> Result<T>,
    ) -> Result<()> {
        let mut state = state()?;
        for (number, job) in waiting {
            if self.failed.load(Ordering::Acquire) {
                break;
            }
            let result = work(&mut state, job)?;
            lock(&self.results).add(number, result);
        }
        Ok(())
    }

    fn feed<J>(
        &self,
        jobs: impl Iterator<Item = Result<J>>,
        queue: Sender<(usize, J)>,
    ) -> Result<()> {
        for (number, job) in jobs.enumerate() {
            // The queue is closed when all threads have failed.
            if self.failed.load(Ordering::Acquire) || queue.send((number, job?)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn keep(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            lock(&self.failure).get_or_insert(error);
            self.failed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for threads in [1, 4] {
            let mut doubled = Vec::new();
            let double = |(): &mut (), job: u64| Ok(job * 2);
            each(
                threads,
                (0..100).map(Ok),
                || Ok(()),
                double,
                |result| doubled.push(result),
            )
            .unwrap();
            assert_eq!(doubled, (0..100).map(|job| job * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn short_jobs_are_all_done_in_order_however_many() {
        for (threads, count) in [(1, 0), (1, 1), (4, 3), (2, 15), (2, 40), (3, 1000)] {
            let mut doubled = Vec::new();
            let double = |job: u64| Ok(job * 2);
            let jobs = (0..count).collect::<Vec<u64>>().into_iter();
            each_short(threads, jobs, double, |result| doubled.push(result)).unwrap();
            assert_eq!(doubled, (0..count).map(|job| job * 2).collect::<Vec<_>>());
        }
        let fail = |job: u64| (job != 700).then_some(job).ok_or(Error::Interrupted);
        let jobs = (0..1000).collect::<Vec<u64>>().into_iter();
        assert!(matches!(
            each_short(2, jobs, fail, drop),
            Err(Error::Interrupted)
        ));
    }

    #[test]
    fn the_first_failure_ends_an_endless_feed() {
        let fail = |(): &mut (), job: u64| {
            if job == 7 {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        };
        assert!(matches!(
            each(3, (0..).map(Ok), || Ok(()), fail, |()| {}),
            Err(Error::Interrupted)
        ));
    }
}
