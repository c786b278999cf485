//! Random sequences of what VirtualBox does to a disk (write, take a VirtualBox snapshot, delete
//! one, compact) against a plain array of bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{child_of, contents, noise};
use vrs_progress::NoProgress;
use vrs_vdisk::{
    BlockEntry, Chain, ExportFormat, Extent, ExtentKind, GuestDisk, VdiCreate, VdiHeader, VdiImage,
    VdiUuids, VdiVariant, VdiWriter, export, set_uuids,
};

const BLOCK_BYTES: u32 = 128 << 10;
/// The last block is cut.
const CAPACITY: usize = 11 * BLOCK_BYTES as usize + 3 * 512;

#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: usize,
        length: usize,
        seed: u64,
    },
    WriteZeros {
        offset: usize,
        length: usize,
    },
    /// Freezes the leaf and puts a differencing image on it.
    TakeVirtualBoxSnapshot,
    /// Merges a differencing image into its parent, whose place it then takes.
    Merge {
        which: prop::sample::Index,
    },
    /// Rewrites an image without its blocks of zeros, in another order.
    Compact {
        which: prop::sample::Index,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..CAPACITY;
    let length = prop_oneof![1..2000_usize, Just(BLOCK_BYTES as usize), 1..CAPACITY];
    let aligned = (0..12_usize).prop_map(|block| block * BLOCK_BYTES as usize);
    let which = any::<prop::sample::Index>;
    prop_oneof![
        4 => (offset.clone(), length.clone(), any::<u64>())
            .prop_map(|(offset, length, seed)| Step::Write { offset, length, seed }),
        2 => (prop_oneof![offset, aligned], length)
            .prop_map(|(offset, length)| Step::WriteZeros { offset, length }),
        2 => Just(Step::TakeVirtualBoxSnapshot),
        1 => which().prop_map(|which| Step::Merge { which }),
        1 => which().prop_map(|which| Step::Compact { which }),
    ]
}

/// A disk and what its bytes should be.
struct Disk {
    folder: tempfile::TempDir,
    /// The base first.
    images: Vec<PathBuf>,
    expected: Vec<u8>,
    created: usize,
}

impl Disk {
    fn new(variant: VdiVariant) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Self {
            folder,
            images: Vec::new(),
            expected: vec![0; CAPACITY],
            created: 0,
        };
        disk.add_image(variant);
        disk
    }

    fn add_image(&mut self, variant: VdiVariant) {
        self.created += 1;
        let path = self.folder.path().join(format!("{}.vdi", self.created));
        create(
            &path,
            VdiCreate {
                block_size_bytes: BLOCK_BYTES,
                ..VdiCreate::new(variant, CAPACITY as u64)
            },
        );
        self.images.push(path);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write {
                offset,
                length,
                seed,
            } => {
                self.write(*offset, &noise(*seed, (*length).min(CAPACITY - offset)));
            }
            Step::WriteZeros { offset, length } => {
                let offset = (*offset).min(CAPACITY - 1);
                self.write(offset, &vec![0; (*length).min(CAPACITY - offset)]);
            }
            Step::TakeVirtualBoxSnapshot => {
                let header = VdiHeader::read(self.images.last().unwrap()).unwrap();
                self.add_image(child_of(&header));
            }
            Step::Merge { which } if self.images.len() > 1 => {
                self.merge(1 + which.index(self.images.len() - 1));
            }
            Step::Merge { .. } => {}
            Step::Compact { which } => {
                let path = self.images[which.index(self.images.len())].clone();
                compact(&path);
            }
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.expected[offset..][..bytes.len()].copy_from_slice(bytes);
        let (leaf, parents) = self.images.split_last().unwrap();
        let mut writer = VdiWriter::open(leaf).unwrap();
        if let Some(parent) = parents.last() {
            writer = writer.with_parent(open(parent));
        }
        writer.write_at(offset as u64, bytes).unwrap();
        writer.finish().unwrap();
    }

    fn merge(&mut self, index: usize) {
        let child = self.images.remove(index);
        let parent = &self.images[index - 1];
        copy_blocks(&child, &mut VdiWriter::open(parent).unwrap());
        fs::remove_file(&child).unwrap();
        if let Some(grandchild) = self.images.get(index) {
            let uuids = VdiHeader::read(grandchild).unwrap().uuids;
            let parent = VdiHeader::read(parent).unwrap().uuids.creation;
            set_uuids(grandchild, &VdiUuids { parent, ..uuids }).unwrap();
        }
    }

    fn verify(&self) {
        let disk = open(self.images.last().unwrap());
        assert!(contents(&disk) == self.expected, "the disk's bytes");
        let extents: Vec<Extent> = disk.extents().collect();
        self.verify_extents(&extents);
        for image in &self.images {
            let report = VdiImage::open(image).unwrap().block_map().check();
            assert_eq!(report.findings, [], "{}", image.display());
            let header = VdiHeader::read(image).unwrap();
            assert_eq!(header.allocated_blocks, report.allocated_blocks);
        }
    }

    fn verify_extents(&self, extents: &[Extent]) {
        let mut end = 0;
        for extent in extents {
            assert_eq!(extent.offset_bytes, end, "no gaps, no overlaps");
            end += extent.length_bytes;
            let bytes = &self.expected[extent.offset_bytes as usize..end as usize];
            let is_data = extent.kind == ExtentKind::Data;
            assert!(is_data || bytes.iter().all(|byte| *byte == 0), "{extent:?}");
            assert_eq!(
                extent.layer.is_none(),
                extent.kind == ExtentKind::Unallocated
            );
        }
        assert_eq!(end, CAPACITY as u64);
        let alike =
            |pair: &[Extent]| (pair[0].kind, pair[0].layer) == (pair[1].kind, pair[1].layer);
        assert!(
            !extents.windows(2).any(alike),
            "neighbours of one sort are joined"
        );
    }
}

