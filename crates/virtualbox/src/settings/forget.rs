//! Settings as they are once the latest VirtualBox snapshot was deleted.

use roxmltree::Node;

use super::document::{self, child, children, descendants};
use super::edit::SettingsEdit;
use super::roll_back::{find, place_of};
use super::splice::{Splices, with_white_space_before};
use crate::error::{Error, Result};
use crate::id::{MediumId, VirtualBoxSnapshotId};

impl SettingsEdit<'_> {
    /// Takes the VirtualBox snapshot that the machine's current state is based on out, as
    /// `VBoxManage snapshot delete` would: the base images are attached into which the images that came with
    /// it are merged then, and those are not in the media registry any more.
    ///
    /// # Errors
    /// When it is not the only one, or an attached image is not a differencing image, on which nothing is
    /// based, of a base image that the machine's own registry names.
    pub fn forget_only(&mut self, id: VirtualBoxSnapshotId) -> Result<()> {
        self.change(|text, machine, splices| {
            let snapshot = find(machine, id)?;
            if descendants(machine, "Snapshot").count() != 1 {
                return Err(Error::settings(format!(
                    "{id} is not their only VirtualBox snapshot"
                )));
            }
            for image in attached_images(machine, snapshot) {
                attach_parent(text, machine, image, splices)?;
            }
            splices.replace(
                with_white_space_before(text, place_of(snapshot).range()),
                "",
            );
            splices.set_attribute(text, machine, "currentSnapshot", None)?;
            splices.set_attribute(text, machine, "currentStateModified", None)
        })
    }
}

/// What hard disk drives of the machine as it is now hold.
fn attached_images<'a, 'input>(
    machine: Node<'a, 'input>,
    snapshot: Node<'a, 'input>,
) -> impl Iterator<Item = Node<'a, 'input>> {
    let is_now = move |device: &Node<'a, 'input>| {
        let is_disk = device.attribute("type") == Some("HardDisk");
        is_disk && device.ancestors().all(|above| above != snapshot)
    };
    descendants(machine, "AttachedDevice")
        .filter(is_now)
        .filter_map(|device| child(device, "Image"))
}

fn attach_parent(
    text: &str,
    machine: Node<'_, '_>,
    image: Node<'_, '_>,
    splices: &mut Splices,
) -> Result<()> {
    let id: MediumId = document::required(image, "uuid", "UUID")?;
    let unfit = || Error::settings(format!("image {id} is not merged into a base image"));
    let is_disk = |node: &Node<'_, '_>| node.tag_name().name() == "HardDisk";
    let listed = children(machine, "MediaRegistry")
        .flat_map(|registry| descendants(registry, "HardDisk"))
        .find(|disk| {
            disk.attribute("uuid")
                .is_some_and(|other| other.parse() == Ok(id))
        })
        .filter(|disk| child(*disk, "HardDisk").is_none());
    let listed = listed.ok_or_else(unfit)?;
    let base = listed.parent_element().filter(is_disk).ok_or_else(unfit)?;
    let is_base = base.parent_element().is_some_and(|above| !is_disk(&above));
    let (true, Some(uuid)) = (is_base, base.attribute("uuid")) else {
        return Err(unfit());
    };
    splices.set_attribute(text, image, "uuid", Some(uuid))?;
    splices.replace(with_white_space_before(text, listed.range()), "");
    Ok(())
}
