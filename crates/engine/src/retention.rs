//! Which snapshots of a machine are kept.
//!
//! The rules mean what they mean in restic: the last N; the last one of each of the last N hours, days,
//! weeks (of ISO 8601), months and years in which there are snapshots, and where there are fewer, the
//! oldest one too (as newer versions of restic do); all that are no older than some time before the latest; all with some tags. A
//! snapshot that any rule keeps is kept.
//!
//! Beyond restic: without any rule everything is kept; pinned snapshots and the latest one are always
//! kept, and so is one that a machine moved into. A snapshot from the future is kept, too, and no rule
//! counts it: the clock of its host was wrong, or somebody means to push the others out. So whatever is
//! added, [`Rules::within`] keeps what is no older than it says.

mod rules;

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::Serialize;

use crate::snapshot::Snapshot;

pub use rules::{Count, InvalidRule, Rules, Within};

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is no rule.
    NoRule,
    /// The user pinned it.
    Pinned,
    /// The machine moved into it and was not seen again since.
    OnItsWay,
    /// It is from the future.
    Future,
    /// It is the machine's latest.
    Latest,
    /// [`Rules::last`].
    Last,
    /// [`Rules::hourly`].
    Hourly,
    /// [`Rules::daily`].
    Daily,
    /// [`Rules::weekly`].
    Weekly,
    /// [`Rules::monthly`].
    Monthly,
    /// [`Rules::yearly`].
    Yearly,
    /// [`Rules::within`].
    Within,
    /// [`Rules::tags`].
    Tag,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRule => "no rule",
            Self::Pinned => "pinned",
            Self::OnItsWay => "on its way",
            Self::Future => "from the future",
            Self::Latest => "latest",
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Within => "within",
            Self::Tag => "tag",
        })
    }
}

/// What the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// When the snapshot was taken.
    pub time: Timestamp,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Whether the machine moved into it.
    pub is_migration: bool,
}

impl From<&Snapshot> for Candidate {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            time: snapshot.time,
            tags: snapshot.tags.clone(),
            is_pinned: snapshot.is_pinned,
            is_migration: snapshot.migration.is_some(),
        }
    }
}

