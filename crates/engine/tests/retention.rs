//! The rules of retention mean what stock restic means by them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::BTreeSet;
use std::process::Command;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use vrs_engine::policy::Policy;
use vrs_engine::retention::{Candidate, Count, Rules, Within, reasons};
use vrs_progress::NoProgress;
use vrs_repository::store::SnapshotLabel;
use vrs_repository::{Location, OpenOptions, Password, ResticRepository, SnapshotStore};
use vrs_testkit::{REPOSITORY_PASSWORD, make_repository};

/// Snapshots at these times, tags among them.
fn repository(folder: &std::path::Path, snapshots: &[Candidate]) -> ResticRepository {
    make_repository(folder);
    let location = Location::parse(folder.to_str().unwrap()).unwrap();
    let password = Password::new(REPOSITORY_PASSWORD.to_owned());
    let store = ResticRepository::open(&location, &password, &OpenOptions::default()).unwrap();
    for snapshot in snapshots {
        let ingest = store.ingest(&NoProgress).unwrap();
        ingest
            .commit(&SnapshotLabel {
                time: snapshot.time,
                hostname: "host".to_owned(),
                tags: snapshot.tags.clone(),
                description: None,
            })
            .unwrap();
    }
    store
}

/// The times of what restic would keep.
fn kept_by_restic(folder: &std::path::Path, rules: &Rules) -> BTreeSet<Timestamp> {
    let arguments = rules.to_string();
    let output = Command::new("restic")
        .args([
            "--no-cache",
            "forget",
            "--dry-run",
            "--json",
            "--group-by",
            "",
            "-r",
        ])
        .arg(folder)
        .args(arguments.split(' '))
        .env("RESTIC_PASSWORD", REPOSITORY_PASSWORD)
        .env("TZ", "UTC")
        .output()
        .expect("these tests need stock restic");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text
        .lines()
        .find(|line| line.starts_with('['))
        .expect("JSON");
    let groups: serde_json::Value = serde_json::from_str(line).unwrap();
    let keep = groups[0]["keep"].as_array().unwrap();
    keep.iter()
        .map(|snapshot| snapshot["time"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn count() -> impl Strategy<Value = Option<Count>> {
    prop_oneof![
        3 => Just(None),
        // Of restic 0.14, which has no word for "all".
        3 => (1_u32..8).prop_map(|count| Some(Count::Of(count))),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let counts = (count(), count(), count(), count(), count(), count());
    let within = proptest::option::of("[0-2]y[0-9]m[0-9]d[0-9]h");
    let tags = prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("a,b")], 0..2);
    (counts, within, tags).prop_map(
        |((last, hourly, daily, weekly, monthly, yearly), within, tags)| Rules {
            last: last.or(Some(Count::Of(1))),
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: within.map(|text| text.parse().unwrap()),
            tags: tags.into_iter().map(str::to_owned).collect(),
        },
    )
}

/// Latest first. Many are around New Year, where weeks and years do not end together.
fn snapshots() -> impl Strategy<Value = Vec<Candidate>> {
    let new_year: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let near = -20 * 24 * 60_i64..20 * 24 * 60;
    let far = -1000 * 24 * 60_i64..300 * 24 * 60;
    let minutes = prop_oneof![near, far];
    let tags = prop_oneof![Just(vec![]), Just(vec!["a"]), Just(vec!["b", "a"])];
    prop::collection::btree_map(minutes, tags, 1..40).prop_map(move |all| {
        let candidate = |(minutes, tags): (i64, Vec<&str>)| Candidate {
            time: new_year + SignedDuration::from_mins(minutes),
            tags: tags.into_iter().map(str::to_owned).collect(),
            is_pinned: false,
            is_migration: false,
        };
        all.into_iter().rev().map(candidate).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn restic_keeps_the_same(snapshots in snapshots(), all_rules in prop::collection::vec(rules(), 8)) {
        let folder = tempfile::tempdir().unwrap();
        let _store = repository(&folder.path().join("repository"), &snapshots);
        for rules in all_rules {
            let reasons = reasons(&snapshots, &rules, &TimeZone::UTC, Timestamp::MAX);
            let kept = snapshots.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty());
            let kept: BTreeSet<Timestamp> = kept.map(|(snapshot, _)| snapshot.time).collect();
            let mut restic = kept_by_restic(&folder.path().join("repository"), &rules);
            // Where there are too few periods, newer versions of restic keep the oldest, older do not.
            let oldest = snapshots.last().unwrap().time;
            if kept.contains(&oldest) {
                restic.insert(oldest);
            }
            prop_assert_eq!(kept, restic, "{}", rules);
        }
    }
}

/// Rules as a stored policy may have them, sensible or not.
fn any_policy() -> impl Strategy<Value = String> {
    let count = || {
        prop_oneof![
            Just("null".to_owned()),
            any::<i64>().prop_map(|count| count.to_string())
        ]
    };
    let within = prop_oneof![Just("1m2d".to_owned()), "[0-9ymdh]{0,12}"];
    let zone = prop_oneof![Just("Europe/Berlin"), Just("Nowhere"), Just("")];
    (count(), count(), within, zone).prop_map(|(last, weekly, within, zone)| {
        format!(
            r#"{{"format":"vrs-policy","version":1,"time_zone":"{zone}","repository":{{"last":{last},"weekly":{weekly},"within":"{within}","tags":["a,b"]}},"machines":{{}}}}"#
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The latest and pinned ones are kept, and whatever comes from the future pushes none out.
    #[test]
    fn no_policy_does_what_no_rule_can_want(text in any_policy(), mut snapshots in snapshots(), pinned in any::<prop::sample::Index>()) {
        let Ok(policy) = serde_json::from_str::<Policy>(&text) else {
            return Ok(());
        };
        let pinned = pinned.index(snapshots.len());
        snapshots[pinned].is_pinned = true;
        let zone = policy.zone().unwrap_or(TimeZone::UTC);
        let now = snapshots[0].time;
        let judged = reasons(&snapshots, &policy.repository, &zone, now);
        prop_assert_eq!(judged.len(), snapshots.len());
        prop_assert!(!judged[0].is_empty() && !judged[pinned].is_empty());
        let mut more = snapshots.clone();
        more.insert(0, Candidate {
            time: Timestamp::MAX - SignedDuration::from_secs(1),
            tags: Vec::new(),
            is_pinned: false,
            is_migration: false,
        });
        prop_assert_eq!(&reasons(&more, &policy.repository, &zone, now)[1..], &judged[..]);
    }

    #[test]
    fn what_is_shown_of_a_time_is_understood(text in "[0-9ymdh]{0,12}") {
        if let Ok(within) = text.parse::<Within>() {
            prop_assert_eq!(within.to_string().parse::<Within>().unwrap(), within);
        }
    }
}
