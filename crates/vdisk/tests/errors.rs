//! The text and class of every error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::error::Error as _;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use support::{MIB, create, disk, noise, qemu_img, text, uuid, write};
use vrs_vdisk::{
    Chain, Error, ErrorKind, Finding, HeaderFault, ImageFormat, VdiCreate, VdiHeader, VdiImage,
    VdiVariant, VdiWriter, extent_files,
};

fn disk_path() -> PathBuf {
    PathBuf::from("/vm/disk.vdi")
}

fn header(fault: HeaderFault) -> Error {
    Error::Header {
        path: disk_path(),
        fault,
    }
}

#[test]
fn failures_of_the_operating_system_keep_their_cause_apart() {
    let error = VdiHeader::read(Path::new("/nowhere/disk.vdi")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_snapshot!(error, @"cannot open /nowhere/disk.vdi");
    assert_snapshot!(error.source().unwrap(), @"No such file or directory (os error 2)");
}

#[test]
fn disks_in_other_formats_have_an_error_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for (name, expected) in [("vmdk", ImageFormat::Vmdk), ("vpc", ImageFormat::Vhd)] {
        let path = folder.path().join(name);
        qemu_img(&["create", "-q", "-f", name, text(&path), "4M"]);
        let results = [
            VdiImage::open(&path).err(),
            VdiHeader::read(&path).err(),
            Chain::resolve(&path, &[]).err(),
            VdiWriter::open(&path).err(),
        ];
        for error in results.into_iter().map(Option::unwrap) {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(matches!(error, Error::UnsupportedFormat { format, .. } if format == expected));
        }
    }
    let path = PathBuf::from("/vm/disk.vmdk");
    assert_snapshot!(
        Error::UnsupportedFormat { path, format: ImageFormat::Vmdk },
        @"/vm/disk.vmdk is a VMDK image; reading inside this format is not supported yet. vrs stores and restores such disks as files; to look inside, make a copy with VBoxManage clonemedium --format VDI"
    );
}

