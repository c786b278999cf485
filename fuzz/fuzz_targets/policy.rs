//! A stored policy and snapshots at any times: the latest and pinned ones are kept, and whatever comes from the future
//! pushes none out. The first line is the policy, each further one a time, with a `p` before it if it is pinned.

#![no_main]

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use vrs_engine::policy::Policy;
use vrs_engine::retention::{Candidate, Within, reasons};

const NOW: i64 = 1_800_000_000;

fuzz_target!(|text: &str| {
    let (policy, times) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(within) = policy.parse::<Within>() {
        let again: Within = within
            .to_string()
            .parse()
            .expect("what is shown is understood");
        assert_eq!(again, within);
    }
    let Ok(policy) = serde_json::from_str::<Policy>(policy) else {
        return;
    };
    let zone = policy.zone().unwrap_or(TimeZone::UTC);
    let now = Timestamp::from_second(NOW).expect("a time");
    let mut snapshots: Vec<Candidate> = times.lines().filter_map(snapshot).collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.time));
    let rules = [&policy.repository]
        .into_iter()
        .chain(policy.machines.values());
    for rules in rules {
        let judged = reasons(&snapshots, rules, &zone, now);
        assert_eq!(judged.len(), snapshots.len());
        let kept = |number: usize| !judged[number].is_empty();
        assert!(snapshots.is_empty() || kept(0));
        assert!((0..snapshots.len()).all(|number| kept(number) || !snapshots[number].is_pinned));
        let mut more = vec![Candidate {
            time: Timestamp::MAX - SignedDuration::from_secs(1),
            tags: Vec::new(),
            is_pinned: false,
            is_migration: false,
        }];
        more.extend(snapshots.iter().cloned());
        assert_eq!(reasons(&more, rules, &zone, now)[1..], judged);
    }
});

fn snapshot(line: &str) -> Option<Candidate> {
    let pinned = line.strip_prefix('p');
    let seconds: i32 = pinned.unwrap_or(line).parse().ok()?;
    Some(Candidate {
        time: Timestamp::from_second(NOW + i64::from(seconds)).ok()?,
        tags: vec!["a".to_owned()],
        is_pinned: pinned.is_some(),
        is_migration: false,
    })
}
