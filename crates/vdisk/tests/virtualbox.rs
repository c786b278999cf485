//! The same disks seen by the real VirtualBox and by us: what it makes we read, what we make it
//! opens, and both see the same bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{MIB, contents, create, create_child, disk, noise, text, uuid, write};
use vrs_progress::NoProgress;
use vrs_vdisk::{
    BlockEntry, ExportFormat, GuestDisk, VdiHeader, VdiImage, VdiImageType, VdiUuids, VdiVariant,
    VdiWriter, export, set_uuids,
};

const CAPACITY_BYTES: u64 = 12 * MIB;

/// A folder that VirtualBox sees, too.
fn work_folder() -> tempfile::TempDir {
    let work = std::env::var_os("VRS_TEST_VBOX_WORK").expect("VRS_TEST_VBOX_WORK; use rig/run");
    std::fs::create_dir_all(&work).unwrap();
    tempfile::tempdir_in(work).unwrap()
}

fn vboxmanage<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let program =
        std::env::var_os("VRS_TEST_VBOXMANAGE").expect("VRS_TEST_VBOXMANAGE; use rig/run");
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(
        output.status.success(),
        "VBoxManage {arguments:?}: {stdout}{stderr}"
    );
    stdout
}

/// The disk's bytes as VirtualBox flattens them. It must know the parents already, and knows the
/// image afterwards.
fn flattened(leaf: &Path) -> Vec<u8> {
    let flat = leaf.with_extension("flat");
    vboxmanage(&[
        "clonemedium",
        "disk",
        text(leaf),
        text(&flat),
        "--format",
        "RAW",
    ]);
    vboxmanage(&["closemedium", "disk", text(&flat)]);
    let bytes = std::fs::read(&flat).unwrap();
    std::fs::remove_file(flat).unwrap();
    bytes
}

/// Forgets images, the leaf first, so that they can be changed behind VirtualBox's back.
fn close(leaf_first: &[&Path]) {
    for image in leaf_first {
        vboxmanage(&["closemedium", "disk", text(image)]);
    }
}

/// An image that VirtualBox made from `bytes`.
fn made_by_virtualbox(folder: &Path, name: &str, variant: &str, bytes: &[u8]) -> PathBuf {
    let raw = folder.join("source.raw");
    std::fs::write(&raw, bytes).unwrap();
    let image = folder.join(name);
    vboxmanage(&[
        "convertfromraw",
        text(&raw),
        text(&image),
        "--variant",
        variant,
    ]);
    image
}

