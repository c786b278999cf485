//! VirtualBox snapshots as `snapshot list --machinereadable` and `showvminfo` list them.
//!
//! Nothing is escaped there: names and descriptions may hold quotes, line ends, and lines that look
//! like others. The order is fixed, though, and the keys count: `SnapshotName-1-2` is the second
//! child of the first child. So each text ends where the one key that may come next follows.
//!
//! Guarantees: ids and tree are as listed, or it is an error. Not guaranteed: that a description
//! which spells out a whole entry with the right key is told from a real one; names and
//! descriptions that matter are in the settings.

use crate::id::VirtualBoxSnapshotId;

/// A VirtualBox snapshot, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVirtualBoxSnapshot {
    /// Its id.
    pub id: VirtualBoxSnapshotId,
    /// Its name, for people.
    pub name: String,
    /// Its description, for people.
    pub description: Option<String>,
    /// The one that it was made from.
    pub parent: Option<VirtualBoxSnapshotId>,
    /// Whether the machine's current state is based on it.
    pub is_current: bool,
}

/// Reads a list, parents first. Other lines end it.
pub fn parse_virtualbox_snapshots(text: &str) -> Result<Vec<ListedVirtualBoxSnapshot>, String> {
    let mut reader = Reader {
        rest: text,
        place: Vec::new(),
        found: Vec::new(),
        ids: Vec::new(),
    };
    if !text.starts_with("SnapshotName=\"") {
        return Ok(Vec::new());
    }
    reader.entry()?;
    while let Some(place) = next_places(&reader.place)
        .into_iter()
        .find(|place| starts(reader.rest, "Name", place))
    {
        reader.ids.truncate(place.len());
        reader.place = place;
        reader.entry()?;
    }
    Ok(reader.found)
}

struct Reader<'a> {
    rest: &'a str,
    /// Numbers of the entry in the tree: empty for the first.
    place: Vec<u32>,
    /// Ids of the entry's ancestors.
    ids: Vec<VirtualBoxSnapshotId>,
    found: Vec<ListedVirtualBoxSnapshot>,
}

impl Reader<'_> {
    fn entry(&mut self) -> Result<(), String> {
        let place = self.place.clone();
        let name = self.value(&key("Name", &place), |rest| starts(rest, "UUID", &place))?;
        let id = self.id(&key("UUID", &place))?;
        let description = if starts(self.rest, "Description", &place) {
            Some(self.value(&key("Description", &place), |rest| ends_entry(rest, &place))?)
        } else {
            None
        };
        let is_current = self.rest.starts_with("CurrentSnapshotName=\"");
        if is_current {
            self.value("CurrentSnapshotName", |rest| {
                rest.starts_with("CurrentSnapshotUUID=\"")
            })?;
            let current = self.id("CurrentSnapshotUUID")?;
            self.value("CurrentSnapshotNode", |_| true)?;
            if current != id {
                return Err(format!(
                    "it calls VirtualBox snapshot {current} the current one behind {id}"
                ));
            }
        }
        let parent = self.ids.last().copied();
        self.ids.push(id);
        self.found.push(ListedVirtualBoxSnapshot {
            id,
            name,
            description,
            parent,
            is_current,
        });
        Ok(())
    }

    fn id(&mut self, key: &str) -> Result<VirtualBoxSnapshotId, String> {
        let value = self.value(key, |_| true)?;
        value.parse().map_err(|_| format!("{key} is {value:?}"))
    }

    /// The value of the key that comes now, up to a quote at a line end that `follows` follows.
    fn value(&mut self, key: &str, follows: impl Fn(&str) -> bool) -> Result<String, String> {
        let missing = || format!("it has no {key} where one belongs");
        let text = self
            .rest
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix("=\""))
            .ok_or_else(missing)?;
        for (at, _) in text.match_indices('"') {
            let Some((value, quote)) = text.split_at_checked(at) else {
                continue;
            };
            let behind = quote.get(1..).unwrap_or_default();
            let rest = if behind.is_empty() {
                Some("")
            } else {
                behind.strip_prefix('\n')
            };
            if let Some(rest) = rest.filter(|rest| follows(rest)) {
                self.rest = rest;
                return Ok(value.to_owned());
            }
        }
        Err(format!("{key} has no end"))
    }
}

fn key(field: &str, place: &[u32]) -> String {
    let numbers: String = place.iter().map(|number| format!("-{number}")).collect();
    format!("Snapshot{field}{numbers}")
}

fn starts(rest: &str, field: &str, place: &[u32]) -> bool {
    rest.strip_prefix(&key(field, place))
        .is_some_and(|rest| rest.starts_with("=\""))
}

