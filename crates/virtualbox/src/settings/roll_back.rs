//! Making a machine what it was at its latest VirtualBox snapshot, in its settings alone.

use roxmltree::Node;

use super::document::{child, children, descendants};
use super::edit::SettingsEdit;
use super::splice::{Splices, with_white_space_before};
use crate::error::{Error, Result};
use crate::id::VirtualBoxSnapshotId;

/// What a VirtualBox snapshot keeps of a machine. `StorageControllers` stood beside the hardware up to
/// settings version 1.18.
const SECTIONS: [&str; 3] = ["Hardware", "Platform", "StorageControllers"];

impl SettingsEdit<'_> {
    /// Gives the machine the hardware and the saved state of a VirtualBox snapshot and takes that out,
    /// as `VBoxManage snapshot restore` and `delete` would. The images that came with it
    /// stay in the media registry, attached nowhere.
    ///
    /// # Errors
    /// When there is none with this id, or others were made from it.
    pub fn roll_back(&mut self, id: VirtualBoxSnapshotId) -> Result<()> {
        self.change(|text, machine, splices| {
            let snapshot = find(machine, id)?;
            if descendants(snapshot, "Snapshot").any(|inner| inner != snapshot) {
                return Err(Error::settings(format!(
                    "other VirtualBox snapshots were made from {id}"
                )));
            }
            for section in SECTIONS {
                take_over(text, machine, snapshot, section, splices)?;
            }
            splices.replace(
                with_white_space_before(text, place_of(snapshot).range()),
                "",
            );
            let is_snapshot = |node: &Node<'_, '_>| node.tag_name().name() == "Snapshot";
            let before = snapshot.ancestors().skip(1).find(is_snapshot);
            let current = before.and_then(|before| before.attribute("uuid"));
            splices.set_attribute(text, machine, "currentSnapshot", current)?;
            let state_file = snapshot
                .attribute("stateFile")
                .filter(|file| !file.is_empty());
            splices.set_attribute(text, machine, "stateFile", state_file)?;
            splices.set_attribute(text, machine, "aborted", None)
        })
    }
}

/// The element of a VirtualBox snapshot.
pub(super) fn find<'a, 'input>(
    machine: Node<'a, 'input>,
    id: VirtualBoxSnapshotId,
) -> Result<Node<'a, 'input>> {
    let is_it = |node: &Node<'_, '_>| {
        let named = node.attribute("uuid").and_then(|id| id.parse().ok());
        named == Some(id)
    };
    descendants(machine, "Snapshot")
        .find(is_it)
        .ok_or_else(|| Error::settings(format!("they have no VirtualBox snapshot {id}")))
}

/// Puts a section of the VirtualBox snapshot in place of the machine's.
fn take_over(
    text: &str,
    machine: Node<'_, '_>,
    snapshot: Node<'_, '_>,
    section: &str,
    splices: &mut Splices,
) -> Result<()> {
    match (child(machine, section), child(snapshot, section)) {
        (Some(present), Some(former)) => {
            let former = text.get(former.range()).unwrap_or_default();
            splices.replace(present.range(), former);
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err(Error::settings(format!(
            "machine and VirtualBox snapshot do not both have a <{section}>"
        ))),
    }
}

/// The element that goes with the last VirtualBox snapshot of a list.
pub(super) fn place_of<'a, 'input>(snapshot: Node<'a, 'input>) -> Node<'a, 'input> {
    let list = snapshot
        .parent_element()
        .filter(|parent| parent.tag_name().name() == "Snapshots");
    let is_only = |list: &Node<'a, 'input>| children(*list, "Snapshot").count() == 1;
    list.filter(is_only).unwrap_or(snapshot)
}
