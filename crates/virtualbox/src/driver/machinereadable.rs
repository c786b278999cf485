//! `--machinereadable` output of `showvminfo`.
//!
//! Source: outputs of 7.2.22. A line is `key=value`, `key="value"` or `"key"="value"`; in quotes `"`
//! and `\` have a `\` before them, and line ends stand as they are. Behind the closing quote more
//! may follow (`VideoMode="640,480,32"@0,0 1`); a line need not have a `=`. The part about
//! VirtualBox snapshots escapes nothing and is left to
//! [`virtualbox_snapshot_list`](super::virtualbox_snapshot_list).

/// Keys and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineReadable<'a> {
    fields: Vec<(String, String)>,
    /// The part about VirtualBox snapshots and what comes behind it.
    pub(super) rest: &'a str,
}

impl<'a> MachineReadable<'a> {
    /// Reads what it can; nothing is an error.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut found = Self {
            fields: Vec::new(),
            rest: text,
        };
        while !found.rest.is_empty() && !found.rest.starts_with("SnapshotName=\"") {
            let (field, rest) = field(found.rest);
            found.fields.extend(field);
            found.rest = rest;
        }
        found
    }

    /// The value of a key. The first one counts: what comes later may be part of a text that a user
    /// wrote.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }
}

type Field = (String, String);

/// The field that the text begins with, if it does, and the text behind its line.
fn field(text: &str) -> (Option<Field>, &str) {
    let Some((key, rest)) = key(text) else {
        return (None, behind_line(text));
    };
    if let Some(quoted) = rest.strip_prefix('"')
        && let Some((value, rest)) = unquoted(quoted)
    {
        return (Some((key, value)), behind_line(rest));
    }
    let value = rest.lines().next().unwrap_or_default().to_owned();
    (Some((key, value)), behind_line(rest))
}

/// The key and what follows its `=`.
fn key(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (key, rest) = unquoted(quoted)?;
        return Some((key, rest.strip_prefix('=')?));
    }
    let (key, rest) = text.split_once('=')?;
    (!key.contains('\n')).then(|| (key.to_owned(), rest))
}

/// The text up to the closing quote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at.checked_add(1)?..)?)),
            '\\' => match characters.clone().next() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    value.push(escaped);
                    characters.next();
                }
                _ => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

/// The text behind the first line.
pub(super) fn behind_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_lines() {
        let text = include_str!("../../tests/recorded/7.2.22/showvminfo-running-with-snapshot.txt");
        let found = MachineReadable::parse(text);
        assert_eq!(found.get("name"), Some("a\\b\"c"));
        assert_eq!(
            found.get("My \"SATA\" ctl-0-0"),
            Some("/tmp/vbxw/vms/a_b_c/Snapshots/{6c43f49f-ab89-440b-b9fd-382c81c8deac}.vdi")
        );
        let escaped = "\"SATA \\\"1\\\"-0-0\"=\"/d\u{ef}sk \\\"1\\\".vdi\"\n";
        assert_eq!(
            MachineReadable::parse(escaped).get("SATA \"1\"-0-0"),
            Some("/dïsk \"1\".vdi")
        );
        assert_eq!(found.get("VideoMode"), Some("640,480,32"));
        assert_eq!(found.get("vrde"), Some("off"));
        assert_eq!(found.get("VRDEClients"), Some("=0"));
        assert_eq!(found.get("recording_screens"), Some("1"));
        assert_eq!(
            found.get("description"),
            Some("line one\nVMState=\"poweroff\"")
        );
        assert_eq!(found.get("VMState"), Some("running"));
        assert!(found.rest.starts_with("SnapshotName="));
    }

    proptest! {
        #[test]
        fn what_virtualbox_escapes_is_read_back(name in any::<String>(), description in any::<String>()) {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("name=\"{}\"\nVMState=\"saved\"\n\"{}\"=1\n", escape(&name), escape(&description));
            let found = MachineReadable::parse(&text);
            prop_assert_eq!(found.get("name"), Some(name.as_str()));
            prop_assert_eq!(found.get("VMState"), Some("saved"));
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = MachineReadable::parse(&text);
        }
    }
}
