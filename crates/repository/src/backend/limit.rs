//! Limits of bytes a second, kept by all connections together.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::parallel::lock;

/// What is sent or received at once, at most.
const LARGEST_PIECE_BYTES: usize = 32 << 10;

/// The limits of both directions.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) upload: Limit,
    pub(super) download: Limit,
}

impl Limits {
    pub(super) fn of(access: &Access) -> Self {
        Self {
            upload: Limit::new(access.upload_kib_per_second),
            download: Limit::new(access.download_kib_per_second),
        }
    }
}

/// The limit of one direction, if there is one.
#[derive(Debug)]
pub(super) struct Limit(Option<Rate>);

#[derive(Debug)]
struct Rate {
    bytes_per_second: u64,
    /// When the bytes that were let through so far have passed.
    passed: Mutex<Instant>,
}

impl Limit {
    fn new(kib_per_second: Option<NonZeroU32>) -> Self {
        Self(kib_per_second.map(|kib| Rate {
            bytes_per_second: u64::from(kib.get()).saturating_mul(1024),
            passed: Mutex::new(Instant::now()),
        }))
    }

    /// How many bytes to send or receive before [`Self::wait`] is asked again.
    pub(super) fn piece_bytes(&self) -> usize {
        self.0.as_ref().map_or(LARGEST_PIECE_BYTES, |rate| {
            usize::try_from(rate.bytes_per_second / 4)
                .unwrap_or(usize::MAX)
                .min(LARGEST_PIECE_BYTES)
        })
    }

    /// Waits until so many bytes more may pass.
    pub(super) fn wait(&self, bytes: usize) {
        if let Some(rate) = &self.0 {
            std::thread::sleep(rate.reserve(bytes as u64, Instant::now()));
        }
    }

    /// The same for asynchronous code.
    pub(super) async fn wait_async(&self, bytes: usize) {
        if let Some(rate) = &self.0 {
            tokio::time::sleep(rate.reserve(bytes as u64, Instant::now())).await;
        }
    }
}

impl Rate {
    /// Lets bytes through after those before them, and says how long that takes.
    fn reserve(&self, bytes: u64, now: Instant) -> Duration {
        let micros = bytes
            .saturating_mul(1_000_000)
            .checked_div(self.bytes_per_second)
            .unwrap_or(0);
        let mut passed = lock(&self.passed);
        let start = (*passed).max(now);
        *passed = start
            .checked_add(Duration::from_micros(micros))
            .unwrap_or(start);
        passed.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_one_after_the_other_at_the_rate() {
        let limit = Limit::new(NonZeroU32::new(100));
        assert_eq!(limit.piece_bytes(), 25 << 10);
        let rate = limit.0.unwrap();
        let now = Instant::now() + Duration::from_secs(10);
        let waits: Vec<_> = (0..3).map(|_| rate.reserve(50 << 10, now)).collect();
        assert_eq!(waits, [500, 1000, 1500].map(Duration::from_millis));
        // What was not used is not saved up.
        let later = now + Duration::from_secs(100);
        assert_eq!(rate.reserve(100 << 10, later), Duration::from_secs(1));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let limit = Limit::new(None);
        assert_eq!(limit.piece_bytes(), LARGEST_PIECE_BYTES);
        limit.wait(usize::MAX);
    }
}
