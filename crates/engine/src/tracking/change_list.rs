//! Change lists: the heads of an image as it is stored, and of the differencing images that were merged into
//! it since, kept from one snapshot to the next.
//!
//! Why it is right: docs/design/tracking.md. Guarantees: a head that was damaged since is recognised by its
//! checksum and never used. Not guaranteed: that nobody else wrote to the image; [`super::differencing`] looks.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vrs_vdisk::{VdiHead, kept_ranges};
use vrs_virtualbox::{MachineId, MediumId};

use super::record;
use crate::host::Host;
use crate::platform;

/// What tells which blocks of a base image are as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeList {
    /// The image as it is stored.
    pub(crate) stored: HeldHead,
    /// What was merged into it since, before the differencing image that the guest writes to now.
    pub(crate) merged: Vec<HeldHead>,
    /// That differencing image.
    pub(crate) active: MediumId,
}

impl ChangeList {
    pub(crate) fn own_files(&self) -> impl Iterator<Item = &Path> {
        let heads = std::iter::once(&self.stored).chain(&self.merged);
        heads.map(|head| head.path.as_path())
    }

    /// Ranges of the image that are as they are stored, now that it has the head `now`. `last` is that of
    /// the differencing image that was merged into it just before.
    pub(crate) fn unchanged(
        &self,
        last: Option<&VdiHead>,
        now: &VdiHead,
    ) -> Result<Vec<Range<u64>>, String> {
        let stored = self.stored.load()?;
        let earlier = self.merged.iter().map(HeldHead::load);
        let mut merged = earlier.collect::<Result<Vec<_>, _>>()?;
        merged.extend(last.cloned());
        kept_ranges(&stored, &merged, now).map_err(|fault| fault.to_string())
    }
}

/// Header and block map of an image, in a file of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldHead {
    pub(crate) path: PathBuf,
    /// BLAKE3 of the file, in hexadecimal.
    checksum: String,
    /// Length of the image.
    pub(crate) image_bytes: u64,
}

impl HeldHead {
    /// Keeps a head of an image of that length at a path that [`new_path`] gave. Durable on return.
    pub(crate) fn keep(head: &VdiHead, image_bytes: u64, path: PathBuf) -> Result<Self, String> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        platform::create_private_folder(folder).map_err(|error| error.to_string())?;
        head.save(&path).map_err(|error| error.to_string())?;
        let content = std::fs::read(&path).map_err(|error| error.to_string())?;
        Ok(Self {
            path,
            checksum: checksum_of(&content),
            image_bytes,
        })
    }

    /// Fails where the file is not the one that was kept.
    fn load(&self) -> Result<VdiHead, String> {
        let content = std::fs::read(&self.path).ok();
        let content = content
            .filter(|content| checksum_of(content) == self.checksum)
            .ok_or("what was kept of its block map is gone or damaged")?;
        let head = VdiHead::read(self.image_bytes, |offset_bytes, buffer: &mut [u8]| {
            copy_from(&content, offset_bytes, buffer);
            Ok::<_, String>(())
        });
        head?.map_err(|fault| fault.to_string())
    }
}

/// What lies behind the end is data of the image, which was not kept.
fn copy_from(content: &[u8], offset_bytes: u64, buffer: &mut [u8]) {
    let start = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
    let kept = content.get(start..).unwrap_or_default();
    let kept = kept.iter().chain(std::iter::repeat(&0));
    buffer
        .iter_mut()
        .zip(kept)
        .for_each(|(to, from)| *to = *from);
}

fn checksum_of(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// A path for a head that nothing has.
pub(crate) fn new_path(host: &Host, machine: MachineId) -> PathBuf {
    record::folder(host).join(format!("{machine}-{}.head", Uuid::new_v4()))
}

/// All heads that are kept for a machine.
pub(crate) fn heads_of(host: &Host, machine: MachineId) -> Vec<PathBuf> {
    let prefix = format!("{machine}-");
    let entries = std::fs::read_dir(record::folder(host));
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let is_head = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".head"))
    };
    paths.filter(is_head).collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use vrs_vdisk::{VdiCreate, VdiHeader, VdiVariant, VdiWriter};

    const MIB: u64 = 1 << 20;

    fn image(folder: &Path, name: &str, variant: VdiVariant, blocks: &[u64]) -> PathBuf {
        let path = folder.join(name);
        let create = VdiCreate::new(variant, 8 * MIB);
        let mut writer = VdiWriter::create(&path, create).unwrap();
        for block in blocks {
            let bytes = vec![block.to_le_bytes()[0] + 1; usize::try_from(MIB).unwrap()];
            writer.write_at(block * MIB, &bytes).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn on(parent: &Path) -> VdiVariant {
        let uuids = VdiHeader::read(parent).unwrap().uuids;
        VdiVariant::Differencing {
            parent: uuids.creation,
            parent_modification: uuids.modification,
        }
    }

    fn held(image: &Path) -> HeldHead {
        let length = std::fs::metadata(image).unwrap().len();
        let head = VdiHead::of_image(image).unwrap();
        HeldHead::keep(&head, length, image.with_extension("head")).unwrap()
    }

    #[test]
    fn what_no_merged_image_has_is_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let base = image(folder, "base.vdi", VdiVariant::Dynamic, &[0, 1, 2, 3]);
        let first = image(folder, "first.vdi", on(&base), &[1]);
        let last = image(folder, "last.vdi", on(&base), &[3]);
        let list = ChangeList {
            stored: held(&base),
            merged: vec![held(&first)],
            active: Uuid::from_u128(1).into(),
        };
        let now = VdiHead::of_image(&base).unwrap();
        let data = now.header().data_offset_bytes;
        let block = |number: u64| data + number * MIB..data + (number + 1) * MIB;
        let last = VdiHead::of_image(&last).unwrap();
        let unchanged = list.unchanged(Some(&last), &now).unwrap();
        assert_eq!(unchanged, [block(0), block(2)]);
        assert_eq!(
            list.unchanged(None, &now).unwrap(),
            [block(0), block(2).start..block(3).end]
        );
    }

    #[test]
    fn a_head_that_was_damaged_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let base = image(folder.path(), "base.vdi", VdiVariant::Dynamic, &[0, 1]);
        let stored = held(&base);
        let list = ChangeList {
            stored: stored.clone(),
            merged: Vec::new(),
            active: Uuid::from_u128(1).into(),
        };
        let now = VdiHead::of_image(&base).unwrap();
        let content = std::fs::read(&stored.path).unwrap();
        for at in (0..content.len()).step_by(9973) {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            std::fs::write(&stored.path, damaged).unwrap();
            assert!(list.unchanged(None, &now).is_err(), "{at}");
        }
        std::fs::remove_file(&stored.path).unwrap();
        assert!(list.unchanged(None, &now).is_err());
    }
}