fn create(path: &Path, create: VdiCreate) {
    VdiWriter::create(path, create).unwrap().finish().unwrap();
}

fn open(leaf: &Path) -> GuestDisk {
    GuestDisk::open(&Chain::resolve(leaf, &[]).unwrap()).unwrap()
}

/// Writes what `from` says about each block, from the last one down.
fn copy_blocks(from: &Path, to: &mut VdiWriter) {
    let image = VdiImage::open(from).unwrap();
    for block in (0..image.block_map().len()).rev() {
        let offset = block as usize * BLOCK_BYTES as usize;
        let mut bytes = vec![0xee; (BLOCK_BYTES as usize).min(CAPACITY - offset)];
        if image.read_block(block, &mut bytes).unwrap() != BlockEntry::Free {
            to.write_at(offset as u64, &bytes).unwrap();
        }
    }
}

fn compact(path: &Path) {
    let header = VdiHeader::read(path).unwrap();
    if header.image_type == vrs_vdisk::VdiImageType::Fixed {
        return;
    }
    let variant = match header.parent() {
        None => VdiVariant::Dynamic,
        Some(parent) => VdiVariant::Differencing {
            parent,
            parent_modification: header.uuids.parent_modification,
        },
    };
    let compacted = path.with_extension("compacted");
    let capacity_bytes = header.capacity_bytes;
    let uuid = header.uuids.creation;
    let create = VdiCreate {
        variant,
        capacity_bytes,
        block_size_bytes: BLOCK_BYTES,
        uuid,
    };
    let mut writer = VdiWriter::create(&compacted, create).unwrap();
    copy_blocks(path, &mut writer);
    writer.finish().unwrap();
    fs::rename(compacted, path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_reads_as_written_whatever_becomes_of_its_images(
        is_fixed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..24),
        reads in prop::collection::vec((0..CAPACITY, 0..CAPACITY), 8),
    ) {
        let variant = if is_fixed { VdiVariant::Fixed } else { VdiVariant::Dynamic };
        let mut disk = Disk::new(variant);
        for step in &steps {
            disk.apply(step);
            disk.verify();
        }
        let guest = open(disk.images.last().unwrap());
        for (offset, length) in reads {
            let mut bytes = vec![0xee; length.min(CAPACITY - offset)];
            guest.read_at(offset as u64, &mut bytes).unwrap();
            prop_assert!(bytes == disk.expected[offset..][..bytes.len()]);
        }
        let raw = disk.folder.path().join("export.raw");
        export(&guest, &raw, ExportFormat::Raw, &NoProgress).unwrap();
        prop_assert!(fs::read(&raw).unwrap() == disk.expected);
        let copy = disk.folder.path().join("export.vdi");
        export(&guest, &copy, ExportFormat::Vdi, &NoProgress).unwrap();
        prop_assert!(contents(&open(&copy)) == disk.expected);
    }
}
