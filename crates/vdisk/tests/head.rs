//! Heads that a crash turned into garbage, put together again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{MIB, contents, create, disk, noise, write};
use vrs_vdisk::{Error, HeadFault, MendedHead, VdiHead, VdiImage, VdiVariant};

/// An image of 8 blocks with two of them stored, and its head.
struct Patient {
    _folder: tempfile::TempDir,
    path: PathBuf,
    earlier: VdiHead,
}

impl Patient {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 8 * MIB);
        write(&path, 3 * MIB, &noise(1, MIB as usize));
        write(&path, 0, &noise(2, MIB as usize));
        let earlier = VdiHead::of_image(&path).unwrap();
        Self {
            _folder: folder,
            path,
            earlier,
        }
    }

    /// The guest writes a block that it had not written before.
    fn grow(&self, block: u64) {
        write(&self.path, block * MIB, &noise(10 + block, MIB as usize));
    }

    fn contents(&self) -> Vec<u8> {
        contents(&disk(&self.path))
    }

    fn map_offset(&self) -> u64 {
        self.earlier.header().block_map_offset_bytes
    }

    fn mend(&self) -> Result<MendedHead, Error> {
        self.earlier.mend(&self.path)
    }

    /// Mends, writes, and looks.
    fn mended(&self) -> (MendedHead, Vec<u8>) {
        let mended = self.mend().unwrap();
        mended.head.write(&self.path).unwrap();
        let image = VdiImage::open(&self.path).unwrap();
        assert_eq!(image.block_map().check().findings, []);
        (mended, self.contents())
    }
}

fn assert_same(left: &VdiHead, right: &VdiHead) {
    let map = |head: &VdiHead| head.block_map().entries().collect::<Vec<_>>();
    assert_eq!((left.header(), map(left)), (right.header(), map(right)));
}

fn overwrite(path: &Path, offset_bytes: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset_bytes)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_lost_header_costs_nothing_even_if_the_disk_grew_since() {
    let patient = Patient::new();
    patient.grow(5);
    let before = patient.contents();
    overwrite(&patient.path, 0, &noise(3, 512));
    assert!(VdiImage::open(&patient.path).is_err());
    let (mended, after) = patient.mended();
    assert!(after == before);
    assert!(mended.map_is_kept && mended.unplaced_blocks == 0);
    assert_eq!(mended.head.header().allocated_blocks, 3);
    // The next new block goes behind the last one.
    patient.grow(6);
    assert!(patient.contents()[..6 * MIB as usize] == before[..6 * MIB as usize]);
}

#[test]
fn a_lost_map_comes_from_the_earlier_head() {
    let patient = Patient::new();
    let before = patient.contents();
    for garbage in [vec![0; 32], noise(4, 32), vec![0, 0, 0, 0, 1, 1, 1, 1]] {
        overwrite(&patient.path, patient.map_offset(), &garbage);
        let (mended, after) = patient.mended();
        assert!(after == before);
        assert!(!mended.map_is_kept && mended.unplaced_blocks == 0);
    }
}

#[test]
fn blocks_added_since_are_kept_where_their_entries_are_whole() {
    let patient = Patient::new();
    patient.grow(5);
    let before = patient.contents();
    overwrite(&patient.path, patient.map_offset(), &[0; 16]);
    let (mended, after) = patient.mended();
    assert!(after == before);
    assert_eq!(mended.unplaced_blocks, 0);
}

#[test]
fn blocks_whose_entries_are_gone_are_counted() {
    let patient = Patient::new();
    patient.grow(5);
    patient.grow(6);
    let before = patient.contents();
    overwrite(&patient.path, patient.map_offset(), &noise(5, 32));
    let (mended, after) = patient.mended();
    assert!(after[..4 * MIB as usize] == before[..4 * MIB as usize]);
    assert_eq!(mended.unplaced_blocks, 2);
    patient.grow(1);
    assert!(
        patient.contents()[2 * MIB as usize..4 * MIB as usize]
            == before[2 * MIB as usize..4 * MIB as usize]
    );
}

#[test]
fn what_cannot_be_told_is_refused() {
    let patient = Patient::new();
    overwrite(&patient.path, 0, &[0; 512]);
    let fault = |error| match error {
        Error::Head { fault, .. } => fault,
        other => panic!("{other}"),
    };
    // All ones look like a disk without data.
    overwrite(&patient.path, patient.map_offset(), &[0xff; 32]);
    assert_eq!(
        fault(patient.mend().unwrap_err()),
        HeadFault::Moved { blocks: 2 }
    );
    overwrite(&patient.path, patient.map_offset(), &[0; 32]);
    let file = OpenOptions::new().write(true).open(&patient.path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 1).unwrap();
    assert_eq!(fault(patient.mend().unwrap_err()), HeadFault::Shrunk);
    file.set_len(100).unwrap();
    assert!(matches!(
        fault(patient.mend().unwrap_err()),
        HeadFault::Header(_)
    ));
}

#[test]
fn a_count_that_is_too_low_is_put_right_without_an_earlier_head() {
    let patient = Patient::new();
    let before = patient.contents();
    overwrite(&patient.path, 388, &[1]);
    let head = VdiHead::of_image(&patient.path).unwrap();
    assert_eq!(head.block_map().check().findings.len(), 1);
    head.counted().write(&patient.path).unwrap();
    assert_eq!(VdiHead::of_image(&patient.path).unwrap(), patient.earlier);
    assert!(patient.contents() == before);
}

#[test]
fn a_head_survives_being_saved_and_what_it_replaces_is_kept() {
    let patient = Patient::new();
    let (saved, kept) = (
        patient.path.with_extension("head"),
        patient.path.with_extension("old"),
    );
    patient.earlier.save(&saved).unwrap();
    assert_same(&VdiHead::of_image(&saved).unwrap(), &patient.earlier);
    patient.earlier.keep_replaced(&patient.path, &kept).unwrap();
    overwrite(&patient.path, 0, &[7; 2048]);
    VdiHead::of_image(&kept)
        .unwrap()
        .write(&patient.path)
        .unwrap();
    assert_eq!(VdiHead::of_image(&patient.path).unwrap(), patient.earlier);
    assert!(patient.earlier.keep_replaced(&patient.path, &kept).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happened to head and length: no panic, and what is answered names only places in
    /// the file, each once.
    #[test]
    fn any_damage_is_mended_soundly_or_refused(
        damage in proptest::collection::vec((0_u64..1100, proptest::collection::vec(any::<u8>(), 1..64)), 1..6),
        cut in 0_u64..3 * MIB,
    ) {
        let patient = Patient::new();
        patient.grow(5);
        for (offset, bytes) in damage {
            overwrite(&patient.path, offset, &bytes);
        }
        let file = OpenOptions::new().write(true).open(&patient.path).unwrap();
        if cut < MIB {
            let length = file.metadata().unwrap().len();
            file.set_len(length - cut).unwrap();
        }
        if let Ok(mended) = patient.mend() {
            mended.head.write(&patient.path).unwrap();
            let findings = VdiImage::open(&patient.path).unwrap().block_map().check().findings;
            prop_assert!(findings.iter().all(|finding| matches!(finding, vrs_vdisk::Finding::Unused { .. })), "{findings:?}");
        }
    }
}
