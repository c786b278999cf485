//! Changing parts of a text and nothing else.

use std::ops::Range;

use roxmltree::{Attribute, Node};

use super::document::problem;
use crate::error::{Error, Result};

/// Replacements of byte ranges of one text.
#[derive(Debug, Default)]
pub(super) struct Splices {
    list: Vec<(Range<usize>, String)>,
}

impl Splices {
    /// Puts `text` where `range` is now.
    pub(super) fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.list.push((range, text.into()));
    }

    /// Gives an attribute another value, which is escaped here.
    pub(super) fn set_value(
        &mut self,
        text: &str,
        attribute: Attribute<'_, '_>,
        value: &str,
    ) -> Result<()> {
        if attribute.value() != value {
            self.replace(value_range(text, attribute)?, escape(value));
        }
        Ok(())
    }

    /// Sets, adds or, without a value, removes an attribute of an element.
    pub(super) fn set_attribute(
        &mut self,
        text: &str,
        node: Node<'_, '_>,
        name: &str,
        value: Option<&str>,
    ) -> Result<()> {
        match (node.attribute_node(name), value) {
            (Some(attribute), Some(value)) => self.set_value(text, attribute, value)?,
            (Some(attribute), None) => {
                let range = value_range(text, attribute)?.start..attribute.range().end;
                self.replace(
                    with_white_space_before(text, attribute.range().start..range.end),
                    "",
                );
            }
            (None, Some(value)) => {
                let end = end_of_name(text, node)?;
                self.replace(end..end, format!(" {name}=\"{}\"", escape(value)));
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Carries the replacements out. They must not overlap.
    pub(super) fn apply(mut self, text: &str) -> Result<String> {
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let mut result = String::with_capacity(text.len());
        let mut done = 0;
        for (range, replacement) in &self.list {
            let kept = text.get(done..range.start);
            result.push_str(
                kept.ok_or_else(|| Error::settings("they cannot be changed in two ways at once"))?,
            );
            result.push_str(replacement);
            done = range.end;
        }
        result.push_str(text.get(done..).unwrap_or_default());
        Ok(result)
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The bytes between the quotes. The parser's positions saturate on absurdly long names and gaps,
/// so they are looked at before they are trusted.
pub(super) fn value_range(text: &str, attribute: Attribute<'_, '_>) -> Result<Range<usize>> {
    let range = attribute.range_value();
    let quote = |at: Option<usize>| text.as_bytes().get(at?).copied();
    let before = quote(range.start.checked_sub(1));
    let is_plain = before == quote(Some(range.end)) && matches!(before, Some(b'"' | b'\''));
    let is_name = text
        .get(attribute.range().start..)
        .is_some_and(|rest| rest.starts_with(attribute.name()));
    if is_plain && is_name {
        return Ok(range);
    }
    Err(Error::settings(format!(
        "their attribute {} is written in a way that cannot be changed",
        attribute.name()
    )))
}

/// A range made longer to the left by the white space there.
pub(super) fn with_white_space_before(text: &str, range: Range<usize>) -> Range<usize> {
    let before = text.get(..range.start).unwrap_or_default();
    before.trim_ascii_end().len()..range.end
}

/// Where the name in an element's start tag ends.
pub(super) fn end_of_name(text: &str, node: Node<'_, '_>) -> Result<usize> {
    let start = node.range().start;
    let tag = text.get(start..).unwrap_or_default();
    let length = tag.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
    length
        .and_then(|length| start.checked_add(length))
        .ok_or_else(|| problem(node, "has no end"))
}

/// The value as VirtualBox writes it: what is not ASCII becomes a number.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            ' '..='~' => escaped.push(character),
            other => escaped.push_str(&format!("&#x{:X};", u32::from(other))),
        }
    }
    escaped
}
