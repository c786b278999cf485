//! A settings file as a tree that can be changed, written as VirtualBox writes it.

use roxmltree::{Document as Parsed, Node};
use uuid::Uuid;

use crate::settings::escape;

/// Attributes of `<Machine>` in VirtualBox's order, as far as the fake sets them.
const ORDER: [&str; 11] = [
    "uuid",
    "name",
    "OSType",
    "stateFile",
    "currentSnapshot",
    "snapshotFolder",
    "currentStateModified",
    "lastStateChange",
    "aborted",
    "executionEngine",
    "stateKeyId",
];

/// A whole file.
pub(super) struct Document {
    /// What stands before the root element.
    prologue: String,
    root: Element,
}

/// An element with its attributes in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Self>,
    text: Option<String>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Self {
        let parsed = Parsed::parse(text).expect("settings that were read before");
        let start = parsed.root_element().range().start;
        Self {
            prologue: text[..start].to_owned(),
            root: Element::of_node(parsed.root_element()),
        }
    }

    pub(super) fn machine(&mut self) -> &mut Element {
        self.root.child_mut("Machine").expect("a machine")
    }

    pub(super) fn render(&self) -> String {
        let mut text = self.prologue.clone();
        self.root.render(0, &mut text);
        text
    }
}

impl Element {
    pub(super) fn new(name: &str, attributes: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Self::default()
        }
    }

    pub(super) fn with_text(self, text: &str) -> Self {
        Self {
            text: Some(text.to_owned()),
            ..self
        }
    }

    fn of_node(node: Node<'_, '_>) -> Self {
        let children: Vec<Self> = node
            .children()
            .filter(Node::is_element)
            .map(Self::of_node)
            .collect();
        // roxmltree does not count declarations of name spaces among the attributes.
        let name_space = node
            .default_namespace()
            .filter(|_| node.parent_element().is_none());
        let declared = name_space.map(|uri| ("xmlns".to_owned(), uri.to_owned()));
        let attributes = node
            .attributes()
            .map(|attribute| (attribute.name().to_owned(), attribute.value().to_owned()));
        Self {
            name: node.tag_name().name().to_owned(),
            attributes: declared.into_iter().chain(attributes).collect(),
            // White space alone is what is left where children were taken out.
            text: node
                .text()
                .filter(|text| children.is_empty() && !text.trim().is_empty())
                .map(str::to_owned),
            children,
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Sets an attribute, or takes it away.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) {
        let place = self.attributes.iter().position(|(known, _)| known == name);
        match (place, value) {
            (Some(place), Some(value)) => self.attributes[place].1 = value.to_owned(),
            (Some(place), None) => drop(self.attributes.remove(place)),
            (None, Some(value)) => {
                let rank = |name: &str| ORDER.iter().position(|known| *known == name);
                let is_later = |(other, _): &(String, String)| rank(other) > rank(name);
                let later = self.attributes.iter().position(is_later);
                let place = later.unwrap_or(self.attributes.len());
                let attribute = (name.to_owned(), value.to_owned());
                self.attributes.insert(place, attribute);
            }
            (None, None) => {}
        }
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    pub(super) fn has_id(&self, id: Uuid) -> bool {
        self.attribute("uuid").and_then(|value| value.parse().ok()) == Some(id)
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(name))
    }

    pub(super) fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.iter_mut().find(|child| child.is(name))
    }

    /// The child of this name; it is made before the first child named in `before` if there is none.
    pub(super) fn child_or_new(&mut self, name: &str, before: &[&str]) -> &mut Self {
        if self.child(name).is_none() {
            self.insert_before(before, Self::new(name, &[]));
        }
        self.child_mut(name).expect("the child just made")
    }

    pub(super) fn insert_before(&mut self, names: &[&str], child: Self) {
        let place = self
            .children
            .iter()
            .position(|known| names.contains(&known.name.as_str()));
        self.children
            .insert(place.unwrap_or(self.children.len()), child);
    }

    pub(super) fn remove_child(&mut self, name: &str) {
        self.children.retain(|child| !child.is(name));
    }

    /// The element of this name and id, here or below.
    pub(super) fn find(&mut self, name: &str, id: Uuid) -> Option<&mut Self> {
        if self.is(name) && self.has_id(id) {
            return Some(self);
        }
        self.children
            .iter_mut()
            .find_map(|child| child.find(name, id))
    }

    /// Takes the element of this name and id out of the tree, and puts others in its place.
    pub(super) fn replace(
        &mut self,
        name: &str,
        id: Uuid,
        replacement: &mut dyn FnMut(Self) -> Vec<Self>,
    ) {
        let is_it = |child: &Self| child.is(name) && child.has_id(id);
        if let Some(place) = self.children.iter().position(is_it) {
            let old = self.children.remove(place);
            let new = replacement(old);
            self.children.splice(place..place, new);
            return;
        }
        for child in &mut self.children {
            child.replace(name, id, replacement);
        }
    }

    /// Every element of this name, here and below.
    pub(super) fn for_each(&mut self, name: &str, change: &mut dyn FnMut(&mut Self)) {
        if self.is(name) {
            change(self);
        }
        for child in &mut self.children {
            child.for_each(name, change);
        }
    }

    fn render(&self, depth: usize, text: &mut String) {
        let (indent, name) = ("  ".repeat(depth), &self.name);
        *text += &format!("{indent}<{name}");
        for (name, value) in &self.attributes {
            *text += &format!(" {name}=\"{}\"", escape(value));
        }
        match &self.text {
            Some(content) => {
                let content = escape(content)
                    .replace("&quot;", "\"")
                    .replace("&#10;", "\n");
                *text += &format!(">{content}</{name}>\n");
            }
            None if self.children.is_empty() => *text += "/>\n",
            None => {
                *text += ">\n";
                for child in &self.children {
                    child.render(depth + 1, text);
                }
                *text += &format!("{indent}</{name}>\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn files_that_virtualbox_wrote_are_written_as_they_were() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../virtualbox/tests/samples");
        let mut count = 0;
        for sample in fs::read_dir(samples).unwrap() {
            let path = sample.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                Document::parse(&text).render() == text,
                "{}",
                path.display()
            );
            count += 1;
        }
        assert!(count > 20);
    }
}
