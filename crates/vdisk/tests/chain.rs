//! Chains are put together by UUID, and what is missing or ambiguous is named.

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

use support::{
    MIB, child_of, contents, create, create_child, disk, noise, qemu_img, text, uuid, write,
};
use uuid::Uuid;
use vrs_vdisk::{
    Chain, Error, Extent, ExtentKind, GuestDisk, VdiHeader, VdiUuids, VdiVariant, set_uuids,
};

/// A machine's folder as VirtualBox lays it out, with a base and two differencing images.
struct Machine {
    folder: tempfile::TempDir,
    base: PathBuf,
    middle: PathBuf,
    leaf: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = folder.path().join("Snapshots");
        fs::create_dir(&snapshots).unwrap();
        let base = create(folder.path(), "disk.vdi", VdiVariant::Dynamic, 4 * MIB);
        let middle = create_child(&snapshots, "{middle}.vdi", &base);
        let leaf = create_child(&snapshots, "{leaf}.vdi", &middle);
        Self {
            folder,
            base,
            middle,
            leaf,
        }
    }
}

fn paths(chain: &Chain) -> Vec<&Path> {
    chain
        .links()
        .iter()
        .map(|link| link.path.as_path())
        .collect()
}

#[test]
fn the_usual_folders_are_searched_when_no_candidates_are_given() {
    let machine = Machine::new();
    let chain = Chain::resolve(&machine.leaf, &[]).unwrap();
    assert_eq!(
        paths(&chain),
        [&machine.leaf, &machine.middle, &machine.base]
    );
    let moved = machine.folder.path().join("leaf.VDI");
    fs::rename(&machine.leaf, &moved).unwrap();
    let chain = Chain::resolve(&moved, &[]).unwrap();
    assert_eq!(paths(&chain), [&moved, &machine.middle, &machine.base]);
}

#[test]
fn candidates_may_be_given_twice_and_need_not_be_images() {
    let machine = Machine::new();
    let other = machine.folder.path().join("notes.txt");
    fs::write(&other, "no image").unwrap();
    let around = machine.folder.path().join("Snapshots/../disk.vdi");
    let candidates = [
        other,
        machine.base.clone(),
        machine.middle.clone(),
        machine.leaf.clone(),
        around,
    ];
    let chain = Chain::resolve(&machine.leaf, &candidates).unwrap();
    assert_eq!(
        paths(&chain),
        [&machine.leaf, &machine.middle, &machine.base]
    );
}

