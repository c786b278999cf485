//! `getextradata` and `setextradata`.

use super::answer::Answer;
use super::document::{Document, Element};
use super::machine::Machine;
use super::registry::Registry;

const FIND_TO_GET: &str = "\"FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())\" at line 988 of file VBoxManageMisc.cpp";
const FIND_TO_SET: &str = "\"FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())\" at line 1061 of file VBoxManageMisc.cpp";

/// `getextradata MACHINE KEY`
pub(super) fn get(registry: &mut Registry, name: &str, key: &str) -> Answer {
    match registry.find(name) {
        Err(failure) => failure.answer(FIND_TO_GET),
        Ok(machine) => Answer::prints(machine.extra_data(key).map_or_else(
            || "No value set!\n".to_owned(),
            |value| format!("Value: {value}\n"),
        )),
    }
}

/// `setextradata MACHINE KEY [VALUE]`
pub(super) fn set(registry: &mut Registry, name: &str, key: &str, value: &str) -> Answer {
    match registry.find(name) {
        Err(failure) => failure.answer(FIND_TO_SET),
        Ok(machine) => {
            machine.change(|settings| change(settings, key, value));
            Answer::silent()
        }
    }
}

fn change(settings: &mut Element, key: &str, value: &str) {
    let items = settings.child_or_new("ExtraData", &["Snapshot", "Hardware"]);
    let is_it = |item: &Element| item.attribute("name") == Some(key);
    items.children.retain(|item| !is_it(item));
    if !value.is_empty() {
        let item = Element::new("ExtraDataItem", &[("name", key), ("value", value)]);
        items.children.push(item);
        items
            .children
            .sort_by(|left, right| left.attribute("name").cmp(&right.attribute("name")));
    }
    if items.children.is_empty() {
        settings.remove_child("ExtraData");
    }
}

impl Machine {
    pub(super) fn extra_data(&self, key: &str) -> Option<String> {
        let mut document = Document::parse(&self.text);
        let items = &document.machine().child("ExtraData")?.children;
        let item = items
            .iter()
            .find(|item| item.attribute("name") == Some(key))?;
        item.attribute("value").map(str::to_owned)
    }
}
