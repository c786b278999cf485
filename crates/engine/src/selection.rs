//! How a snapshot is named: `MACHINE@latest`, `MACHINE@2`, `MACHINE@"2026-11-20 14:00"`,
//! `MACHINE@name` or a prefix of its id.
//!
//! After the last `@` the meanings are tried in this order: `latest`, a number of steps back from
//! the latest (`@0` is the latest), the name given at take, a date or time (the last snapshot at or
//! before it; a day alone means its end), a prefix of the id of at least four digits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::snapshot::Snapshot;

/// Finds the snapshot that `wanted` names among `snapshots`, which are sorted oldest first.
/// Times without a zone are read in `time_zone`.
pub fn select<'a>(
    snapshots: &'a [Snapshot],
    wanted: &str,
    time_zone: &TimeZone,
) -> Result<&'a Snapshot> {
    if let Some(found) = by_id(snapshots, wanted, wanted)? {
        return Ok(found);
    }
    // A machine's name may hold an `@` itself: the longest name that is known wins.
    let splits = wanted
        .rmatch_indices('@')
        .filter_map(|(at, _)| Some((wanted.get(..at)?, wanted.get(at.checked_add(1)?..)?)));
    for (machine, point) in splits {
        let of_machine = of_machine(snapshots, machine)?;
        if !of_machine.is_empty() {
            return at_point(&of_machine, point, wanted, time_zone);
        }
    }
    let whole = of_machine(snapshots, wanted)?;
    if !whole.is_empty() {
        return Err(not_found(
            wanted,
            format!("say which one of the machine, for example '{wanted}@latest'"),
        ));
    }
    Err(not_found(
        wanted,
        "no machine of that name or id has one, and no snapshot's id begins so".to_owned(),
    ))
}

/// The snapshots of one machine, oldest first; none if it is not known. A machine is named by its id,
/// by the name it has in its latest snapshot, or by one it had earlier.
///
/// # Errors
/// When several machines answer to the name.
pub fn of_machine<'a>(snapshots: &'a [Snapshot], machine: &str) -> Result<Vec<&'a Snapshot>> {
    let id = match machine.parse() {
        Ok(id) => Some(id),
        Err(_) => id_of_name(snapshots, machine)?,
    };
    let of_machine = |snapshot: &&Snapshot| Some(snapshot.machine) == id;
    Ok(snapshots.iter().filter(of_machine).collect())
}

fn id_of_name(snapshots: &[Snapshot], name: &str) -> Result<Option<MachineId>> {
    let latest: BTreeMap<MachineId, &str> = snapshots
        .iter()
        .map(|snapshot| (snapshot.machine, snapshot.machine_name.as_str()))
        .collect();
    let has_now = latest.iter().filter(|(_, latest)| **latest == name);
    let mut ids: BTreeSet<MachineId> = has_now.map(|(id, _)| *id).collect();
    if ids.is_empty() {
        let had = snapshots
            .iter()
            .filter(|snapshot| snapshot.machine_name == name);
        ids = had.map(|snapshot| snapshot.machine).collect();
    }
    if ids.len() > 1 {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let reason = format!(
            "several machines are called so; use the id of one: {}",
            ids.join(", ")
        );
        return Err(not_found(name, reason));
    }
    Ok(ids.into_iter().next())
}

/// Refuses names that could not be told from another way of naming a snapshot.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |reason| {
        Err(Error::BadSnapshotName {
            name: name.to_owned(),
            reason,
        })
    };
    if name.is_empty() || name.trim() != name {
        bad("it is empty or begins or ends with a blank")
    } else if name == "latest" {
        bad("'latest' always means the last one")
    } else if name.chars().all(|character| character.is_ascii_digit()) {
        bad("a number means steps back from the latest")
    } else if name.contains('@') || name.chars().any(char::is_control) {
        bad("it holds '@' or a control character")
    } else {
        Ok(())
    }
}

fn at_point<'a>(
    snapshots: &[&'a Snapshot],
    point: &str,
    wanted: &str,
    time_zone: &TimeZone,
) -> Result<&'a Snapshot> {
    if point == "latest" {
        return steps_back(snapshots, 0, wanted);
    }
    if let Ok(steps) = point.parse() {
        return steps_back(snapshots, steps, wanted);
    }
    if let Some(named) = snapshots
        .iter()
        .rev()
        .find(|snapshot| snapshot.name.as_deref() == Some(point))
    {
        return Ok(named);
    }
    if let Some(time) = end_of(point, time_zone) {
        return snapshots
            .iter()
            .rev()
            .find(|snapshot| snapshot.time <= time)
            .copied()
            .ok_or_else(|| not_found(wanted, "the machine has none that old".to_owned()));
    }
    let of_machine: Vec<Snapshot> = snapshots
        .iter()
        .map(|snapshot| (*snapshot).clone())
        .collect();
    let id = by_id(&of_machine, point, wanted)?.map(|found| found.id);
    snapshots
        .iter()
        .find(|snapshot| Some(snapshot.id) == id)
        .copied()
        .ok_or_else(|| {
            not_found(
                wanted,
                format!("the machine has none that is called '{point}'"),
            )
        })
}

fn steps_back<'a>(snapshots: &[&'a Snapshot], steps: usize, wanted: &str) -> Result<&'a Snapshot> {
    snapshots.iter().rev().nth(steps).copied().ok_or_else(|| {
        not_found(
            wanted,
            format!("the machine has {} in all", snapshots.len()),
        )
    })
}

