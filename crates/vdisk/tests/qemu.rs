//! What we write, qemu-img reads; what qemu-img writes, we read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::path::Path;

use support::{MIB, contents, create, disk, noise, qemu_img, text, write};
use vrs_progress::NoProgress;
use vrs_vdisk::{
    BlockEntry, ErrorKind, ExportFormat, ExtentKind, ImageFormat, VdiHeader, VdiImage,
    VdiImageType, VdiVariant, VdiWriter, export,
};

const CAPACITY_BYTES: u64 = 9 * MIB + 512 * 3;

fn as_raw_by_qemu(image: &Path) -> Vec<u8> {
    let raw = image.with_extension("by-qemu");
    qemu_img(&["convert", "-f", "vdi", "-O", "raw", text(image), text(&raw)]);
    std::fs::read(raw).unwrap()
}

fn write_pattern(path: &Path) {
    let mut writer = VdiWriter::open(path).unwrap();
    writer.write_at(7 * MIB - 700, &noise(1, 3000)).unwrap();
    writer.write_at(0, &noise(2, 512)).unwrap();
    writer
        .write_at(CAPACITY_BYTES - 1024, &noise(3, 1024))
        .unwrap();
    writer.write_at(3 * MIB, &vec![0; 2 * 1024 * 1024]).unwrap();
    writer.write_at(7 * MIB, &[0; 700]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn qemu_reads_dynamic_and_fixed_images_of_ours() {
    for variant in [VdiVariant::Dynamic, VdiVariant::Fixed] {
        let folder = tempfile::tempdir().unwrap();
        let image = create(folder.path(), "ours.vdi", variant, CAPACITY_BYTES);
        write_pattern(&image);
        let check = qemu_img(&["check", "-f", "vdi", text(&image)]);
        assert!(check.contains("No errors were found"), "{check}");
        assert_eq!(
            as_raw_by_qemu(&image),
            contents(&disk(&image)),
            "{variant:?}"
        );
    }
}

#[test]
fn a_new_image_takes_only_the_blocks_that_hold_something() {
    let folder = tempfile::tempdir().unwrap();
    let image = create(
        folder.path(),
        "ours.vdi",
        VdiVariant::Dynamic,
        CAPACITY_BYTES,
    );
    write_pattern(&image);
    let header = VdiHeader::read(&image).unwrap();
    assert_eq!(header.allocated_blocks, 4, "blocks 0, 6, 7 and the last");
    assert_eq!(image.metadata().unwrap().len(), 2 * MIB + 4 * MIB);
    let map = VdiImage::open(&image).unwrap();
    assert_eq!(map.block_map().entry(3), BlockEntry::Zero);
    assert_eq!(map.block_map().entry(5), BlockEntry::Free);
}

fn image_by_qemu(folder: &Path, options: &[&str]) -> (std::path::PathBuf, Vec<u8>) {
    let raw = folder.join("source.raw");
    let mut bytes = noise(4, usize::try_from(CAPACITY_BYTES).unwrap());
    bytes[2 * MIB as usize..5 * MIB as usize].fill(0);
    std::fs::write(&raw, &bytes).unwrap();
    let image = folder.join("qemu.vdi");
    let arguments = [&["convert", "-f", "raw", "-O", "vdi"], options].concat();
    qemu_img(&[&arguments[..], &[text(&raw), text(&image)]].concat());
    (image, bytes)
}

#[test]
fn images_of_qemu_are_read_though_their_data_is_not_aligned_to_a_mebibyte() {
    let folder = tempfile::tempdir().unwrap();
    let (image, bytes) = image_by_qemu(folder.path(), &[]);
    let header = VdiHeader::read(&image).unwrap();
    assert_eq!(header.image_type, VdiImageType::Dynamic);
    assert_eq!(header.data_offset_bytes % MIB, 1024);
    assert_eq!(contents(&disk(&image)), bytes);
    let kinds: Vec<_> = disk(&image)
        .extents()
        .map(|e| (e.kind, e.length_bytes / MIB))
        .collect();
    let expected = [
        (ExtentKind::Data, 2),
        (ExtentKind::Unallocated, 3),
        (ExtentKind::Data, 4),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn fixed_images_of_qemu_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (image, bytes) = image_by_qemu(folder.path(), &["-o", "static=on"]);
    assert_eq!(
        VdiHeader::read(&image).unwrap().image_type,
        VdiImageType::Fixed
    );
    assert_eq!(contents(&disk(&image)), bytes);
}

#[test]
fn images_of_qemu_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (image, mut bytes) = image_by_qemu(folder.path(), &[]);
    let before = VdiHeader::read(&image).unwrap().uuids;
    let new = noise(5, 2 * MIB as usize);
    write(&image, 3 * MIB / 2, &new);
    bytes[3 * MIB as usize / 2..][..new.len()].copy_from_slice(&new);
    assert_eq!(as_raw_by_qemu(&image), bytes);
    qemu_img(&["check", "-f", "vdi", text(&image)]);
    let after = VdiHeader::read(&image).unwrap().uuids;
    assert_eq!(after.creation, before.creation);
    assert_ne!(after.modification, before.modification);
}

#[test]
fn exports_are_identical_by_qemus_comparison_and_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let image = create(folder.path(), "ours.vdi", VdiVariant::Fixed, CAPACITY_BYTES);
    write_pattern(&image);
    for (format, name) in [(ExportFormat::Raw, "raw"), (ExportFormat::Vdi, "vdi")] {
        let target = folder.path().join("export").with_extension(name);
        export(&disk(&image), &target, format, &NoProgress).unwrap();
        let options = [
            "compare",
            "-f",
            "vdi",
            "-F",
            name,
            text(&image),
            text(&target),
        ];
        assert!(qemu_img(&options).contains("Images are identical"));
    }
    assert_eq!(
        VdiHeader::read(&folder.path().join("export.vdi"))
            .unwrap()
            .allocated_blocks,
        4
    );
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "no temporary files: {left:?}");
}

