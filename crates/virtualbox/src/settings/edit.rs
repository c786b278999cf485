//! Changing settings files.
//!
//! Guarantees: every byte that an edit does not mean to change stays: order and quoting of
//! attributes, escapes, comments, line ends, elements unknown to vrs. Without edits the result is
//! the text as it was. Each edit leaves well-formed XML or fails and changes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use roxmltree::{Attribute, Document, Node};
use uuid::Uuid;

use super::document::{self, child, children, descendants};
use super::hard_disk::HardDisk;
use super::registry_text::{KnownDetails, RegistryText, place_of_registry};
use super::splice::{Splices, escape, value_range, with_white_space_before};
use crate::error::{Error, Result};
use crate::id::{MachineId, MediumId};

/// A settings file that is being changed.
#[derive(Debug, Clone)]
pub struct SettingsEdit<'a> {
    text: Cow<'a, str>,
}

impl<'a> SettingsEdit<'a> {
    /// Begins with the text of a settings file.
    pub fn new(text: &'a str) -> Result<Self> {
        document::machine(&document::parse(text)?)?;
        Ok(Self {
            text: Cow::Borrowed(text),
        })
    }

    /// The changed text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text.into_owned()
    }

    /// Gives the machine another id.
    pub fn set_machine_id(&mut self, id: MachineId) -> Result<()> {
        self.set_machine_attribute("uuid", Some(&id.braced()))
    }

    /// Gives the machine another name.
    pub fn set_machine_name(&mut self, name: &str) -> Result<()> {
        self.set_machine_attribute("name", Some(name))
    }

    /// Names another folder for differencing images and saved states.
    pub fn set_snapshot_folder(&mut self, folder: &str) -> Result<()> {
        self.set_machine_attribute("snapshotFolder", Some(folder))
    }

    /// Names the saved state of the machine, or says that it has none.
    pub fn set_state_file(&mut self, location: Option<&str>) -> Result<()> {
        self.set_machine_attribute("stateFile", location)
    }

    /// Names another file wherever `old` is named as a saved state, now or at a VirtualBox snapshot.
    pub fn replace_state_file(&mut self, old: &str, new: &str) -> Result<()> {
        self.replace_values("stateFile", old, new)
    }

    /// Names another file wherever `old` is named as nvram, now or at a VirtualBox snapshot.
    pub fn replace_nvram_path(&mut self, old: &str, new: &str) -> Result<()> {
        self.change(|text, machine, splices| {
            let named =
                descendants(machine, "NVRAM").filter_map(|nvram| nvram.attribute_node("path"));
            named
                .filter(|path| path.value() == old)
                .try_for_each(|path| splices.set_value(text, path, new))
        })
    }

    /// Names the nvram of the machine as it is now.
    pub fn set_nvram_path(&mut self, path: &str) -> Result<()> {
        self.change(|text, machine, splices| {
            let hardware = child(machine, "Hardware")
                .ok_or_else(|| Error::settings("they have no <Hardware>"))?;
            if let Some(nvram) = descendants(hardware, "NVRAM").next() {
                return splices.set_attribute(text, nvram, "path", Some(path));
            }
            let nvram = format!("<NVRAM path=\"{}\"/>", escape(path));
            // Up to settings version 1.19 it belongs to <BIOS>, from 1.20 on to <Firmware>.
            match child(hardware, "BIOS").or_else(|| child(hardware, "Firmware")) {
                Some(firmware) => append(text, firmware, &nvram, splices),
                None => append(text, hardware, &format!("<BIOS>{nvram}</BIOS>"), splices),
            }
        })
    }

    /// Replaces ids: wherever an attribute is an id in braces, and wherever one stands in the path
    /// of a file. Names are left alone, even if they look like an id.
    pub fn replace_ids(&mut self, new_of: &BTreeMap<Uuid, Uuid>) -> Result<()> {
        self.change(|text, machine, splices| {
            let attributes = machine.descendants().flat_map(|node| node.attributes());
            attributes
                .filter(|attribute| attribute.name() != "name")
                .try_for_each(|attribute| {
                    let range = value_range(text, attribute)?;
                    let raw = text.get(range.clone()).unwrap_or_default();
                    let changed = with_new_ids(attribute, raw, new_of);
                    if changed != raw {
                        splices.replace(range, changed);
                    }
                    Ok(())
                })
        })
    }

    /// Says that a hard disk in the media registry is elsewhere.
    pub fn set_medium_location(&mut self, medium: MediumId, location: &str) -> Result<()> {
        self.change(|text, machine, splices| {
            splices.set_attribute(
                text,
                hard_disk(machine, medium)?,
                "location",
                Some(location),
            )
        })
    }

    /// Takes a medium out of every drive that holds it, now and at every VirtualBox snapshot, and hard
    /// disk drives with it.
    pub fn detach_medium(&mut self, medium: MediumId) -> Result<()> {
        self.change(|text, machine, splices| {
            let holds = |device: &Node<'_, '_>| {
                child(*device, "Image")
                    .and_then(|image| image.attribute("uuid"))
                    .is_some_and(|id| id.parse() == Ok(medium))
            };
            for device in descendants(machine, "AttachedDevice").filter(holds) {
                splices.replace(with_white_space_before(text, device.range()), "");
            }
            Ok(())
        })
    }

    /// Takes a hard disk and all differencing images on it out of the media registry.
    pub fn remove_medium(&mut self, medium: MediumId) -> Result<()> {
        self.change(|text, machine, splices| {
            splices.replace(
                with_white_space_before(text, hard_disk(machine, medium)?.range()),
                "",
            );
            Ok(())
        })
    }

    /// Makes the media registry list exactly these hard disks. What it said about them besides what
    /// [`HardDisk`] has, such as the properties of an encrypted one, stays.
    pub fn set_media_registry_hard_disks(&mut self, disks: &[HardDisk]) -> Result<()> {
        self.change(|text, machine, splices| {
            let line_end = line_end(text);
            let details = KnownDetails::of(text, machine);
            let list = |indent| RegistryText::new(details, line_end).hard_disks(disks, indent);
            let registry = child(machine, "MediaRegistry");
            if let Some(old) = registry.and_then(|registry| child(registry, "HardDisks")) {
                splices.replace(old.range(), list(indent_of(text, old)));
                return Ok(());
            }
            if let Some(registry) = registry {
                return append(text, registry, &list(indent_of(text, registry).saturating_add(2)), splices);
            }
            let place = place_of_registry(machine).ok_or_else(|| Error::settings("they have no <Hardware>"))?;
            let indent = indent_of(text, place);
            let inner = " ".repeat(indent.saturating_add(2));
            let outer = " ".repeat(indent);
            let list = list(inner.len());
            let registry = format!("<MediaRegistry>{line_end}{inner}{list}{line_end}{outer}</MediaRegistry>{line_end}{outer}");
            splices.replace(place.range().start..place.range().start, registry);
            Ok(())
        })
    }

    /// Gives network adapters other addresses, now and at every VirtualBox snapshot. `new_address` is
    /// asked with the number of the adapter and its address.
    pub fn set_mac_addresses(
        &mut self,
        mut new_address: impl FnMut(u32, &str) -> Option<String>,
    ) -> Result<()> {
        self.change(|text, machine, splices| {
            for adapter in descendants(machine, "Adapter") {
                let Some(address) = adapter.attribute_node("MACAddress") else {
                    continue;
                };
                let slot = document::required(adapter, "slot", "number")?;
                if let Some(new) = new_address(slot, address.value()) {
                    splices.set_value(text, address, &new)?;
                }
            }
            Ok(())
        })
    }

    fn set_machine_attribute(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        self.change(|text, machine, splices| splices.set_attribute(text, machine, name, value))
    }

    fn replace_values(&mut self, attribute: &str, old: &str, new: &str) -> Result<()> {
        self.change(|text, machine, splices| {
            let named = machine
                .descendants()
                .filter_map(|node| node.attribute_node(attribute));
            named
                .filter(|value| value.value() == old)
                .try_for_each(|value| splices.set_value(text, value, new))
        })
    }

    /// Carries one edit out on the text as the edits before it left it.
    pub(super) fn change(
        &mut self,
        edit: impl FnOnce(&str, Node<'_, '_>, &mut Splices) -> Result<()>,
    ) -> Result<()> {
        let mut splices = Splices::default();
        let document: Document<'_> = document::parse(&self.text)?;
        edit(&self.text, document::machine(&document)?, &mut splices)?;
        if splices.is_empty() {
            return Ok(());
        }
        let changed = splices.apply(&self.text)?;
        document::machine(&document::parse(&changed)?)?;
        self.text = Cow::Owned(changed);
        Ok(())
    }
}

