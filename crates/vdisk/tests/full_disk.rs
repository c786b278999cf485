//! A disk that is full gives an error, and what was there before stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::error::Error as _;

use support::{MIB, contents, create, disk, noise, write};
use vrs_progress::NoProgress;
use vrs_testkit::TinyDisk;
use vrs_vdisk::{
    Error, ErrorKind, ExportFormat, VdiCreate, VdiImage, VdiVariant, VdiWriter, export,
};

fn assert_is_full(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Io);
    let cause = error.source().unwrap().to_string();
    assert!(
        cause.contains("No space left on device"),
        "{error}: {cause}"
    );
}

#[test]
#[ignore = "needs to mount a file system; scripts/test runs it"]
fn an_export_that_does_not_fit_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let image = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 6 * MIB);
    write(&image, 0, &noise(1, 6 * MIB as usize));
    let tiny = TinyDisk::mount(3 * MIB);
    for format in [ExportFormat::Raw, ExportFormat::Vdi] {
        let target = tiny.path().join("copy");
        let error = export(&disk(&image), &target, format, &NoProgress).unwrap_err();
        assert_is_full(&error);
        assert_eq!(
            std::fs::read_dir(tiny.path()).unwrap().count(),
            0,
            "{format:?}"
        );
    }
}

#[test]
#[ignore = "needs to mount a file system; scripts/test runs it"]
fn an_image_that_cannot_grow_keeps_what_it_has_and_goes_on_later() {
    let tiny = TinyDisk::mount(4 * MIB);
    let ballast = tiny.path().join("ballast");
    std::fs::write(&ballast, vec![1; MIB as usize]).unwrap();
    let image = create(tiny.path(), "disk.vdi", VdiVariant::Dynamic, 8 * MIB);
    write(&image, 0, &noise(1, 2 * MIB as usize));
    let mut writer = VdiWriter::open(&image).unwrap();
    let error = writer
        .write_at(4 * MIB, &noise(2, 2 * MIB as usize))
        .unwrap_err();
    assert_is_full(&error);
    drop(writer);
    assert_eq!(
        VdiImage::open(&image).unwrap().block_map().check().findings,
        []
    );
    assert!(contents(&disk(&image))[..2 * MIB as usize] == noise(1, 2 * MIB as usize));
    std::fs::remove_file(ballast).unwrap();
    write(&image, 4 * MIB, &noise(2, MIB as usize));
    assert!(contents(&disk(&image))[4 * MIB as usize..][..MIB as usize] == noise(2, MIB as usize));
}

#[test]
#[ignore = "needs to mount a file system; scripts/test runs it"]
fn an_image_that_cannot_be_created_is_not_in_the_way() {
    let tiny = TinyDisk::mount(MIB / 2);
    let path = tiny.path().join("disk.vdi");
    let large = VdiCreate::new(VdiVariant::Dynamic, MIB << 20);
    assert_is_full(&VdiWriter::create(&path, large).unwrap_err());
    assert!(!path.exists());
}