fn by_id<'a>(
    snapshots: &'a [Snapshot],
    prefix: &str,
    wanted: &str,
) -> Result<Option<&'a Snapshot>> {
    const SHORTEST: usize = 4;
    if prefix.len() < SHORTEST || !prefix.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut matching = snapshots
        .iter()
        .filter(|snapshot| snapshot.id.to_string().starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(not_found(
            wanted,
            "several ids begin so; give more digits".to_owned(),
        )),
        (found, _) => Ok(found),
    }
}

/// The last moment that a date or time, possibly without seconds or hours, stands for.
fn end_of(point: &str, time_zone: &TimeZone) -> Option<jiff::Timestamp> {
    if let Ok(time) = point.parse() {
        return Some(time);
    }
    let end = if let Some(minutes) = point.get(..16).filter(|_| point.len() == 16) {
        format!("{minutes}:59.999999999").parse().ok()?
    } else if point.len() == 10 {
        point
            .parse::<jiff::civil::Date>()
            .ok()?
            .at(23, 59, 59, 999_999_999)
    } else {
        point.parse::<jiff::civil::DateTime>().ok()?
    };
    Some(end.to_zoned(time_zone.clone()).ok()?.timestamp())
}

fn not_found(wanted: &str, reason: String) -> Error {
    Error::SnapshotNotFound {
        wanted: wanted.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use vrs_repository::id::SnapshotId;

    fn snapshot(
        first: u8,
        machine: u128,
        machine_name: &str,
        name: Option<&str>,
        time: &str,
    ) -> Snapshot {
        Snapshot {
            id: SnapshotId::from_bytes([first; 32]),
            machine: MachineId::from(uuid::Uuid::from_u128(machine)),
            machine_name: machine_name.to_owned(),
            set: None,
            migration: None,
            is_pinned: false,
            name: name.map(str::to_owned),
            description: None,
            tags: Vec::new(),
            time: time.parse().unwrap(),
            hostname: "h".to_owned(),
            size_bytes: None,
            added_bytes: None,
        }
    }

    fn sample() -> Vec<Snapshot> {
        vec![
            snapshot(0xa1, 1, "web", Some("clean"), "2026-11-18T10:00:00Z"),
            snapshot(0xa2, 1, "web", None, "2026-11-19T10:00:30Z"),
            snapshot(0xb1, 2, "db@home", None, "2026-11-19T12:00:00Z"),
            snapshot(0xa3, 1, "web server", Some("clean"), "2026-11-20T14:00:20Z"),
        ]
    }

    #[rstest]
    #[case("web@latest", 0xa3)]
    #[case("web server@latest", 0xa3)]
    #[case("00000000-0000-0000-0000-000000000001@latest", 0xa3)]
    #[case("web@0", 0xa3)]
    #[case("web@2", 0xa1)]
    #[case("web@clean", 0xa3)]
    #[case("web@2026-11-19", 0xa2)]
    #[case("web@2026-11-20 14:00", 0xa3)]
    #[case("web@2026-11-20 13:59", 0xa2)]
    #[case("web@2026-11-19T10:00:30Z", 0xa2)]
    #[case("web@a1a1", 0xa1)]
    #[case("db@home@latest", 0xb1)]
    #[case("b1b1b1", 0xb1)]
    fn finds(#[case] wanted: &str, #[case] first: u8) {
        let snapshots = sample();
        let found = select(&snapshots, wanted, &TimeZone::UTC).unwrap();
        assert_eq!(found.id, SnapshotId::from_bytes([first; 32]));
    }

    #[test]
    fn a_name_that_two_machines_have_is_refused() {
        let mut snapshots = sample();
        snapshots.push(snapshot(
            0xc1,
            3,
            "web server",
            None,
            "2026-11-21T00:00:00Z",
        ));
        let error = select(&snapshots, "web server@latest", &TimeZone::UTC).unwrap_err();
        insta::assert_snapshot!(error, @"no snapshot 'web server': several machines are called so; use the id of one: 00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000003; `vrs list` shows what there is");
        let earlier = select(&snapshots, "web@latest", &TimeZone::UTC).unwrap();
        assert_eq!(earlier.id, SnapshotId::from_bytes([0xa3; 32]));
    }

    #[rstest]
    #[case("web@3", "the machine has 3 in all")]
    #[case("web@2026-11-17", "the machine has none that old")]
    #[case("web@dirty", "the machine has none that is called 'dirty'")]
    #[case("web", "say which one of the machine, for example 'web@latest'")]
    #[case(
        "mail@latest",
        "no machine of that name or id has one, and no snapshot's id begins so"
    )]
    fn says_why_not(#[case] wanted: &str, #[case] reason: &str) {
        let error = select(&sample(), wanted, &TimeZone::UTC).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no snapshot '{wanted}': {reason}; `vrs list` shows what there is")
        );
    }

    #[rstest]
    #[case("latest")]
    #[case("12")]
    #[case("")]
    #[case(" x")]
    #[case("a@b")]
    #[case("a\nb")]
    fn refuses_names_that_mean_something_else(#[case] name: &str) {
        assert!(check_name(name).is_err());
    }

    #[test]
    fn takes_ordinary_names() {
        assert!(check_name("before the upgrade, 2nd try").is_ok());
    }
}
