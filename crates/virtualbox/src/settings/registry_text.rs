//! The text of a media registry.

use std::collections::BTreeMap;

use roxmltree::Node;

use super::document::{child, descendants};
use super::hard_disk::HardDisk;
use super::splice::escape;
use crate::id::MediumId;

/// What an old registry says about its images besides what [`HardDisk`] has.
pub(super) struct KnownDetails<'a> {
    of: BTreeMap<MediumId, Details<'a>>,
}

/// The rest of one `<HardDisk>`.
#[derive(Default)]
struct Details<'a> {
    attributes: Vec<(String, String)>,
    /// Inner elements that are no images, as they are written.
    inner: Vec<&'a str>,
}

impl<'a> KnownDetails<'a> {
    /// Collects the details of all images of the machine.
    pub(super) fn of(text: &'a str, machine: Node<'_, '_>) -> Self {
        let disks =
            child(machine, "MediaRegistry").and_then(|registry| child(registry, "HardDisks"));
        let nodes = disks
            .into_iter()
            .flat_map(|disks| descendants(disks, "HardDisk"));
        let details = nodes.filter_map(|node| {
            Some((
                node.attribute("uuid")?.parse().ok()?,
                Details::of(text, node),
            ))
        });
        Self {
            of: details.collect(),
        }
    }
}

impl<'a> Details<'a> {
    fn of(text: &'a str, disk: Node<'_, '_>) -> Self {
        const TAKEN_FROM_ELSEWHERE: [&str; 4] = ["uuid", "location", "format", "type"];
        let rest = disk
            .attributes()
            .filter(|attribute| !TAKEN_FROM_ELSEWHERE.contains(&attribute.name()));
        let inner = disk
            .children()
            .filter(|inner| inner.is_element() && inner.tag_name().name() != "HardDisk");
        Self {
            attributes: rest
                .map(|attribute| (attribute.name().to_owned(), attribute.value().to_owned()))
                .collect(),
            inner: inner.filter_map(|inner| text.get(inner.range())).collect(),
        }
    }
}

/// Writes registries in VirtualBox's layout.
pub(super) struct RegistryText<'a> {
    details: KnownDetails<'a>,
    line_end: &'static str,
    text: String,
}

impl<'a> RegistryText<'a> {
    pub(super) fn new(details: KnownDetails<'a>, line_end: &'static str) -> Self {
        Self {
            details,
            line_end,
            text: String::new(),
        }
    }

    /// `<HardDisks>` with all images, without the indentation of its first line.
    pub(super) fn hard_disks(mut self, disks: &[HardDisk], indent: usize) -> String {
        self.text.push_str("<HardDisks>");
        for disk in disks {
            self.disk(disk, indent.saturating_add(2));
        }
        self.start_line(indent);
        self.text.push_str("</HardDisks>");
        self.text
    }

    fn disk(&mut self, disk: &HardDisk, indent: usize) {
        let details = self.details.of.remove(&disk.id).unwrap_or_default();
        self.start_line(indent);
        self.text.push_str("<HardDisk");
        self.attributes(disk, &details);
        if disk.children.is_empty() && details.inner.is_empty() {
            self.text.push_str("/>");
            return;
        }
        self.text.push('>');
        let inner = indent.saturating_add(2);
        for element in &details.inner {
            self.start_line(inner);
            self.text.push_str(element);
        }
        for child in &disk.children {
            self.disk(child, inner);
        }
        self.start_line(indent);
        self.text.push_str("</HardDisk>");
    }

    fn attributes(&mut self, disk: &HardDisk, details: &Details<'_>) {
        self.attribute("uuid", &disk.id.braced());
        self.attribute("location", &disk.location);
        self.attribute("format", &disk.format);
        if let Some(kind) = &disk.kind {
            self.attribute("type", kind);
        }
        let has_auto_reset = details
            .attributes
            .iter()
            .any(|(name, _)| name == "autoReset");
        if disk.auto_reset && !has_auto_reset {
            self.attribute("autoReset", "true");
        }
        for (name, value) in &details.attributes {
            self.attribute(name, value);
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.text
            .push_str(&format!(" {name}=\"{}\"", escape(value)));
    }

    fn start_line(&mut self, indent: usize) {
        self.text.push_str(self.line_end);
        self.text.extend(std::iter::repeat_n(' ', indent));
    }
}

/// The element before which `<MediaRegistry>` goes: VirtualBox writes it behind the description.
pub(super) fn place_of_registry<'a, 'input>(machine: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
    let mut elements = machine.children().filter(Node::is_element);
    elements.find(|element| element.tag_name().name() != "Description")
}
