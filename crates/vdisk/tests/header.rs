//! Headers of every version and type, and what makes one unusable.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use support::{MIB, RawHeader, contents, create, disk, noise, qemu_img, text, uuid, write};
use uuid::Uuid;
use vrs_vdisk::{
    BlockEntry, Geometry, HeaderFault, VdiHeader, VdiImage, VdiImageType, VdiUuids, VdiVariant,
    VdiVersion, set_image_identity, set_uuids,
};

fn parse(header: &RawHeader) -> Result<VdiHeader, HeaderFault> {
    VdiHeader::parse(&header.0, 10 * MIB)
}

#[test]
fn every_field_is_read_by_name() {
    let mut raw = RawHeader::v1();
    raw.set_u32(76, 4)
        .set_u32(80, 1)
        .set_u32(380, 512)
        .set_u32(388, 3);
    raw.set_uuid(424, uuid(3)).set_uuid(440, uuid(4));
    for (index, value) in [1024, 16, 63, 512].into_iter().enumerate() {
        raw.set_u32(348 + index * 4, value)
            .set_u32(456 + index * 4, value + 1);
    }
    raw.0[84..91].copy_from_slice("Gruß!\0".as_bytes());
    let expected = VdiHeader {
        version: VdiVersion { major: 1, minor: 1 },
        image_type: VdiImageType::Differencing,
        flags: 1,
        comment: "Gruß!".to_owned(),
        block_map_offset_bytes: 512,
        data_offset_bytes: 1024,
        geometry: Geometry {
            cylinders: 1024,
            heads: 16,
            sectors: 63,
            sector_bytes: 512,
        },
        logical_geometry: Some(Geometry {
            cylinders: 1025,
            heads: 17,
            sectors: 64,
            sector_bytes: 513,
        }),
        capacity_bytes: 4 * MIB,
        block_size_bytes: 1 << 20,
        block_extra_bytes: 512,
        blocks: 4,
        allocated_blocks: 3,
        uuids: VdiUuids {
            creation: uuid(1),
            modification: uuid(2),
            parent: uuid(3),
            parent_modification: uuid(4),
        },
    };
    assert_eq!(parse(&raw).unwrap(), expected);
}

#[test]
fn uuids_are_stored_in_the_order_of_windows_guids() {
    let mut raw = RawHeader::v1();
    let bytes: Vec<u8> = (0x10..0x20).collect();
    raw.0[392..408].copy_from_slice(&bytes);
    let own = parse(&raw).unwrap().uuids.creation;
    assert_eq!(own.to_string(), "13121110-1514-1716-1819-1a1b1c1d1e1f");
}

#[test]
fn the_four_types_differ_in_whether_they_have_a_parent() {
    let cases = [
        (1, VdiImageType::Dynamic, None),
        (2, VdiImageType::Fixed, None),
        (3, VdiImageType::Undo, Some(uuid(9))),
        (4, VdiImageType::Differencing, Some(uuid(9))),
    ];
    for (code, image_type, parent) in cases {
        let mut raw = RawHeader::v1();
        raw.set_u32(76, code).set_uuid(424, uuid(9));
        let header = parse(&raw).unwrap();
        assert_eq!((header.image_type, header.parent()), (image_type, parent));
    }
}

#[test]
fn headers_of_version_1_0_and_without_logical_geometry_are_read() {
    let mut raw = RawHeader::v1();
    raw.set_u32(68, 0x0001_0000).set_u32(72, 384);
    let header = parse(&raw).unwrap();
    assert_eq!(header.version.to_string(), "1.0");
    assert_eq!(header.logical_geometry, None);
}

#[test]
fn a_disk_size_that_is_no_multiple_of_a_sector_is_rounded_down() {
    let mut raw = RawHeader::v1();
    raw.set_u64(368, 3 * MIB + 1000);
    assert_eq!(parse(&raw).unwrap().capacity_bytes, 3 * MIB + 512);
}

#[test]
fn images_with_the_first_header_version_are_read_and_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.vdi");
    let data = noise(1, 2 * MIB as usize);
    let file = RawHeader::v0()
        .set_u32(368, 2)
        .file(420, &[1, !0, !1, 0], 436, &data);
    std::fs::write(&path, file).unwrap();
    let image = VdiImage::open(&path).unwrap();
    assert_eq!(image.header().version.to_string(), "0.2");
    assert_eq!(image.data_offset_bytes(), 436);
    let entries: Vec<_> = image.block_map().entries().collect();
    let (free, zero) = (BlockEntry::Free, BlockEntry::Zero);
    assert_eq!(
        entries,
        [
            BlockEntry::Allocated(1),
            free,
            zero,
            BlockEntry::Allocated(0)
        ]
    );
    let bytes = contents(&disk(&path));
    let (first, second) = data.split_at(MIB as usize);
    assert!(bytes[..MIB as usize] == *second && bytes[3 * MIB as usize..] == *first);
    write(&path, MIB, &noise(2, 100));
    assert_eq!(contents(&disk(&path))[MIB as usize..][..100], noise(2, 100));
    set_image_identity(&path, uuid(7), None).unwrap();
    assert_eq!(VdiHeader::read(&path).unwrap().uuids.creation, uuid(7));
}

