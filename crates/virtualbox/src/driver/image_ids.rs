//! Ids inside image files.
//!
//! `VBoxManage` changes them in every format that VirtualBox has. Tried on VMDK and VHD chains with
//! 7.2.22: only the ids change (and the VHD's checksum), VirtualBox then registers the chain under
//! the new ones. The images must not be open in VirtualBox, which would go on with the old ones.

use std::path::Path;

use super::VBoxManage;
use super::machines::absolute;
use crate::error::{Error, Result};
use crate::id::MediumId;

/// The ids in the header of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageIds {
    /// Its own.
    pub id: MediumId,
    /// Its parent's, in a differencing image.
    pub parent: Option<MediumId>,
}

impl ImageIds {
    /// Reads the output of `internalcommands dumphdinfo`, where the image's path comes first and may
    /// contain anything: the last lines count.
    fn parse(text: &str) -> Option<Self> {
        let id_of = |label: &str| {
            let mut values = text.lines().filter_map(|line| {
                line.strip_prefix("Header: ")?
                    .strip_prefix(label)?
                    .strip_prefix('=')
            });
            values.next_back()?.parse::<MediumId>().ok()
        };
        Some(Self {
            id: id_of("uuidCreation")?,
            parent: id_of("uuidParent").filter(|parent| !parent.uuid().is_nil()),
        })
    }
}

impl VBoxManage {
    /// The ids in an image file.
    pub fn image_ids(&self, image: &Path) -> Result<ImageIds> {
        let image = absolute(image)?;
        let arguments = [
            "internalcommands".as_ref(),
            "dumphdinfo".as_ref(),
            image.as_os_str(),
        ];
        let text = self.ask(arguments)?;
        ImageIds::parse(&text)
            .ok_or_else(|| self.output_error(arguments, "it has no line uuidCreation=".to_owned()))
    }

    /// Gives an image file another id.
    pub fn set_image_uuid(&self, image: &Path, id: MediumId) -> Result<()> {
        self.set_image_id("sethduuid", image, id, |ids| ids.id == id)
    }

    /// Makes a differencing image that of another parent. Nothing else makes it fit that parent.
    pub fn set_image_parent_uuid(&self, image: &Path, parent: MediumId) -> Result<()> {
        self.set_image_id("sethdparentuuid", image, parent, |ids| {
            ids.parent == Some(parent)
        })
    }

    fn set_image_id(
        &self,
        verb: &str,
        image: &Path,
        id: MediumId,
        is_done: impl Fn(ImageIds) -> bool,
    ) -> Result<()> {
        let image = absolute(image)?;
        let id = id.to_string();
        let arguments = [
            "internalcommands".as_ref(),
            verb.as_ref(),
            image.as_os_str(),
            id.as_ref(),
        ];
        // Like a question this disturbs nobody: no machine has the image, VirtualBox is not told.
        self.ask(arguments)?;
        let ids = self.image_ids(&image)?;
        if is_done(ids) {
            return Ok(());
        }
        let parent = ids
            .parent
            .map_or_else(|| "none".to_owned(), |parent| parent.to_string());
        Err(Error::NotDone {
            command: self.shown(arguments),
            problem: format!("the image has id {} and parent {parent}", ids.id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_header() {
        let text = include_str!("../../tests/recorded/7.2.22/dumphdinfo-vmdk-differencing.txt");
        let ids = ImageIds::parse(text).unwrap();
        assert_eq!(ids.id.to_string(), "43d62a44-117e-4be0-80a5-a80a7210084a");
        assert_eq!(
            ids.parent.unwrap().to_string(),
            "6ccddab1-2b3a-4665-9c16-f51327ce8e14"
        );
        let base = text.replace(
            "6ccddab1-2b3a-4665-9c16-f51327ce8e14",
            "00000000-0000-0000-0000-000000000000",
        );
        assert_eq!(ImageIds::parse(&base).unwrap().parent, None);
        assert_eq!(ImageIds::parse("--- Dumping VD Disk, Images=0\n"), None);
    }
}
