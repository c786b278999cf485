//! The retention policy that is stored with a repository, so that whoever prunes applies the same one.
//!
//! It lies in a snapshot of its own with the tag `vrs-policy` and one file, `vrs-policy.json`: the only
//! thing that can be added through every kind of storage, also where nothing can be changed. Stock restic
//! shows it as one more snapshot. The latest one counts. Machines without rules of their own
//! follow those of the repository. Days begin in the time zone where the policy was set, wherever it
//! is applied.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vrs_progress::Progress;
use vrs_repository::ErrorKind;
use vrs_repository::id::SnapshotId;
use vrs_repository::store::{SnapshotLabel, SnapshotStore, TreePath, read_to_vec};
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};
use crate::manifest::tree_path;
use crate::retention::Rules;
use crate::snapshot::POLICY;

const FILE: &str = "vrs-policy.json";
const FORMAT: &str = "vrs-policy";
const VERSION: u32 = 1;
const MAX_BYTES: u64 = 1 << 20;

/// What is kept of which machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    format: String,
    version: u32,
    /// IANA name of the time zone in which days, weeks and so on begin.
    pub time_zone: String,
    /// For machines without rules of their own.
    #[serde(default)]
    pub repository: Rules,
    /// For single machines.
    #[serde(default)]
    pub machines: BTreeMap<MachineId, Rules>,
}

impl Policy {
    /// One that keeps everything.
    #[must_use]
    pub fn new(zone: &TimeZone) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
            repository: Rules::default(),
            machines: BTreeMap::new(),
        }
    }

    /// The rules of a machine.
    #[must_use]
    pub fn rules(&self, machine: MachineId) -> &Rules {
        self.machines.get(&machine).unwrap_or(&self.repository)
    }

    /// Whether it keeps everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.repository.is_empty() && self.machines.is_empty()
    }

    /// Where days begin.
    pub fn zone(&self) -> Result<TimeZone> {
        TimeZone::get(&self.time_zone).map_err(|error| {
            bad(format!(
                "the time zone '{}' is unknown here: {error}",
                self.time_zone
            ))
        })
    }
}

fn bad(reason: String) -> Error {
    Error::BadPolicy { reason }
}

/// The policy of a repository, if it has one.
pub fn load(store: &dyn SnapshotStore) -> Result<Option<Policy>> {
    match stored(store)?.last() {
        Some((_, id)) => read(store, id).map(Some),
        None => Ok(None),
    }
}

/// Stores a policy in place of the present one; one that keeps everything is not stored.
pub fn save(
    store: &dyn SnapshotStore,
    policy: &Policy,
    hostname: &str,
    progress: &dyn Progress,
) -> Result<()> {
    let former = stored(store)?;
    if !policy.is_empty() {
        let json = serde_json::to_vec_pretty(policy).map_err(|error| bad(error.to_string()))?;
        let mut ingest = store.ingest(progress)?;
        ingest.bytes(&path()?, &json)?;
        ingest.commit(&SnapshotLabel {
            time: time_after(former.last().map(|(time, _)| *time)),
            hostname: hostname.to_owned(),
            tags: vec![POLICY.to_owned()],
            description: Some("the retention policy of vrs, see 'vrs policy'".to_owned()),
        })?;
    }
    let former: Vec<SnapshotId> = former.into_iter().map(|(_, id)| id).collect();
    match store.delete(&former, progress) {
        // They count for nothing beside the new one.
        Err(error) if error.kind() == ErrorKind::Denied && !policy.is_empty() => Ok(()),
        deleted => Ok(deleted?),
    }
}

/// Later than the present policy, whatever the clock says.
fn time_after(former: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    let later = former.and_then(|former| former.checked_add(SignedDuration::from_secs(1)).ok());
    later.map_or(now, |later| now.max(later))
}

/// All policies that are there, the one that counts last.
fn stored(store: &dyn SnapshotStore) -> Result<Vec<(Timestamp, SnapshotId)>> {
    let all = store.snapshots()?.snapshots.into_iter();
    let is_policy = |tags: &[String]| tags.iter().any(|tag| tag == POLICY);
    let policies = all.filter(|record| is_policy(&record.tags));
    let mut found: Vec<_> = policies.map(|record| (record.time, record.id)).collect();
    found.sort_unstable();
    Ok(found)
}

fn path() -> Result<TreePath> {
    tree_path(FILE)
}

fn read(store: &dyn SnapshotStore, id: &SnapshotId) -> Result<Policy> {
    let mut reader = store.open_file(id, &path()?)?;
    if reader.size_bytes() > MAX_BYTES {
        return Err(bad(format!("it has {} bytes", reader.size_bytes())));
    }
    parse(&read_to_vec(reader.as_mut(), MAX_BYTES)?)
}

fn parse(json: &[u8]) -> Result<Policy> {
    let policy: Policy = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    if policy.format == FORMAT && policy.version == VERSION {
        Ok(policy)
    } else {
        Err(bad(format!(
            "its version {} is unknown to this vrs",
            policy.version
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_another_version_is_not_guessed_at() {
        let policy = Policy::new(&TimeZone::UTC);
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(parse(json.as_bytes()).unwrap(), policy);
        let error = parse(json.replace("\"version\":1", "\"version\":2").as_bytes()).unwrap_err();
        insta::assert_snapshot!(error, @"the retention policy of the repository cannot be used: its version 2 is unknown to this vrs; set it again with `vrs policy set`, or use the vrs that wrote it");
    }
}