/// Bytes with a block of zeros in them.
fn sample(seed: u64) -> Vec<u8> {
    let mut bytes = noise(seed, CAPACITY_BYTES as usize);
    bytes[4 * MIB as usize..7 * MIB as usize].fill(0);
    bytes
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn base_images_of_virtualbox_are_read() {
    let folder = work_folder();
    let bytes = sample(1);
    for (variant, image_type) in [
        ("Standard", VdiImageType::Dynamic),
        ("Fixed", VdiImageType::Fixed),
    ] {
        let name = format!("-{variant} 'ü'.vdi");
        let image = made_by_virtualbox(folder.path(), &name, variant, &bytes);
        let header = VdiHeader::read(&image).unwrap();
        assert_eq!(
            (header.image_type, header.data_offset_bytes),
            (image_type, 2 * MIB)
        );
        assert!(contents(&disk(&image)) == bytes, "{variant}");
        let report = VdiImage::open(&image).unwrap().block_map().check();
        assert_eq!(report.findings, []);
        let export_path = folder.path().join(format!("{variant}.raw"));
        export(&disk(&image), &export_path, ExportFormat::Raw, &NoProgress).unwrap();
        assert!(std::fs::read(export_path).unwrap() == bytes);
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn differencing_chains_of_virtualbox_are_read() {
    let folder = work_folder();
    let path = |name| folder.path().join(name);
    let base = made_by_virtualbox(folder.path(), "base.vdi", "Standard", &sample(1));
    let mut chain = vec![base];
    for (index, name) in ["middle.vdi", "leaf.vdi"].into_iter().enumerate() {
        let child = path(name);
        let parent = text(chain.last().unwrap());
        vboxmanage(&[
            "createmedium",
            "disk",
            "--filename",
            text(&child),
            "--diffparent",
            parent,
        ]);
        let source = made_by_virtualbox(folder.path(), "source.vdi", "Standard", &{
            let mut bytes = sample(1);
            let start = (2 + 3 * index) * MIB as usize;
            bytes[start..start + 3 * MIB as usize / 2]
                .copy_from_slice(&noise(9, 3 * MIB as usize / 2));
            bytes
        });
        vboxmanage(&[
            "clonemedium",
            "disk",
            text(&source),
            text(&child),
            "--existing",
        ]);
        close(&[&source]);
        std::fs::remove_file(source).unwrap();
        chain.push(child);
    }
    for leaf in &chain {
        assert!(
            contents(&disk(leaf)) == flattened(leaf),
            "{}",
            leaf.display()
        );
    }
    let leaf = chain.last().unwrap();
    let layers: Vec<PathBuf> = disk(leaf)
        .layers()
        .iter()
        .map(|l| l.path().to_path_buf())
        .collect();
    assert!(layers.iter().eq(chain.iter().rev()));
    let leaf_first: Vec<&Path> = chain.iter().rev().map(PathBuf::as_path).collect();
    close(&leaf_first);
}

/// Our own base, middle and leaf, with free, zero and stored blocks in each.
fn chain_of_ours(folder: &Path, variant: VdiVariant) -> [PathBuf; 3] {
    let base = create(folder, "base.vdi", variant, CAPACITY_BYTES + 512);
    write(&base, MIB / 2, &noise(1, 5 * MIB as usize));
    let middle = create_child(folder, "middle.vdi", &base);
    write(&middle, 2 * MIB, &vec![0; MIB as usize]);
    write(&middle, 3 * MIB, &noise(2, MIB as usize));
    let leaf = create_child(folder, "leaf.vdi", &middle);
    let mut writer = VdiWriter::open(&leaf).unwrap().with_parent(disk(&middle));
    writer.write_at(MIB + 1000, &noise(3, 5000)).unwrap();
    writer.write_at(CAPACITY_BYTES, &noise(4, 512)).unwrap();
    writer.finish().unwrap();
    [base, middle, leaf]
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn virtualbox_sees_the_same_bytes_in_chains_of_ours() {
    for variant in [VdiVariant::Dynamic, VdiVariant::Fixed] {
        let folder = work_folder();
        let [base, middle, leaf] = chain_of_ours(folder.path(), variant);
        for image in [&base, &middle, &leaf] {
            assert!(
                contents(&disk(image)) == flattened(image),
                "{}",
                image.display()
            );
        }
        let information = vboxmanage(&["showmediuminfo", "disk", text(&leaf)]);
        let parent = VdiHeader::read(&middle).unwrap().uuids.creation;
        assert!(
            information.contains(&format!("Parent UUID:    {parent}")),
            "{information}"
        );
        close(&[&leaf, &middle, &base]);
    }
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn zero_hides_the_parent_in_virtualbox_too() {
    let folder = work_folder();
    let [base, middle, leaf] = chain_of_ours(folder.path(), VdiVariant::Dynamic);
    assert_eq!(
        VdiImage::open(&middle).unwrap().block_map().entry(2),
        BlockEntry::Zero
    );
    let block = 2 * MIB as usize..3 * MIB as usize;
    assert!(
        flattened(&base)[block.clone()]
            .iter()
            .all(|byte| *byte != 0)
    );
    assert!(flattened(&middle)[block].iter().all(|byte| *byte == 0));
    close(&[&middle, &base]);
    drop(leaf);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn images_that_virtualbox_changed_and_compacted_read_the_same() {
    let folder = work_folder();
    let image = create(
        folder.path(),
        "disk.vdi",
        VdiVariant::Dynamic,
        CAPACITY_BYTES,
    );
    write(&image, 0, &noise(1, CAPACITY_BYTES as usize));
    write(&image, 3 * MIB, &vec![0; 4 * MIB as usize]);
    let expected = contents(&disk(&image));
    vboxmanage(&["modifymedium", "disk", text(&image), "--compact"]);
    assert!(contents(&disk(&image)) == expected);
    assert_eq!(VdiHeader::read(&image).unwrap().allocated_blocks, 8);
    let resized = (CAPACITY_BYTES + 3 * MIB).to_string();
    vboxmanage(&[
        "modifymedium",
        "disk",
        text(&image),
        "--resizebyte",
        &resized,
    ]);
    close(&[&image]);
    write(&image, CAPACITY_BYTES + MIB, &noise(2, 700));
    let disk: GuestDisk = disk(&image);
    assert_eq!(disk.capacity_bytes(), CAPACITY_BYTES + 3 * MIB);
    assert!(contents(&disk)[..CAPACITY_BYTES as usize] == expected);
    assert!(contents(&disk) == flattened(&image));
    close(&[&image]);
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn a_copied_chain_with_new_uuids_opens_beside_the_first() {
    let folder = work_folder();
    let originals = chain_of_ours(folder.path(), VdiVariant::Dynamic);
    let copies = folder.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    let mut parent = VdiUuids::default();
    let mut copied = Vec::new();
    for (number, original) in (0x50..).zip(&originals) {
        let copy = copies.join(original.file_name().unwrap());
        std::fs::copy(original, &copy).unwrap();
        let own = VdiUuids {
            creation: uuid(number),
            modification: uuid(number + 0x100),
            parent: parent.creation,
            parent_modification: parent.modification,
        };
        set_uuids(&copy, &own).unwrap();
        parent = own;
        copied.push(copy);
    }
    for (original, copy) in originals.iter().zip(&copied) {
        let expected = flattened(original);
        assert!(flattened(copy) == expected, "{}", copy.display());
        assert!(contents(&disk(copy)) == expected, "{}", copy.display());
    }
    for chain in [&originals[..], &copied] {
        let leaf_first: Vec<&Path> = chain.iter().rev().map(PathBuf::as_path).collect();
        close(&leaf_first);
    }
}