#[cfg(unix)]
#[test]
fn a_raw_export_of_a_fixed_image_stores_no_zeros() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let image = create(folder.path(), "ours.vdi", VdiVariant::Fixed, CAPACITY_BYTES);
    write(&image, 5 * MIB, &noise(6, 5000));
    let target = folder.path().join("export.raw");
    export(&disk(&image), &target, ExportFormat::Raw, &NoProgress).unwrap();
    let stored_bytes = target.metadata().unwrap().blocks() * 512;
    assert!(stored_bytes <= 64 << 10, "{stored_bytes} bytes for 5000");
}

#[test]
fn other_formats_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], ImageFormat); 9] = [
        ("vdi", &[], ImageFormat::Vdi),
        ("vmdk", &[], ImageFormat::Vmdk),
        (
            "vmdk",
            &["-o", "subformat=monolithicFlat"],
            ImageFormat::Vmdk,
        ),
        ("vpc", &[], ImageFormat::Vhd),
        ("vpc", &["-o", "subformat=fixed"], ImageFormat::Vhd),
        ("vhdx", &[], ImageFormat::Vhdx),
        ("qcow2", &[], ImageFormat::Qcow2),
        ("parallels", &[], ImageFormat::Parallels),
        ("raw", &[], ImageFormat::Raw),
    ];
    for (index, (name, options, expected)) in cases.into_iter().enumerate() {
        let path = folder.path().join(index.to_string());
        qemu_img(&[&["create", "-q", "-f", name], options, &[text(&path), "4M"]].concat());
        assert_eq!(
            ImageFormat::probe(&path).unwrap(),
            expected,
            "{name} {options:?}"
        );
    }
}

#[test]
fn of_an_image_cut_short_the_missing_blocks_are_reported_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (image, bytes) = image_by_qemu(folder.path(), &[]);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .unwrap();
    file.set_len(image.metadata().unwrap().len() - 3 * MIB)
        .unwrap();
    let report = VdiImage::open(&image).unwrap().block_map().check();
    assert_eq!(report.findings_total, 3);
    let disk = disk(&image);
    let mut last = [0; 512];
    let error = disk.read_at(CAPACITY_BYTES - 512, &mut last).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    disk.read_at(0, &mut last).unwrap();
    assert_eq!(last, bytes[..512]);
}
