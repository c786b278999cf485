//! A snapshot as people see it: a machine's, with a time and perhaps a name.
//!
//! What a list needs is kept in the snapshot's tags, so that no manifest has to be read for it:
//! `vrs`, `vrs-machine=<id>`, and percent-encoded `vrs-name=<machine name>` and
//! `vrs-snapshot=<snapshot name>`, `vrs-set=<id>` where several machines were taken together, and
//! `vrs-migrated=<id>` where the machine moved into the snapshot, and `vrs-pinned`. Everything else of a repository is
//! left alone: a snapshot without these tags is not ours and never listed, deleted or restored.

use vrs_repository::id::SnapshotId;
use vrs_repository::store::SnapshotRecord;
use vrs_virtualbox::MachineId;

use crate::error::{Error, Result};

const MARK: &str = "vrs";
pub(crate) const MACHINE: &str = "vrs-machine=";
const MACHINE_NAME: &str = "vrs-name=";
pub(crate) const SNAPSHOT_NAME: &str = "vrs-snapshot=";
const SET: &str = "vrs-set=";
const MIGRATION: &str = "vrs-migrated=";
/// Of a snapshot that no policy removes.
pub(crate) const PINNED: &str = "vrs-pinned";
/// Of the snapshot that holds the retention policy and no machine.
pub(crate) const POLICY: &str = "vrs-policy";

/// Of a snapshot that tells which host took a machine over: the migration, and the claim's own id.
pub(crate) const ACCEPTED: &str = "vrs-accepted=";
pub(crate) const CLAIM: &str = "vrs-claim=";

/// One stored point in time of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The machine's id.
    pub machine: MachineId,
    /// The machine's name at that time.
    pub machine_name: String,
    /// The name given at take.
    pub name: Option<String>,
    /// The snapshot set, if several machines were taken together.
    pub set: Option<String>,
    /// Id of the migration, if the machine moved into the snapshot.
    pub migration: Option<String>,
    /// Whether it stays, whatever a retention policy says.
    pub is_pinned: bool,
    /// The user's description.
    pub description: Option<String>,
    /// The user's tags.
    pub tags: Vec<String>,
    /// When it was taken.
    pub time: jiff::Timestamp,
    /// The host it was taken on.
    pub hostname: String,
    /// Sum of the sizes of its files, where recorded.
    pub size_bytes: Option<u64>,
    /// What it added to the repository, where recorded.
    pub added_bytes: Option<u64>,
}

impl Snapshot {
    /// Recognises a snapshot that vrs took.
    #[must_use]
    pub fn of(record: SnapshotRecord) -> Option<Self> {
        let value = |prefix: &str| record.tags.iter().find_map(|tag| tag.strip_prefix(prefix));
        let machine = value(MACHINE)?.parse().ok()?;
        let machine_name = value(MACHINE_NAME).map(decode).unwrap_or_default();
        let name = value(SNAPSHOT_NAME).map(decode);
        let set = value(SET).map(ToOwned::to_owned);
        let migration = value(MIGRATION).map(ToOwned::to_owned);
        if !record.tags.iter().any(|tag| tag == MARK) {
            return None;
        }
        Some(Self {
            machine,
            machine_name,
            name,
            set,
            migration,
            is_pinned: record.tags.iter().any(|tag| tag == PINNED),
            tags: record
                .tags
                .iter()
                .filter(|tag| !is_reserved(tag))
                .cloned()
                .collect(),
            id: record.id,
            description: record.description,
            time: record.time,
            hostname: record.hostname,
            size_bytes: record.size_bytes,
            added_bytes: record.added_bytes,
        })
    }
}

/// The tags of a new snapshot.
pub(crate) fn tags_for(
    machine: MachineId,
    machine_name: &str,
    name: Option<&str>,
    set: Option<&str>,
    migration: Option<&str>,
    user_tags: &[String],
) -> Vec<String> {
    let mut tags = vec![
        MARK.to_owned(),
        format!("{MACHINE}{machine}"),
        format!("{MACHINE_NAME}{}", encode(machine_name)),
    ];
    tags.extend(name.map(name_tag));
    tags.extend(set.map(|set| format!("{SET}{set}")));
    tags.extend(migration.map(|id| format!("{MIGRATION}{id}")));
    tags.extend(user_tags.iter().cloned());
    tags
}

/// The tag with the name of a snapshot.
pub(crate) fn name_tag(name: &str) -> String {
    format!("{SNAPSHOT_NAME}{}", encode(name))
}

/// Refuses what cannot be a user's tag.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    let is_bad = tag.is_empty()
        || is_reserved(tag)
        || tag.contains(',')
        || tag.chars().any(char::is_control);
    if !is_bad {
        return Ok(());
    }
    Err(Error::Usage {
        message: format!(
            "'{tag}' cannot be a tag: tags are not empty, hold no comma and do not begin with 'vrs'"
        ),
    })
}

/// Whether a tag means something to vrs, so that users may not choose it.
pub(crate) fn is_reserved(tag: &str) -> bool {
    tag == MARK || tag.starts_with("vrs-")
}

// Tags are separated by commas on restic's command line and shown on one line everywhere.
fn encode(text: &str) -> String {
    text.chars().fold(String::new(), |mut encoded, character| {
        if character.is_control() || matches!(character, ',' | '%') {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        } else {
            encoded.push(character);
        }
        encoded
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.split_at_checked(2))
            .flatten()
            .and_then(|(digits, after)| {
                let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                Some((byte, after))
            });
        let (byte, after) = escaped.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_survives_in_tags(machine_name in ".*", name in proptest::option::of(".*")) {
            let machine = MachineId::from(uuid::Uuid::from_u128(7));
            let tags = tags_for(machine, &machine_name, name.as_deref(), None, Some("m1"), &["nightly".to_owned()]);
            prop_assert!(tags.iter().all(|tag| !tag.contains(',') && !tag.contains('\n')));
            let record = SnapshotRecord {
                id: SnapshotId::from_bytes([1; 32]),
                time: jiff::Timestamp::UNIX_EPOCH,
                hostname: "h".to_owned(),
                tags,
                description: None,
                size_bytes: None,
                added_bytes: None,
            };
            let snapshot = Snapshot::of(record).unwrap();
            prop_assert_eq!(snapshot.machine, machine);
            prop_assert_eq!(snapshot.machine_name, machine_name);
            prop_assert_eq!(snapshot.name, name);
            prop_assert_eq!(snapshot.migration.as_deref(), Some("m1"));
            prop_assert_eq!(snapshot.tags, vec!["nightly".to_owned()]);
        }
    }

    #[test]
    fn snapshots_of_other_tools_are_left_alone() {
        let record = SnapshotRecord {
            id: SnapshotId::from_bytes([1; 32]),
            time: jiff::Timestamp::UNIX_EPOCH,
            hostname: "h".to_owned(),
            tags: vec!["home".to_owned()],
            description: None,
            size_bytes: None,
            added_bytes: None,
        };
        assert_eq!(Snapshot::of(record), None);
    }
}