#[test]
fn extra_bytes_in_front_of_each_block_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("extra.vdi");
    let data = noise(1, 2 * (MIB as usize + 512));
    let mut raw = RawHeader::v1();
    let file = raw
        .set_u32(380, 512)
        .set_u32(388, 2)
        .file(512, &[0, 1, !0, !0], 1024, &data);
    std::fs::write(&path, file).unwrap();
    let bytes = contents(&disk(&path));
    assert!(bytes[..MIB as usize] == data[512..][..MIB as usize]);
    assert!(bytes[MIB as usize..][..MIB as usize] == data[MIB as usize + 1024..]);
}

#[test]
fn changing_uuids_changes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 3 * MIB);
    write(&path, MIB, &noise(1, 5000));
    let before = std::fs::read(&path).unwrap();
    let uuids = VdiUuids {
        creation: uuid(1),
        modification: uuid(2),
        parent: Uuid::nil(),
        parent_modification: Uuid::nil(),
    };
    set_uuids(&path, &uuids).unwrap();
    let after = std::fs::read(&path).unwrap();
    assert_eq!(VdiHeader::read(&path).unwrap().uuids, uuids);
    assert!(before[..392] == after[..392] && before[456..] == after[456..]);
    qemu_img(&["check", "-f", "vdi", text(&path)]);
}

#[test]
fn a_new_identity_keeps_the_modification_uuids() {
    let folder = tempfile::tempdir().unwrap();
    let parent = VdiVariant::Differencing {
        parent: uuid(1),
        parent_modification: uuid(2),
    };
    let path = create(folder.path(), "disk.vdi", parent, 3 * MIB);
    let before = VdiHeader::read(&path).unwrap().uuids;
    set_image_identity(&path, uuid(3), Some(uuid(4))).unwrap();
    let after = VdiHeader::read(&path).unwrap().uuids;
    assert_eq!(
        after,
        VdiUuids {
            creation: uuid(3),
            parent: uuid(4),
            ..before
        }
    );
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let spoil = |at, value| {
        let mut raw = RawHeader::v1();
        raw.set_u32(at, value);
        parse(&raw).unwrap_err().to_string()
    };
    let cases = [
        (72, 383, "the header size"),
        (76, 0, "the image type"),
        (76, 5, "the image type"),
        (340, 455, "the block map's offset"),
        (340, u32::MAX, "the data offset"),
        (344, 527, "the data offset"),
        (376, 0, "the block size"),
        (376, (1 << 20) + 1, "the block size"),
        (376, 1 << 28, "the block size"),
        (368, 0, "the disk size"),
        (384, 3, "the number of blocks"),
        (388, 5, "the number of allocated blocks"),
    ];
    for (at, value, expected) in cases {
        let text = spoil(at, value);
        assert!(text.starts_with(expected), "{value} at {at}: {text}");
    }
}

#[test]
fn a_header_cut_anywhere_is_refused() {
    for (raw, length) in [(RawHeader::v1(), 456), (RawHeader::v0(), 420)] {
        for cut in 0..length {
            let fault = VdiHeader::parse(&raw.0[..cut], 10 * MIB).unwrap_err();
            assert!(
                matches!(fault, HeaderFault::Truncated { .. }),
                "{cut}: {fault}"
            );
        }
    }
}

#[test]
fn a_block_map_that_the_file_does_not_hold_is_refused() {
    for (raw, map_end) in [(RawHeader::v1(), 528), (RawHeader::v0(), 436)] {
        assert!(VdiHeader::parse(&raw.0, map_end).is_ok());
        let fault = VdiHeader::parse(&raw.0, map_end - 1).unwrap_err();
        let expected = HeaderFault::MapOutsideFile {
            blocks: 4,
            end_bytes: map_end,
            file_len_bytes: map_end - 1,
        };
        assert_eq!(fault, expected);
    }
}

#[test]
fn a_block_map_in_the_headers_sector_keeps_every_new_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.vdi");
    std::fs::write(&path, RawHeader::v0().file(420, &[!0; 4], 436, &[])).unwrap();
    let bytes = noise(1, 4 * MIB as usize);
    write(&path, 0, &bytes);
    assert!(contents(&disk(&path)) == bytes);
    set_image_identity(&path, uuid(7), None).unwrap();
    write(&path, MIB, &[1]);
    assert_eq!(
        contents(&disk(&path))[MIB as usize + 1..],
        bytes[MIB as usize + 1..]
    );
}
