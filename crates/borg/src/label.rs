//! What an archive's comment says about a snapshot.
//!
//! Words divided by blanks, the first of them `vrs1`, each value percent-encoded: borg replaces what
//! stands in braces, so it is no JSON. An archive without such a comment was not made by vrs, or not
//! finished.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use vrs_repository::store::{SnapshotLabel, SnapshotWords};

const MARK: &str = "vrs1";
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'=')
    .remove(b':')
    .remove(b'/');

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) time: jiff::Timestamp,
    pub(crate) hostname: String,
    pub(crate) tags: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) added_bytes: Option<u64>,
    /// As borg takes them. The next snapshot of the same files is cut the same way.
    pub(crate) chunker: Option<String>,
}

impl Label {
    pub(crate) fn new(label: &SnapshotLabel) -> Self {
        Self {
            time: label.time,
            hostname: label.hostname.clone(),
            tags: label.tags.clone(),
            description: label.description.clone(),
            size_bytes: None,
            added_bytes: None,
            chunker: None,
        }
    }

    pub(crate) fn with_words(self, words: &SnapshotWords) -> Self {
        Self {
            tags: words.tags.clone(),
            description: words.description.clone(),
            ..self
        }
    }

    pub(crate) fn to_comment(&self) -> String {
        let mut words = vec![MARK.to_owned()];
        let mut add = |name: &str, value: &str| {
            words.push(format!("{name}={}", utf8_percent_encode(value, ESCAPED)));
        };
        add("time", &self.time.to_string());
        add("host", &self.hostname);
        for tag in &self.tags {
            add("tag", tag);
        }
        if let Some(description) = &self.description {
            add("description", description);
        }
        if let Some(bytes) = self.size_bytes {
            add("size", &bytes.to_string());
        }
        if let Some(bytes) = self.added_bytes {
            add("added", &bytes.to_string());
        }
        if let Some(chunker) = &self.chunker {
            add("chunker", chunker);
        }
        words.join(" ")
    }

    /// None: no label of vrs. Words that are unknown here are left alone.
    pub(crate) fn of_comment(comment: &str) -> Option<Self> {
        let mut words = comment.split(' ');
        if words.next() != Some(MARK) {
            return None;
        }
        let mut label = Self {
            time: jiff::Timestamp::UNIX_EPOCH,
            hostname: String::new(),
            tags: Vec::new(),
            description: None,
            size_bytes: None,
            added_bytes: None,
            chunker: None,
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = percent_decode_str(value).decode_utf8().ok()?.into_owned();
            match name {
                "time" => label.time = value.parse().ok()?,
                "host" => label.hostname = value,
                "tag" => label.tags.push(value),
                "description" => label.description = Some(value),
                "size" => label.size_bytes = value.parse().ok(),
                "added" => label.added_bytes = value.parse().ok(),
                "chunker" => label.chunker = Some(value),
                _ => {}
            }
        }
        Some(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_words_they_come_back_and_no_brace_is_in_them() {
        let label = Label {
            time: "2026-11-26T21:48:05.123456789Z".parse().unwrap(),
            hostname: "höst {fqdn}".to_owned(),
            tags: vec!["vrs".to_owned(), "vrs-name=a b%2C=".to_owned()],
            description: Some(" two\nlines {now} ".to_owned()),
            size_bytes: Some(7),
            added_bytes: None,
            chunker: Some("fixed,524288,512".to_owned()),
        };
        let comment = label.to_comment();
        assert!(!comment.contains(['{', '}', '\n']), "{comment}");
        assert_eq!(Label::of_comment(&comment), Some(label));
    }

    #[test]
    fn other_comments_are_none_of_ours() {
        for comment in ["", "vrs10 time=x", "nightly", "vrs1 time=never"] {
            assert_eq!(Label::of_comment(comment), None, "{comment}");
        }
    }
}
