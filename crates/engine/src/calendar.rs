//! What a retention policy will leave in the coming year, if snapshots are taken as they are now.
//!
//! The present rhythm is the median of the last distances between snapshots, at least an hour. The
//! policy is applied after each snapshot of the future, as a prune every day or oftener would.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use vrs_virtualbox::MachineId;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::policy::Policy;
use crate::prune::by_machine;
use crate::retention::{Candidate, Rules, reasons};
use crate::snapshot::Snapshot;

/// So many of the last distances make the rhythm.
const DISTANCES: usize = 10;
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
const MONTHS: i64 = 12;

/// One machine's year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineYear {
    /// The machine.
    pub machine: MachineId,
    /// Its name in the latest snapshot.
    pub machine_name: String,
    /// Time between snapshots. None when there are too few to tell: nothing will change then.
    pub rhythm: Option<SignedDuration>,
    /// What there is now, then what there will be at the end of each month.
    pub months: Vec<MonthEnd>,
}

/// What there will be at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthEnd {
    /// The time.
    pub at: Timestamp,
    /// Times of the snapshots that are kept then, latest first.
    pub kept: Vec<Timestamp>,
}

/// The coming year of each machine.
pub fn of(catalog: &Catalog, policy: &Policy, now: Timestamp) -> Result<Vec<MachineYear>> {
    let zone = policy.zone()?;
    let machines = by_machine(&catalog.snapshots);
    let year = |(machine, snapshots): (MachineId, Vec<&Snapshot>)| MachineYear {
        machine,
        machine_name: snapshots
            .first()
            .map(|latest| latest.machine_name.clone())
            .unwrap_or_default(),
        rhythm: rhythm(&snapshots),
        months: months(&snapshots, policy.rules(machine), &zone, now),
    };
    Ok(machines.into_iter().map(year).collect())
}

fn rhythm(snapshots: &[&Snapshot]) -> Option<SignedDuration> {
    let pairs = snapshots.windows(2).take(DISTANCES);
    let mut distances: Vec<SignedDuration> = pairs
        .filter_map(|pair| Some(pair.first()?.time.duration_since(pair.last()?.time)))
        .collect();
    distances.sort_unstable();
    let median = distances.get(distances.len() / 2).copied()?;
    Some(median.max(SHORTEST))
}

fn months(
    snapshots: &[&Snapshot],
    rules: &Rules,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<MonthEnd> {
    // Latest last, so that new ones can be added.
    let present = snapshots.iter().rev();
    let mut there: Vec<Candidate> = present.map(|snapshot| Candidate::from(*snapshot)).collect();
    let next = snapshots
        .first()
        .zip(rhythm(snapshots))
        .map(|(latest, rhythm)| {
            // What was missed is not made up for.
            (latest.time.max(now), rhythm)
        });
    let mut next = next.and_then(|(from, rhythm)| Some((from.checked_add(rhythm).ok()?, rhythm)));
    let start = now.to_zoned(zone.clone());
    let mut months = Vec::new();
    for month in 0..=MONTHS {
        let Ok(end) = start.checked_add(month.months()) else {
            break;
        };
        while let Some((time, rhythm)) = next.filter(|(time, _)| *time <= end.timestamp()) {
            there.push(Candidate {
                time,
                tags: Vec::new(),
                is_pinned: false,
                is_migration: false,
            });
            there = kept(there, rules, zone, time);
            next = time.checked_add(rhythm).ok().map(|time| (time, rhythm));
        }
        there = kept(there, rules, zone, end.timestamp());
        months.push(MonthEnd {
            at: end.timestamp(),
            kept: there.iter().rev().map(|candidate| candidate.time).collect(),
        });
    }
    months
}

fn kept(
    mut there: Vec<Candidate>,
    rules: &Rules,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Candidate> {
    there.reverse();
    let reasons = reasons(&there, rules, zone, now);
    let mut reasons = reasons.iter();
    there.retain(|_| reasons.next().is_some_and(|reasons| !reasons.is_empty()));
    there.reverse();
    there
}
