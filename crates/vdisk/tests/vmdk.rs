//! The files that VMDK images consist of, as qemu-img and VirtualBox write them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::path::Path;

use support::{create, qemu_img, text};
use vrs_vdisk::{ExtentFile, VdiVariant, extent_files, extent_names};

fn names_by_qemu(folder: &Path, subformat: &str, size: &str) -> Vec<String> {
    let path = folder.join("disk.vmdk");
    let option = format!("subformat={subformat}");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        &option,
        text(&path),
        size,
    ]);
    let files = extent_files(&path).unwrap();
    assert!(
        files
            .iter()
            .all(|file| !file.is_device && file.path.is_file()),
        "{files:?}"
    );
    files
        .iter()
        .map(|file| {
            file.path
                .strip_prefix(folder)
                .unwrap()
                .display()
                .to_string()
        })
        .collect()
}

#[test]
fn split_and_flat_images_name_their_extents() {
    let cases: [(&str, &[&str]); 4] = [
        ("monolithicSparse", &[]),
        ("monolithicFlat", &["disk-flat.vmdk"]),
        (
            "twoGbMaxExtentSparse",
            &["disk-s001.vmdk", "disk-s002.vmdk", "disk-s003.vmdk"],
        ),
        (
            "twoGbMaxExtentFlat",
            &["disk-f001.vmdk", "disk-f002.vmdk", "disk-f003.vmdk"],
        ),
    ];
    for (subformat, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            names_by_qemu(folder.path(), subformat, "5G"),
            expected,
            "{subformat}"
        );
    }
}

#[test]
fn images_in_other_formats_consist_of_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let image = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 1 << 20);
    assert_eq!(extent_files(&image).unwrap(), []);
}

#[test]
fn raw_disks_are_told_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raw.vmdk");
    let descriptor = "# Disk DescriptorFile\nversion=1\ncreateType=\"partitionedDevice\"\n\
        RW 63 FLAT \"raw-pt.vmdk\" 0\r\n RW 100 FLAT \"/dev/null\" 0\n\
        rw 100 flat \"\\\\.\\PhysicalDrive0\" 63\nRW 5 ZERO\nRW 1 FLAT \"raw-pt.vmdk\" 63\n";
    std::fs::write(&path, descriptor).unwrap();
    let files = extent_files(&path).unwrap();
    let windows_disk = r"\\.\PhysicalDrive0".to_owned();
    let expected = [
        ExtentFile {
            path: folder.path().join("raw-pt.vmdk"),
            is_device: false,
        },
        ExtentFile {
            path: "/dev/null".into(),
            is_device: true,
        },
        ExtentFile {
            path: folder.path().join(&windows_disk),
            is_device: true,
        },
    ];
    assert_eq!(files, expected);
}

#[test]
fn odd_names_survive_and_what_is_not_understood_is_an_error() {
    let names = |text: &str| extent_names(format!("# Disk DescriptorFile\n{text}").as_bytes());
    assert_eq!(
        names("RW 1 SPARSE \"-a 'b' é \u{1f4be}.vmdk\"").unwrap(),
        ["-a 'b' é \u{1f4be}.vmdk"]
    );
    assert_eq!(
        names("RW 1 SPARSE \"a \"quoted\" name.vmdk\" 7").unwrap(),
        ["a \"quoted\" name.vmdk"]
    );
    assert_eq!(
        names("rwx=\"no extent\"\n# RW 1 FLAT \"comment\"").unwrap(),
        Vec::<String>::new()
    );
    for bad in [
        "RW 1 FLAT \"\"",
        "RW 1 FLAT \"open",
        "RW",
        "RW 1 FLAT \"a\0b\"",
    ] {
        assert!(names(bad).is_err(), "{bad}");
    }
    assert!(extent_names(b"# Disk DescriptorFile\nRW 1 FLAT \"\xff\"").is_err());
    assert!(names(&" ".repeat(1 << 20)).is_err());
}