/// By so much the clocks of computers may differ before a snapshot is one from the future.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// Why each of a machine's snapshots is kept, which come latest first. No reason: it is not.
#[must_use]
pub fn reasons(
    candidates: &[Candidate],
    rules: &Rules,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Vec<Reason>> {
    let present = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
    let future = candidates.partition_point(|candidate| candidate.time > present);
    let (future, present) = candidates.split_at_checked(future).unwrap_or_default();
    let mut all: Vec<Vec<Reason>> = future.iter().map(reasons_of_future).collect();
    all.extend(reasons_of_present(present, rules, zone));
    all
}

fn reasons_of_future(candidate: &Candidate) -> Vec<Reason> {
    let pinned = candidate.is_pinned.then_some(Reason::Pinned);
    pinned.into_iter().chain([Reason::Future]).collect()
}

fn reasons_of_present(
    candidates: &[Candidate],
    rules: &Rules,
    zone: &TimeZone,
) -> Vec<Vec<Reason>> {
    let Some(latest) = candidates.first() else {
        return Vec::new();
    };
    let latest = latest.time.to_zoned(zone.clone());
    let since = rules.within.and_then(|within| within.before(&latest));
    let mut buckets = buckets(rules);
    let oldest = candidates.len().saturating_sub(1);
    let mut all = Vec::with_capacity(candidates.len());
    for (number, candidate) in candidates.iter().enumerate() {
        let time = candidate.time.to_zoned(zone.clone());
        let mut reasons = always(candidate, number == 0, rules);
        if since.as_ref().is_some_and(|since| time > *since) {
            reasons.push(Reason::Within);
        }
        if rules.tags.iter().any(|wanted| has_tags(candidate, wanted)) {
            reasons.push(Reason::Tag);
        }
        for bucket in &mut buckets {
            reasons.extend(bucket.keeps(&time, number, number == oldest));
        }
        all.push(reasons);
    }
    all
}

fn always(candidate: &Candidate, is_latest: bool, rules: &Rules) -> Vec<Reason> {
    let given = [
        (rules.is_empty(), Reason::NoRule),
        (candidate.is_pinned, Reason::Pinned),
        (is_latest && candidate.is_migration, Reason::OnItsWay),
        (is_latest, Reason::Latest),
    ];
    let given = given.into_iter().filter(|(applies, _)| *applies);
    given.map(|(_, reason)| reason).collect()
}

fn has_tags(candidate: &Candidate, wanted: &str) -> bool {
    let has = |tag: &str| candidate.tags.iter().any(|own| own == tag);
    wanted.split(',').all(has)
}

/// A rule that keeps one snapshot of each of some periods.
struct Bucket {
    reason: Reason,
    /// Tells periods apart.
    period: fn(&Zoned, usize) -> i64,
    left: Option<Count>,
    last: Option<i64>,
}

fn buckets(rules: &Rules) -> [Bucket; 6] {
    let bucket = |reason, left, period| Bucket {
        reason,
        period,
        left,
        last: None,
    };
    [
        bucket(Reason::Last, rules.last, |_, number| {
            i64::try_from(number).unwrap_or(i64::MAX)
        }),
        bucket(Reason::Hourly, rules.hourly, |time, _| {
            joined([
                time.year().into(),
                time.month().into(),
                time.day().into(),
                time.hour().into(),
            ])
        }),
        bucket(Reason::Daily, rules.daily, |time, _| {
            joined([time.year().into(), time.month().into(), time.day().into()])
        }),
        bucket(Reason::Weekly, rules.weekly, |time, _| {
            let week = time.date().iso_week_date();
            joined([week.year().into(), week.week().into()])
        }),
        bucket(Reason::Monthly, rules.monthly, |time, _| {
            joined([time.year().into(), time.month().into()])
        }),
        bucket(Reason::Yearly, rules.yearly, |time, _| time.year().into()),
    ]
}

fn joined<const N: usize>(parts: [i64; N]) -> i64 {
    let join = |all: i64, part: i64| all.saturating_mul(100).saturating_add(part);
    parts.into_iter().fold(0, join)
}

impl Bucket {
    fn keeps(&mut self, time: &Zoned, number: usize, is_oldest: bool) -> Option<Reason> {
        let left = match self.left? {
            Count::Of(0) => return None,
            Count::Of(left) => Count::Of(left.saturating_sub(1)),
            Count::All => Count::All,
        };
        let period = (self.period)(time, number);
        if self.last == Some(period) && !is_oldest {
            return None;
        }
        self.last = Some(period);
        self.left = Some(left);
        Some(self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-23T00:00:00Z";

    fn candidates(times: &[&str]) -> Vec<Candidate> {
        let candidate = |time: &&str| Candidate {
            time: time.parse().unwrap(),
            tags: Vec::new(),
            is_pinned: false,
            is_migration: false,
        };
        times.iter().map(candidate).collect()
    }

    fn kept(candidates: &[Candidate], rules: &Rules, zone: &TimeZone) -> Vec<bool> {
        let reasons = reasons(candidates, rules, zone, NOW.parse().unwrap());
        reasons.iter().map(|reasons| !reasons.is_empty()).collect()
    }

    #[test]
    fn a_day_is_a_day_where_the_policy_says() {
        let times = candidates(&[
            "2026-11-21T12:00:00Z",
            "2026-11-20T23:30:00Z",
            "2026-11-19T12:00:00Z",
        ]);
        let rules = Rules {
            daily: Some(Count::Of(2)),
            ..Rules::default()
        };
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(kept(&times, &rules, &TimeZone::UTC), [true, true, false]);
        assert_eq!(kept(&times, &rules, &berlin), [true, false, true]);
    }

    #[test]
    fn the_oldest_is_kept_until_there_are_enough() {
        let mut times = candidates(&[
            "2026-11-21T12:00:00Z",
            "2026-11-20T12:00:00Z",
            "2026-11-20T08:00:00Z",
            "2026-11-20T04:00:00Z",
        ]);
        let rules = Rules {
            daily: Some(Count::Of(3)),
            ..Rules::default()
        };
        assert_eq!(
            kept(&times, &rules, &TimeZone::UTC),
            [true, true, false, true]
        );
        times.insert(0, candidates(&["2026-11-22T12:00:00Z"]).remove(0));
        assert_eq!(
            kept(&times, &rules, &TimeZone::UTC),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn pins_and_the_latest_are_kept_whatever_the_rules_say() {
        let mut times = candidates(&[
            "2026-11-21T12:00:00Z",
            "2026-11-20T12:00:00Z",
            "2026-11-19T12:00:00Z",
        ]);
        times[2].is_pinned = true;
        let rules = Rules {
            tags: vec!["a,b".to_owned()],
            ..Rules::default()
        };
        assert_eq!(kept(&times, &rules, &TimeZone::UTC), [true, false, true]);
        times[1].tags = vec!["b".to_owned(), "a".to_owned()];
        assert_eq!(kept(&times, &rules, &TimeZone::UTC), [true, true, true]);
        times[1].tags.pop();
        assert_eq!(kept(&times, &rules, &TimeZone::UTC), [true, false, true]);
        assert_eq!(kept(&times, &Rules::default(), &TimeZone::UTC), [true; 3]);
    }

    /// A host whose clock was years ahead, or whose key was stolen.
    #[test]
    fn snapshots_from_the_future_are_kept_and_push_no_others_out() {
        let real = candidates(&[
            "2026-11-22T12:00:00Z",
            "2026-11-20T12:00:00Z",
            "2026-11-02T12:00:00Z",
        ]);
        let rules = [
            Rules {
                within: Some("1m".parse().unwrap()),
                ..Rules::default()
            },
            Rules {
                last: Some(Count::Of(3)),
                ..Rules::default()
            },
            Rules {
                yearly: Some(Count::Of(1)),
                last: Some(Count::Of(2)),
                ..Rules::default()
            },
        ];
        for rules in rules {
            let before = kept(&real, &rules, &TimeZone::UTC);
            let mut all = candidates(&[
                "2099-01-02T00:00:00Z",
                "2028-01-01T00:00:00Z",
                "2026-11-23T02:00:00Z",
            ]);
            all.extend(real.iter().cloned());
            let after = kept(&all, &rules, &TimeZone::UTC);
            assert_eq!(after, [&[true; 3], before.as_slice()].concat(), "{rules}");
        }
    }

    #[test]
    fn what_is_young_is_kept_within_however_many_are_added() {
        let rules = Rules {
            within: Some("30d".parse().unwrap()),
            ..Rules::default()
        };
        let real = candidates(&["2026-11-20T12:00:00Z", "2026-10-25T12:00:00Z"]);
        let now: Timestamp = NOW.parse().unwrap();
        // At every minute, an hour into the future.
        let fakes = (-1440..=60).rev().map(|minutes| Candidate {
            time: now + SignedDuration::from_mins(minutes),
            ..real[0].clone()
        });
        let all: Vec<Candidate> = fakes.chain(real.iter().cloned()).collect();
        assert!(kept(&all, &rules, &TimeZone::UTC).iter().all(|kept| *kept));
    }
}
