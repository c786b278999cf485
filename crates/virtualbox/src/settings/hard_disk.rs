//! Media registries: the images that a settings file knows.

use roxmltree::Node;

use super::document::{child, children, flag, required};
use super::tree::walk;
use crate::error::Result;
use crate::id::MediumId;

/// A hard disk image and the differencing images on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardDisk {
    /// Its id.
    pub id: MediumId,
    /// Where it is: a path, relative to the machine folder or absolute, or another address.
    pub location: String,
    /// Its format, such as `VDI`.
    pub format: String,
    /// Its type, such as `Normal` or `Immutable`; only base images have one.
    pub kind: Option<String>,
    /// Whether it is emptied at each start of the machine, as above an immutable image.
    pub auto_reset: bool,
    /// Whether its contents are encrypted.
    pub is_encrypted: bool,
    /// Differencing images whose parent it is.
    pub children: Vec<HardDisk>,
}

impl HardDisk {
    /// This image and all above it, parents first.
    pub fn walk(&self) -> impl Iterator<Item = &Self> {
        walk(self, |node| &node.children)
    }

    pub(super) fn parse(node: Node<'_, '_>) -> Result<Self> {
        Ok(Self {
            id: required(node, "uuid", "UUID")?,
            location: required(node, "location", "path")?,
            format: node.attribute("format").unwrap_or_default().to_owned(),
            kind: node.attribute("type").map(ToOwned::to_owned),
            auto_reset: flag(node, "autoReset"),
            is_encrypted: children(node, "Property").any(is_key),
            children: children(node, "HardDisk")
                .map(Self::parse)
                .collect::<Result<_>>()?,
        })
    }
}

/// An encrypted image has properties `CRYPT/KeyId` and `CRYPT/KeyStore`.
fn is_key(property: Node<'_, '_>) -> bool {
    property
        .attribute("name")
        .is_some_and(|name| name.starts_with("CRYPT/"))
}

/// A DVD or floppy image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovableImage {
    /// Its id.
    pub id: MediumId,
    /// Where it is.
    pub location: String,
}

/// What `<MediaRegistry>` lists.
#[derive(Debug, Default)]
pub(super) struct MediaRegistry {
    pub(super) hard_disks: Vec<HardDisk>,
    pub(super) dvd_images: Vec<RemovableImage>,
    pub(super) floppy_images: Vec<RemovableImage>,
}

impl MediaRegistry {
    pub(super) fn parse(machine: Node<'_, '_>) -> Result<Self> {
        let Some(registry) = child(machine, "MediaRegistry") else {
            return Ok(Self::default());
        };
        let hard_disks = child(registry, "HardDisks")
            .into_iter()
            .flat_map(|disks| children(disks, "HardDisk"));
        Ok(Self {
            hard_disks: hard_disks.map(HardDisk::parse).collect::<Result<_>>()?,
            dvd_images: removable_images(registry, "DVDImages")?,
            floppy_images: removable_images(registry, "FloppyImages")?,
        })
    }
}

fn removable_images(registry: Node<'_, '_>, list: &str) -> Result<Vec<RemovableImage>> {
    let images = child(registry, list)
        .into_iter()
        .flat_map(|images| children(images, "Image"));
    let image = |node| {
        Ok(RemovableImage {
            id: required(node, "uuid", "UUID")?,
            location: required(node, "location", "path")?,
        })
    };
    images.map(image).collect()
}