#[test]
fn header_faults_say_what_is_wrong_and_where() {
    let faults = [
        HeaderFault::Truncated {
            found_bytes: 100,
            needed_bytes: 456,
        },
        HeaderFault::NotVdi {
            found: 1,
            expected: 0xbeda_107f,
        },
        HeaderFault::Version { major: 2, minor: 0 },
        HeaderFault::Field {
            field: "the image type",
            offset_bytes: 76,
            found: 9,
            rule: "the known types are 1 to 4",
        },
        HeaderFault::MapOutsideFile {
            blocks: 1000,
            end_bytes: 4512,
            file_len_bytes: 4096,
        },
        HeaderFault::TooManyBlocks {
            blocks: u32::MAX,
            most: 1 << 26,
        },
    ];
    let (corrupt, unsupported) = (ErrorKind::Corrupt, ErrorKind::Unsupported);
    let kinds = faults.clone().map(|fault| header(fault).kind());
    assert_eq!(
        kinds,
        [corrupt, corrupt, unsupported, corrupt, corrupt, unsupported]
    );
    assert_snapshot!(faults.map(|fault| header(fault).to_string()).join("\n"), @r"
    /vm/disk.vdi cannot be used as a VDI image: it ends after 100 bytes, inside the header of 456 bytes
    /vm/disk.vdi cannot be used as a VDI image: it does not begin with a VDI header (found 0x00000001 where 0xbeda107f belongs)
    /vm/disk.vdi cannot be used as a VDI image: its version 2.0 is not known; a newer vrs may read it
    /vm/disk.vdi cannot be used as a VDI image: the image type (at byte 76 of the header) is 9, but the known types are 1 to 4; the header is damaged
    /vm/disk.vdi cannot be used as a VDI image: its block map of 1000 blocks would end at byte 4512, but the file ends at byte 4096; it is damaged or was copied incompletely
    /vm/disk.vdi cannot be used as a VDI image: it claims 4294967295 blocks, more than the 67108864 that vrs handles
    ");
}

#[test]
fn descriptors_that_are_not_understood_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    std::fs::write(&path, "# Disk DescriptorFile\nRW 100 FLAT\n").unwrap();
    let error = extent_files(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string().replace(text(folder.path()), "/vm");
    assert_snapshot!(
        text,
        @"cannot tell which files the VMDK image /vm/disk.vmdk consists of: it has an extent without a file name. VBoxManage clonemedium makes a VDI image of it, which needs no other files"
    );
}

#[test]
fn damaged_block_maps_are_not_read_past_the_file_and_not_written() {
    let error = Error::BlockOutsideFile {
        path: disk_path(),
        block: 7,
        end_bytes: 900,
        file_len_bytes: 800,
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_snapshot!(error, @"/vm/disk.vdi is damaged: block 7 should be stored up to byte 900, but the file ends at byte 800. It was probably copied or written incompletely; use another copy of it");
    let findings = [
        Finding::Duplicate {
            first_block: 1,
            second_block: 4,
            stored: 2,
        },
        Finding::OutsideFile {
            block: 5,
            stored: 99,
        },
        Finding::BeyondAllocated {
            block: 5,
            stored: 3,
            allocated_blocks: 3,
        },
        Finding::Unused {
            used_blocks: 3,
            allocated_blocks: 9,
        },
    ];
    let texts = findings.map(|finding| {
        Error::DamagedBlockMap {
            path: disk_path(),
            finding,
        }
        .to_string()
    });
    assert_snapshot!(texts.join("\n"), @r"
    /vm/disk.vdi is not written to, because its block map is damaged: blocks 1 and 4 are both stored at place 2. Restore the image from a snapshot or copy what can be read with VBoxManage clonemedium
    /vm/disk.vdi is not written to, because its block map is damaged: block 5 is stored at place 99, behind the end of the file. Restore the image from a snapshot or copy what can be read with VBoxManage clonemedium
    /vm/disk.vdi is not written to, because its block map is damaged: block 5 is stored at place 3, but the header says that only 3 are in use. Restore the image from a snapshot or copy what can be read with VBoxManage clonemedium
    /vm/disk.vdi is not written to, because its block map is damaged: the header says that 9 blocks are stored, but only 3 are. Restore the image from a snapshot or copy what can be read with VBoxManage clonemedium
    ");
}

/// An image with two of its three blocks stored, with one number changed.
fn damaged(path: &Path, at: usize, value: u32) -> Vec<u8> {
    write(path, 0, &noise(1, 2 * MIB as usize));
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn a_damaged_image_stays_as_it_is_when_writing_is_refused() {
    let map = MIB as usize;
    let allocated = 388;
    let duplicate = Finding::Duplicate {
        first_block: 0,
        second_block: 1,
        stored: 1,
    };
    let outside = Finding::OutsideFile {
        block: 2,
        stored: 2,
    };
    let unused = Finding::Unused {
        used_blocks: 2,
        allocated_blocks: 3,
    };
    let beyond = Finding::BeyondAllocated {
        block: 1,
        stored: 1,
        allocated_blocks: 1,
    };
    let cases = [
        (map, 1, duplicate),
        (map + 8, 2, outside),
        (allocated, 3, unused),
        (allocated, 1, beyond),
    ];
    for (at, value, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 3 * MIB);
        let bytes = damaged(&path, at, value);
        match VdiWriter::open(&path).unwrap_err() {
            Error::DamagedBlockMap { finding, .. } => assert_eq!(finding, expected),
            other => panic!("{other}"),
        }
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}

#[test]
fn chain_errors_name_the_uuid_and_the_files() {
    let child = PathBuf::from("/vm/Snapshots/{a}.vdi");
    let folders = ["/vm/Snapshots", "/vm", "/b", "/c", "/d", "/e"].map(PathBuf::from);
    let errors = [
        Error::MissingParent {
            child: child.clone(),
            parent: uuid(1),
            looked_at: folders.to_vec(),
        },
        Error::DuplicateImage {
            child: child.clone(),
            uuid: uuid(1),
            first: disk_path(),
            second: "/vm/copy.vdi".into(),
        },
        Error::ChainLoop {
            path: child.clone(),
            parent: uuid(2),
        },
        Error::NoParentUuid {
            path: child.clone(),
        },
        Error::Replaced {
            path: child,
            expected: uuid(1),
            found: uuid(2),
        },
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Chain));
    assert_snapshot!(errors.map(|error| error.to_string()).join("\n"), @r"
    the parent of /vm/Snapshots/{a}.vdi is missing: no VDI image with UUID 10000000-0000-4000-8000-000000000001 among /vm/Snapshots, /vm, /b, /c and 2 more. Put the file there or name it; a parent in VMDK or VHD format cannot be read yet
    two images have the UUID 10000000-0000-4000-8000-000000000001 that /vm/Snapshots/{a}.vdi names as its parent: /vm/disk.vdi and /vm/copy.vdi. Move the one that does not belong to this machine elsewhere
    /vm/Snapshots/{a}.vdi names 10000000-0000-4000-8000-000000000002 as its parent, but that image is itself based on it. One of the two headers was changed by hand; restore it from a snapshot
    /vm/Snapshots/{a}.vdi is a differencing image, but its header names no parent, so the disk cannot be put together. Restore the image from a snapshot
    /vm/Snapshots/{a}.vdi was replaced by another image (UUID 10000000-0000-4000-8000-000000000002 instead of 10000000-0000-4000-8000-000000000001) while it was being opened; try again when nothing else works on this machine
    ");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parent = VdiVariant::Differencing {
        parent: uuid(1),
        parent_modification: uuid(2),
    };
    let path = create(folder.path(), "disk.vdi", parent, 2 * MIB);
    let mut writer = VdiWriter::open(&path).unwrap();
    let errors = [
        writer.write_at(2 * MIB - 1, &[1, 2]).unwrap_err(),
        writer.write_at(u64::MAX, &[1]).unwrap_err(),
        writer.write_at(MIB + 7, &[1]).unwrap_err(),
    ];
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::InvalidRequest)
    );
    let texts = errors.map(|error| error.to_string().replace(text(folder.path()), "/vm"));
    assert_snapshot!(texts.join("\n"), @r"
    2 bytes at offset 2097151 lie outside the disk /vm/disk.vdi, which has 2097152 bytes
    1 bytes at offset 18446744073709551615 lie outside the disk /vm/disk.vdi, which has 2097152 bytes
    cannot write a part of block 1 of /vm/disk.vdi: the rest of the block is in the parent image, which was not given
    ");
}

#[test]
fn reading_past_the_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 2 * MIB);
    let error = disk(&path).read_at(2 * MIB - 1, &mut [0; 2]).unwrap_err();
    assert!(matches!(
        error,
        Error::OutOfBounds {
            offset_bytes: 2_097_151,
            length_bytes: 2,
            ..
        }
    ));
    let image = VdiImage::open(&path).unwrap();
    assert!(image.read_block(2, &mut [0; 1]).is_err());
    assert!(image.read_block(0, &mut vec![0; MIB as usize + 1]).is_err());
}

