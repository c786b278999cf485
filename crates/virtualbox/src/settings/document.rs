//! The XML of a settings file, opened with limits.
//!
//! Guarantees: no document type definition and so no entities are accepted; size and nesting are
//! bounded before anything is built from them. VirtualBox itself writes none of what is refused.

use roxmltree::{Document, Node, ParsingOptions};

use crate::error::{Error, Result};

/// Settings with hundreds of VirtualBox snapshots are a few megabytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 << 20;

/// VirtualBox allows 250 VirtualBox snapshots and 300 images in one chain
/// (`SETTINGS_SNAPSHOT_DEPTH_MAX` and `SETTINGS_MEDIUM_DEPTH_MAX` in its source); a VirtualBox
/// snapshot takes two elements.
const MAX_DEPTH: usize = 1024;

/// Far more than the largest settings have.
const MAX_ATTRIBUTES: usize = 1024;

/// Parses settings.
pub(crate) fn parse(text: &str) -> Result<Document<'_>> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::settings(format!(
            "they are larger than {} MiB",
            MAX_TEXT_BYTES >> 20
        )));
    }
    // The parser compares each attribute of an element with all others of it.
    if text
        .split('<')
        .any(|tag| tag.matches('=').nth(MAX_ATTRIBUTES).is_some() && !tag.starts_with('!'))
    {
        return Err(Error::settings(format!(
            "an element has more than {MAX_ATTRIBUTES} attributes"
        )));
    }
    let options = ParsingOptions {
        allow_dtd: false,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options)
        .map_err(|source| Error::Xml { path: None, source })?;
    check_depth(&document)?;
    Ok(document)
}

/// The element of the machine.
pub(crate) fn machine<'a, 'input>(document: &'a Document<'input>) -> Result<Node<'a, 'input>> {
    let root = document.root_element();
    if !root.has_tag_name_ignoring_namespace("VirtualBox") {
        return Err(Error::settings(format!(
            "they begin with <{}>, not <VirtualBox>",
            root.tag_name().name()
        )));
    }
    if let Some(encrypted) = child(root, "MachineEncrypted") {
        let machine = encrypted.attribute("uuid").and_then(|id| id.parse().ok());
        return Err(Error::Encrypted {
            path: None,
            machine,
        });
    }
    child(root, "Machine").ok_or_else(|| Error::settings("they have no <Machine>"))
}

/// The first child element of that name.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

/// All child elements of that name.
pub(crate) fn children<'a, 'input, 'n>(
    node: Node<'a, 'input>,
    name: &'n str,
) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input, 'n> {
    node.children()
        .filter(move |child| child.has_tag_name_ignoring_namespace(name))
}

/// All elements of that name inside.
pub(crate) fn descendants<'a, 'input, 'n>(
    node: Node<'a, 'input>,
    name: &'n str,
) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input, 'n> {
    node.descendants()
        .filter(move |inside| inside.has_tag_name_ignoring_namespace(name))
}

/// The value of an attribute that must be there, and what it must be.
pub(crate) fn required<T: std::str::FromStr>(
    node: Node<'_, '_>,
    attribute: &str,
    what: &str,
) -> Result<T> {
    let value = node
        .attribute(attribute)
        .ok_or_else(|| problem(node, &format!("has no {attribute}")))?;
    value.parse().map_err(|_| {
        problem(
            node,
            &format!("has {attribute}={value:?}, which is no {what}"),
        )
    })
}

/// An error about an element, with its line.
pub(crate) fn problem(node: Node<'_, '_>, problem: &str) -> Error {
    let line = node.document().text_pos_at(node.range().start).row;
    Error::settings(format!(
        "<{}> in line {line} {problem}",
        node.tag_name().name()
    ))
}

/// Whether the attribute says yes. Absent is no, as everywhere in VirtualBox's settings.
pub(crate) fn flag(node: Node<'_, '_>, attribute: &str) -> bool {
    matches!(node.attribute(attribute), Some("true" | "yes" | "on" | "1"))
}

trait TagName {
    fn has_tag_name_ignoring_namespace(&self, name: &str) -> bool;
}

impl TagName for Node<'_, '_> {
    /// The namespace is VirtualBox's own, written as `http://` or `https://` depending on the version.
    fn has_tag_name_ignoring_namespace(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

/// What walks the tree recurses; this keeps it from going too deep.
fn check_depth(document: &Document<'_>) -> Result<()> {
    let mut next = Some(document.root());
    let mut depth = 0_usize;
    while let Some(node) = next {
        if depth > MAX_DEPTH {
            return Err(Error::settings(format!(
                "their elements are nested more than {MAX_DEPTH} deep"
            )));
        }
        next = node.first_child();
        if next.is_some() {
            depth = depth.saturating_add(1);
            continue;
        }
        next = following(node, &mut depth);
    }
    Ok(())
}

/// The next node that is not inside `node`, in the order of the text.
fn following<'a, 'input>(node: Node<'a, 'input>, depth: &mut usize) -> Option<Node<'a, 'input>> {
    let mut node = Some(node);
    while let Some(here) = node {
        if let Some(next) = here.next_sibling() {
            return Some(next);
        }
        *depth = depth.saturating_sub(1);
        node = here.parent();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_refused() {
        let bomb =
            r#"<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><VirtualBox>&c;</VirtualBox>"#;
        assert!(matches!(parse(bomb), Err(Error::Xml { .. })));
        let foreign = r#"<!DOCTYPE a SYSTEM "file:///etc/passwd"><VirtualBox/>"#;
        assert!(matches!(parse(foreign), Err(Error::Xml { .. })));
    }

    #[test]
    fn endless_nesting_is_refused() {
        let text = format!("{}{}", "<a>".repeat(200_000), "</a>".repeat(200_000));
        let problem = parse(&text).unwrap_err().to_string();
        assert!(problem.contains("nested more than 1024 deep"), "{problem}");
    }

    #[test]
    fn endless_attributes_are_refused() {
        let attributes: String = (0..300_000)
            .map(|number| format!(" a{number}=''"))
            .collect();
        let problem = parse(&format!("<a{attributes}/>")).unwrap_err().to_string();
        assert!(problem.contains("more than 1024 attributes"), "{problem}");
    }

    #[test]
    fn as_many_elements_side_by_side_as_wanted() {
        let text = format!(
            "<VirtualBox>{}</VirtualBox>",
            "<a b='c'/><d>e</d>".repeat(10_000)
        );
        assert!(parse(&text).is_ok());
    }
}