/// Where the entry behind that at `place` may be: its first child, or the next child of an ancestor.
fn next_places(place: &[u32]) -> Vec<Vec<u32>> {
    let mut places = vec![[place, &[1]].concat()];
    let mut ancestor = place.to_vec();
    while let Some(number) = ancestor.pop() {
        places.push([ancestor.as_slice(), &[number.saturating_add(1)]].concat());
    }
    places
}

/// Whether an entry may end before `rest`.
fn ends_entry(rest: &str, place: &[u32]) -> bool {
    rest.is_empty()
        || rest.starts_with("CurrentSnapshotName=\"")
        || is_behind_list(rest)
        || next_places(place)
            .iter()
            .any(|place| starts(rest, "Name", place))
}

/// Whether this is what `showvminfo` writes behind the list: `GuestMemoryBalloon=0`.
fn is_behind_list(rest: &str) -> bool {
    let line = rest.lines().next().unwrap_or_default();
    let number = line.strip_prefix("GuestMemoryBalloon=");
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let list = parse_virtualbox_snapshots(text).unwrap();
        let name_of = |id| {
            list.iter()
                .find(|other| Some(other.id) == id)
                .map_or("-", |other| other.name.as_str())
        };
        let line = |entry: &ListedVirtualBoxSnapshot| {
            let current = if entry.is_current { " *" } else { "" };
            format!(
                "{:?} on {:?}{current} {:?}\n",
                entry.name,
                name_of(entry.parent),
                entry.description
            )
        };
        list.iter().map(line).collect()
    }

    #[test]
    fn recorded_lists() {
        insta::assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/snapshot-list-line.txt")), @r#"
        "snap1" on "-" Some("first, offline")
        "snap two" on "snap1" Some("desc with \"quotes\"\nand a second line")
        "snap1" on "snap two" None
        "uniq" on "snap1" None
        "uniq2026-11-21T03:16:18Z" on "uniq" None
        "uniq" on "uniq2026-11-21T03:16:18Z" * None
        "#);
        insta::assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/snapshot-list-branches.txt")), @r#"
        "snap1-renamed" on "-" Some("new description")
        "branch-b" on "snap1-renamed" * None
        "snap1" on "snap1-renamed" None
        "uniq" on "snap1" None
        "uniq2026-11-21T03:16:18Z" on "uniq" None
        "uniq" on "uniq2026-11-21T03:16:18Z" Some("the current one")
        "" on "uniq" None
        "#);
        insta::assert_snapshot!(shown(include_str!("../../tests/recorded/7.2.22/snapshot-list-quotes.txt")), @r#""sñap \"q\" 'a' 1" on "-" * Some("日本")"#);
    }

    #[test]
    fn list_inside_showvminfo() {
        let text = include_str!("../../tests/recorded/7.2.22/showvminfo-running-with-snapshot.txt");
        let found = super::super::machinereadable::MachineReadable::parse(text);
        insta::assert_snapshot!(shown(found.rest), @r#""a \"quoted\"\nname" on "-" * Some("x\"\nUUID=\"nonsense\"\nGuestMemoryBalloon=1")"#);
    }

    #[test]
    fn no_list() {
        assert_eq!(
            parse_virtualbox_snapshots("This machine does not have any snapshots\n"),
            Ok(Vec::new())
        );
    }

    #[test]
    fn broken_lists_are_errors() {
        let text = include_str!("../../tests/recorded/7.2.22/snapshot-list-branches.txt");
        for broken in [
            text.replacen("f7bc", "x", 1),
            text.replacen("SnapshotUUID", "SnapshotUID", 1),
        ] {
            assert!(parse_virtualbox_snapshots(&broken).is_err());
        }
    }

    proptest! {
        #[test]
        fn odd_names_and_descriptions_are_read(
            names in prop::collection::vec("[a-c\"\n=\\\\é]{0,6}", 1..5),
            description in "[a-c\"\n=]{0,9}",
        ) {
            let id = |number: usize| format!("00000000-0000-0000-0000-{number:012}");
            let mut text = String::new();
            for (number, name) in names.iter().enumerate() {
                let suffix = "-1".repeat(number);
                text += &format!("SnapshotName{suffix}=\"{name}\"\nSnapshotUUID{suffix}=\"{}\"\n", id(number));
                text += &format!("SnapshotDescription{suffix}=\"{description}\"\n");
            }
            let list = parse_virtualbox_snapshots(&text).unwrap();
            prop_assert_eq!(list.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), names);
            prop_assert!(list.iter().all(|entry| entry.description.as_deref() == Some(description.as_str())));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(Snapshot(Name|UUID)(-1)?=\"[\"\n]?|.|\n){0,40}") {
            let _ = parse_virtualbox_snapshots(&text);
        }
    }
}