fn hard_disk<'a, 'input>(machine: Node<'a, 'input>, medium: MediumId) -> Result<Node<'a, 'input>> {
    let lists =
        children(machine, "MediaRegistry").flat_map(|registry| children(registry, "HardDisks"));
    let is_it = |disk: &Node<'_, '_>| {
        disk.attribute("uuid")
            .is_some_and(|id| id.parse() == Ok(medium))
    };
    let mut disks = lists
        .flat_map(|list| descendants(list, "HardDisk"))
        .filter(is_it);
    disks.next().ok_or(Error::NoSuchMedium { medium })
}

/// Attributes that hold paths of files in the machine folder.
const PATHS: [&str; 4] = ["location", "path", "stateFile", "snapshotFolder"];

fn with_new_ids(attribute: Attribute<'_, '_>, raw: &str, new_of: &BTreeMap<Uuid, Uuid>) -> String {
    if PATHS.contains(&attribute.name()) {
        return new_of.iter().fold(raw.to_owned(), |raw, (old, new)| {
            raw.replace(&old.to_string(), &new.to_string())
        });
    }
    let inner = raw
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    let new = inner
        .and_then(|inner| Uuid::try_parse(inner).ok())
        .and_then(|old| new_of.get(&old));
    new.map_or_else(|| raw.to_owned(), |new| format!("{{{new}}}"))
}

/// Adds an element at the end of another, in a line of its own.
fn append(text: &str, parent: Node<'_, '_>, element: &str, splices: &mut Splices) -> Result<()> {
    let range = parent.range();
    let line_end = line_end(text);
    let outer = " ".repeat(indent_of(text, parent));
    let whole = text.get(range.clone()).unwrap_or_default();
    let line = format!("{line_end}{outer}  {element}{line_end}{outer}");
    if let Some(start_tag) = whole.strip_suffix("/>") {
        let name = parent.tag_name().name();
        splices.replace(range, format!("{start_tag}>{line}</{name}>"));
        return Ok(());
    }
    let end_tag = whole.rfind("</").and_then(|at| range.start.checked_add(at));
    let end_tag = end_tag.ok_or_else(|| document::problem(parent, "has no end"))?;
    splices.replace(with_white_space_before(text, end_tag..end_tag), line);
    Ok(())
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// How far an element is indented, if nothing else is before it in its line.
fn indent_of(text: &str, node: Node<'_, '_>) -> usize {
    let before = text.get(..node.range().start).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    if line.bytes().all(|byte| byte == b' ') {
        line.len()
    } else {
        0
    }
}