#[test]
fn a_missing_parent_is_named_with_the_folders_searched() {
    let machine = Machine::new();
    let missing = VdiHeader::read(&machine.middle).unwrap().uuids.creation;
    fs::remove_file(&machine.middle).unwrap();
    match Chain::resolve(&machine.leaf, &[]).unwrap_err() {
        Error::MissingParent {
            child,
            parent,
            looked_at,
        } => {
            assert_eq!((child, parent), (machine.leaf.clone(), missing));
            let snapshots = machine.folder.path().join("Snapshots");
            assert_eq!(looked_at, [snapshots, machine.folder.path().to_path_buf()]);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn two_files_with_the_parents_uuid_are_both_named() {
    let machine = Machine::new();
    let copy = machine.folder.path().join("copy.vdi");
    fs::copy(&machine.base, &copy).unwrap();
    match Chain::resolve(&machine.leaf, &[]).unwrap_err() {
        Error::DuplicateImage {
            child,
            first,
            second,
            ..
        } => {
            assert_eq!((child, first, second), (machine.middle, copy, machine.base));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn copies_of_images_that_are_no_parents_do_not_matter() {
    let machine = Machine::new();
    fs::copy(&machine.leaf, machine.folder.path().join("copy.vdi")).unwrap();
    assert_eq!(Chain::resolve(&machine.leaf, &[]).unwrap().links().len(), 3);
}

#[test]
fn a_chain_that_bites_its_tail_is_refused() {
    let machine = Machine::new();
    let of = |path: &Path| VdiHeader::read(path).unwrap().uuids;
    let parent = of(&machine.leaf).creation;
    set_uuids(
        &machine.middle,
        &VdiUuids {
            parent,
            ..of(&machine.middle)
        },
    )
    .unwrap();
    match Chain::resolve(&machine.leaf, &[]).unwrap_err() {
        Error::ChainLoop {
            path,
            parent: back_to,
        } => {
            assert_eq!((path, back_to), (machine.middle, parent));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_differencing_image_without_parent_uuid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = VdiVariant::Differencing {
        parent: Uuid::nil(),
        parent_modification: uuid(1),
    };
    let leaf = create(folder.path(), "leaf.vdi", nobody, MIB);
    assert!(
        matches!(Chain::resolve(&leaf, &[]), Err(Error::NoParentUuid { path }) if path == leaf)
    );
}

#[test]
fn a_stale_parent_modification_uuid_is_noted_and_nothing_more() {
    let machine = Machine::new();
    let chain = Chain::resolve(&machine.leaf, &[]).unwrap();
    assert!(
        chain
            .links()
            .iter()
            .all(|link| link.stale_parent_modification.is_none())
    );
    let recorded = VdiHeader::read(&machine.base).unwrap().uuids.modification;
    write(&machine.base, 0, &noise(1, 512));
    let chain = Chain::resolve(&machine.leaf, &[]).unwrap();
    let notes: Vec<_> = chain
        .links()
        .iter()
        .map(|link| link.stale_parent_modification)
        .collect();
    let note = notes[1].expect("the middle image remembers the old one");
    assert_eq!((notes[0], note.recorded, notes[2]), (None, recorded, None));
    assert_eq!(note.actual, chain.links()[2].header.uuids.modification);
    GuestDisk::open(&chain).unwrap();
}

#[test]
fn a_parent_in_another_format_is_missing_not_misread() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.vmdk");
    qemu_img(&["create", "-q", "-f", "vmdk", text(&base), "4M"]);
    let parent = VdiVariant::Differencing {
        parent: uuid(1),
        parent_modification: uuid(2),
    };
    let leaf = create(folder.path(), "leaf.vdi", parent, 4 * MIB);
    let error = Chain::resolve(&leaf, std::slice::from_ref(&base)).unwrap_err();
    assert!(matches!(error, Error::MissingParent { .. }), "{error}");
    let error = Chain::resolve(&base, &[]).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { .. }), "{error}");
}

#[test]
fn an_image_replaced_after_resolving_is_not_opened() {
    let machine = Machine::new();
    let chain = Chain::resolve(&machine.leaf, &[]).unwrap();
    fs::rename(&machine.leaf, &machine.middle).unwrap();
    fs::copy(&machine.base, &machine.leaf).unwrap();
    assert!(matches!(
        GuestDisk::open(&chain),
        Err(Error::Replaced { .. })
    ));
}

#[test]
fn extents_name_the_layer_that_supplies_them_and_zero_hides_the_parent() {
    let machine = Machine::new();
    write(&machine.base, 0, &noise(1, 3 * MIB as usize));
    write(&machine.middle, MIB, &noise(2, MIB as usize));
    write(&machine.leaf, 2 * MIB, &vec![0; MIB as usize]);
    let extent = |index: u64, kind, layer| Extent {
        offset_bytes: index * MIB,
        length_bytes: MIB,
        kind,
        layer,
    };
    let expected = [
        extent(0, ExtentKind::Data, Some(2)),
        extent(1, ExtentKind::Data, Some(1)),
        extent(2, ExtentKind::Zero, Some(0)),
        extent(3, ExtentKind::Unallocated, None),
    ];
    assert_eq!(disk(&machine.leaf).extents().collect::<Vec<_>>(), expected);
    let expected = [
        noise(1, MIB as usize),
        noise(2, MIB as usize),
        vec![0; 2 * MIB as usize],
    ];
    assert!(contents(&disk(&machine.leaf)) == expected.concat());
}

#[test]
fn a_child_may_be_larger_or_smaller_than_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let base = create(folder.path(), "base.vdi", VdiVariant::Dynamic, 3 * MIB / 2);
    let bytes = noise(1, 3 * MIB as usize / 2);
    write(&base, 0, &bytes);
    let header = VdiHeader::read(&base).unwrap();
    for capacity_bytes in [MIB, 3 * MIB] {
        let name = format!("{capacity_bytes}.vdi");
        let leaf = create(folder.path(), &name, child_of(&header), capacity_bytes);
        let mut expected = bytes.clone();
        expected.resize(capacity_bytes as usize, 0);
        let disk = disk(&leaf);
        assert!(contents(&disk) == expected, "{capacity_bytes}");
        let total: u64 = disk.extents().map(|extent| extent.length_bytes).sum();
        assert_eq!(total, capacity_bytes);
    }
}

#[test]
fn what_lies_behind_a_small_image_in_the_middle_does_not_shine_through() {
    let folder = tempfile::tempdir().unwrap();
    let base = create(folder.path(), "base.vdi", VdiVariant::Dynamic, 2 * MIB);
    write(&base, 0, &noise(1, 2 * MIB as usize));
    let header = VdiHeader::read(&base).unwrap();
    let middle = create(folder.path(), "middle.vdi", child_of(&header), MIB);
    let header = VdiHeader::read(&middle).unwrap();
    let leaf = create(folder.path(), "leaf.vdi", child_of(&header), 2 * MIB);
    let mut expected = noise(1, MIB as usize);
    expected.resize(2 * MIB as usize, 0);
    assert!(contents(&disk(&leaf)) == expected);
}

#[test]
fn odd_file_names_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let base = create(
        folder.path(),
        "-a \"b\" 'c' \u{1f4be}\n.vdi",
        VdiVariant::Dynamic,
        MIB,
    );
    let leaf = create_child(folder.path(), " .vdi", &base);
    assert_eq!(paths(&Chain::resolve(&leaf, &[]).unwrap()), [&leaf, &base]);
}
