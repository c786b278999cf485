//! Merging images, as the deletion of a VirtualBox snapshot does.

use std::fs;

use uuid::Uuid;

use super::document::Element;
use super::machine::Machine;
use super::media::Medium;
use super::registry::Registry;
use super::snapshots::braced;
use crate::image;

/// What the merge of two images means for settings.
pub(super) struct Merge {
    gone: Uuid,
    /// The parent of what is gone.
    parent: Uuid,
    kept: Option<Uuid>,
}

/// Merges an image with its only child, or removes it if it has none. Where the base image is
/// involved the child goes into it; otherwise the smaller file goes into the larger one.
pub(super) fn merge(registry: &Registry, machine: &Machine, id: Uuid) -> Option<Merge> {
    let image = machine.medium(id)?;
    if !machine.takes_part_in_snapshots(id) {
        return None;
    }
    let children = registry.children_of(id);
    let Some(child) = children.first().and_then(|child| machine.medium(*child)) else {
        let gone = image.parent.is_some().then_some(image)?;
        fs::remove_file(&gone.location).expect("the image");
        return Some(Merge {
            gone: id,
            parent: gone.parent?,
            kept: None,
        });
    };
    let size_bytes = |medium: &Medium| fs::metadata(&medium.location).expect("the image").len();
    let is_backward = image.parent.is_none() || size_bytes(image) > size_bytes(child);
    let (gone, kept) = if is_backward {
        image::merge(&child.location, &image.location);
        for grandchild in registry
            .media()
            .filter(|medium| medium.parent == Some(child.id))
        {
            image::set_parent(&grandchild.location, image.id);
        }
        (child, image)
    } else {
        image::merge_into_child(&image.location, &child.location);
        image::set_parent(&child.location, image.parent.expect("a parent"));
        (image, child)
    };
    fs::remove_file(&gone.location).expect("the image");
    Some(Merge {
        gone: gone.id,
        parent: gone.parent?,
        kept: Some(kept.id),
    })
}

impl Merge {
    /// Puts the result into the settings.
    pub(super) fn settle(&self, settings: &mut Element) {
        // What was on it comes behind what else is on its parent.
        let mut children = Vec::new();
        settings.replace("HardDisk", self.gone, &mut |gone| {
            children = gone.children;
            Vec::new()
        });
        let parent = settings.find("HardDisk", self.parent);
        parent.expect("a parent").children.extend(children);
        if let Some(kept) = self.kept {
            settings.for_each("Image", &mut |image| {
                if image.has_id(self.gone) {
                    image.set("uuid", Some(&braced(kept)));
                }
            });
        }
    }
}
