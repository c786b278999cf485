//! What was counted so far.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use vrs_progress::{Counter, Phase};

use crate::events::Counts;
use crate::text;

/// Counts of the current phase, which several threads add to at once.
#[derive(Debug, Default)]
pub struct Tally {
    current: Mutex<Option<(Phase, Instant)>>,
    scanned: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
    fetched: AtomicU64,
    percent: AtomicU8,
}

/// The current phase at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    pub phase: Phase,
    pub counts: Counts,
    /// How far it is, where others than vrs do the work and tell.
    pub percent: Option<u8>,
    pub elapsed: Duration,
}

/// No percentage was told yet.
const UNKNOWN: u8 = u8::MAX;

impl Tally {
    /// Starts a phase with all counts at zero.
    pub fn begin(&self, phase: Phase) -> Status {
        for counter in [&self.scanned, &self.reused, &self.sent, &self.fetched] {
            counter.store(0, Ordering::Relaxed);
        }
        self.percent.store(UNKNOWN, Ordering::Relaxed);
        let status = Status {
            phase: phase.clone(),
            counts: Counts::default(),
            percent: None,
            elapsed: Duration::ZERO,
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((phase, Instant::now()));
        status
    }

    pub fn add(&self, counter: Counter, bytes: u64) {
        let count = match counter {
            Counter::Scanned => &self.scanned,
            Counter::Reused => &self.reused,
            Counter::Sent => &self.sent,
            Counter::Fetched => &self.fetched,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn reach(&self, percent: u8) {
        self.percent.store(percent, Ordering::Relaxed);
    }

    /// The phase that is under way.
    pub fn status(&self) -> Option<Status> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (phase, begun) = current.as_ref()?;
        let counts = Counts {
            scanned_bytes: self.scanned.load(Ordering::Relaxed),
            reused_bytes: self.reused.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            fetched_bytes: self.fetched.load(Ordering::Relaxed),
        };
        Some(Status {
            phase: phase.clone(),
            counts,
            percent: Some(self.percent.load(Ordering::Relaxed))
                .filter(|percent| *percent != UNKNOWN),
            elapsed: begun.elapsed(),
        })
    }
}

impl Status {
    /// "reading disk.vdi".
    pub fn title(&self) -> String {
        let subject = text::name(&self.phase.subject);
        format!("{} {subject}", self.phase.name)
            .trim_end()
            .to_owned()
    }

    /// "1.00 GiB of 4.00 GiB, 512.00 MiB reused, 10.00 MiB sent, 100.00 MiB/s, 30 seconds left"; or
    /// "40 %".
    pub fn counts_text(&self) -> String {
        if let Some(percent) = self.percent {
            return format!("{percent} %");
        }
        let counts = self.counts;
        let scanned = text::size(counts.scanned_bytes);
        let mut parts = vec![match self.phase.total_bytes {
            Some(total_bytes) => format!("{scanned} of {}", text::size(total_bytes)),
            None => scanned,
        }];
        let transfers = [
            (counts.reused_bytes, "reused"),
            (counts.sent_bytes, "sent"),
            (counts.fetched_bytes, "fetched"),
        ];
        let moved = transfers.into_iter().filter(|(bytes, _)| *bytes > 0);
        parts.extend(moved.map(|(bytes, what)| format!("{} {what}", text::size(bytes))));
        parts.extend(
            self.bytes_per_second()
                .map(|rate| format!("{}/s", text::size(rate))),
        );
        parts.extend(
            self.left()
                .map(|left| format!("{} left", HumanDuration(left))),
        );
        parts.join(", ")
    }

    fn bytes_per_second(&self) -> Option<u64> {
        let milliseconds = u64::try_from(self.elapsed.as_millis()).ok()?;
        let rate = self
            .counts
            .scanned_bytes
            .checked_mul(1000)?
            .checked_div(milliseconds)?;
        (rate > 0).then_some(rate)
    }

    fn left(&self) -> Option<Duration> {
        let left_bytes = self
            .phase
            .total_bytes?
            .checked_sub(self.counts.scanned_bytes)?;
        Some(Duration::from_secs(
            left_bytes.checked_div(self.bytes_per_second()?)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(total_bytes: Option<u64>, scanned_bytes: u64, elapsed: Duration) -> Status {
        Status {
            phase: Phase {
                name: "reading",
                subject: "disk\n.vdi".to_owned(),
                total_bytes,
            },
            counts: Counts {
                scanned_bytes,
                reused_bytes: 512 << 20,
                sent_bytes: 10 << 20,
                fetched_bytes: 0,
            },
            percent: None,
            elapsed,
        }
    }

    #[test]
    fn counts_are_kept_apart() {
        let status = status(Some(4 << 30), 1 << 30, Duration::from_secs(10));
        assert_eq!(status.title(), "reading disk\\n.vdi");
        insta::assert_snapshot!(status.counts_text(), @"1.00 GiB of 4.00 GiB, 512.00 MiB reused, 10.00 MiB sent, 102.40 MiB/s, 30 seconds left");
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        insta::assert_snapshot!(status(None, 0, Duration::ZERO).counts_text(), @"0 B, 512.00 MiB reused, 10.00 MiB sent");
    }

    #[test]
    fn what_others_do_is_shown_in_percent() {
        let tally = Tally::default();
        let phase = || Phase {
            name: "merging",
            subject: "m".to_owned(),
            total_bytes: None,
        };
        tally.begin(phase());
        tally.reach(40);
        assert_eq!(tally.status().unwrap().counts_text(), "40 %");
        tally.begin(phase());
        assert_eq!(tally.status().unwrap().percent, None);
    }

    #[test]
    fn a_phase_starts_from_zero() {
        let tally = Tally::default();
        assert!(tally.status().is_none());
        tally.add(Counter::Scanned, 5);
        tally.begin(Phase {
            name: "reading",
            subject: String::new(),
            total_bytes: None,
        });
        tally.add(Counter::Scanned, 7);
        tally.add(Counter::Fetched, 1);
        let counts = tally.status().unwrap().counts;
        assert_eq!(
            counts,
            Counts {
                scanned_bytes: 7,
                fetched_bytes: 1,
                ..Counts::default()
            }
        );
    }
}