#[test]
fn images_that_virtualbox_would_not_open_are_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vdi");
    let usual = VdiCreate::new(VdiVariant::Dynamic, MIB);
    let cases = [
        VdiCreate {
            capacity_bytes: 0,
            ..usual
        },
        VdiCreate {
            capacity_bytes: 1000,
            ..usual
        },
        VdiCreate {
            block_size_bytes: 3 << 20,
            ..usual
        },
        VdiCreate {
            block_size_bytes: 64 << 10,
            ..usual
        },
        VdiCreate {
            capacity_bytes: 1 << 50,
            ..usual
        },
    ];
    let texts = cases.map(|case| {
        let error = VdiWriter::create(&path, case).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        error.to_string().replace(text(folder.path()), "/vm")
    });
    assert!(!path.exists());
    assert_snapshot!(texts.join("\n"), @r"
    cannot create /vm/disk.vdi: the disk size must be a multiple of 512 bytes and not 0
    cannot create /vm/disk.vdi: the disk size must be a multiple of 512 bytes and not 0
    cannot create /vm/disk.vdi: the block size must be a power of two from 131072 to 134217728 bytes
    cannot create /vm/disk.vdi: the block size must be a power of two from 131072 to 134217728 bytes
    cannot create /vm/disk.vdi: the disk would have more than 67108864 blocks; choose a larger block size
    ");
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, MIB);
    let error = VdiWriter::create(&path, VdiCreate::new(VdiVariant::Fixed, MIB)).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }));
    assert_snapshot!(
        Error::Exists { path: disk_path() },
        @"/vm/disk.vdi exists already and is not overwritten; remove it or choose another name"
    );
}

#[test]
fn an_interruption_says_that_nothing_is_left() {
    let error = Error::Interrupted { path: disk_path() };
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_snapshot!(error, @"interrupted while writing /vm/disk.vdi; nothing was left behind");
}
