//! The images of sample machines: made and written by `vrs-vdisk`, and changed in the ways that
//! only VirtualBox changes them, merging, growth and compaction.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vrs_vdisk::{
    BlockEntry, Chain, GuestDisk, VdiCreate, VdiHeader, VdiImage, VdiVariant, VdiWriter, set_uuids,
};

const BLOCK_BYTES: u64 = VdiCreate::DEFAULT_BLOCK_SIZE_BYTES as u64;
const FREE: u32 = u32::MAX;
const ZERO: u32 = u32::MAX - 1;
/// Where header fields are, in bytes from the start of the file.
const CAPACITY_FIELD: u64 = 0x170;
const BLOCKS_FIELD: u64 = 0x180;
const ALLOCATED_FIELD: u64 = 0x184;

pub(crate) fn create(path: &Path, variant: VdiVariant, capacity_bytes: u64, id: Uuid) {
    let mut create = VdiCreate::new(variant, capacity_bytes);
    create.uuid = id;
    VdiWriter::create(path, create)
        .expect("a new image")
        .finish()
        .expect("a durable image");
}

pub(crate) fn create_child(path: &Path, parent: &Path, id: Uuid) {
    let parent = VdiHeader::read(parent).expect("the parent's header");
    let variant = VdiVariant::Differencing {
        parent: parent.uuids.creation,
        parent_modification: parent.uuids.modification,
    };
    create(path, variant, parent.capacity_bytes, id);
}

/// The disk that `chain` makes up, whose first image is the topmost.
pub(crate) fn guest_disk(chain: &[PathBuf]) -> GuestDisk {
    let chain = Chain::resolve(&chain[0], chain).expect("a complete chain");
    GuestDisk::open(&chain).expect("a readable chain")
}

pub(crate) fn guest_bytes(chain: &[PathBuf]) -> Vec<u8> {
    all_bytes(&guest_disk(chain))
}

/// As the guest sees a disk whose other images are where VirtualBox puts them.
pub(crate) fn guest_bytes_of(leaf: &Path) -> Vec<u8> {
    let chain = Chain::resolve(leaf, &[]).expect("a complete chain");
    all_bytes(&GuestDisk::open(&chain).expect("a readable chain"))
}

fn all_bytes(disk: &GuestDisk) -> Vec<u8> {
    let mut bytes = vec![0; disk.capacity_bytes() as usize];
    disk.read_at(0, &mut bytes).expect("readable images");
    bytes
}

/// The guest writes.
pub(crate) fn write(chain: &[PathBuf], offset_bytes: u64, bytes: &[u8]) {
    write_all(chain, std::iter::once((offset_bytes, bytes)));
}

/// The same for several places at once.
pub(crate) fn write_all(chain: &[PathBuf], parts: impl Iterator<Item = (u64, impl AsRef<[u8]>)>) {
    let mut writer = VdiWriter::open(&chain[0]).expect("a writable image");
    if chain.len() > 1 {
        writer = writer.with_parent(guest_disk(&chain[1..]));
    }
    for (offset_bytes, bytes) in parts {
        writer
            .write_at(offset_bytes, bytes.as_ref())
            .expect("room on the disk");
    }
    writer.finish().expect("a durable image");
}

/// The guest changes its disk until it equals the raw image, of the same size. Whole blocks are
/// written, and only where something differs.
pub(crate) fn write_raw(chain: &[PathBuf], raw: &Path) {
    let disk = guest_disk(chain);
    let mut raw = File::open(raw).expect("the raw image");
    let length_bytes = raw.metadata().expect("the raw image").len();
    assert_eq!(
        length_bytes,
        disk.capacity_bytes(),
        "the raw image has the disk's size"
    );
    for offset_bytes in (0..length_bytes).step_by(BLOCK_BYTES as usize) {
        let mut wanted = Vec::new();
        (&mut raw)
            .take(BLOCK_BYTES)
            .read_to_end(&mut wanted)
            .expect("the raw image's contents");
        let mut present = vec![0; wanted.len()];
        disk.read_at(offset_bytes, &mut present)
            .expect("readable images");
        if wanted != present {
            write(chain, offset_bytes, &wanted);
        }
    }
}

/// Puts what `child` changes into `parent`, as the deletion of a VirtualBox snapshot does. The
/// parent keeps its modification UUID, as VirtualBox has it.
pub(crate) fn merge(child: &Path, parent: &Path) {
    let uuids = VdiHeader::read(parent).expect("the image's header").uuids;
    copy_blocks(child, parent, |_| true);
    set_uuids(parent, &uuids).expect("a writable image");
}

/// Puts what only `parent` has into `child`, as the deletion of a VirtualBox snapshot does where
/// that is less work.
pub(crate) fn merge_into_child(parent: &Path, child: &Path) {
    let image = VdiImage::open(child).expect("the child image");
    let free: Vec<bool> = image
        .block_map()
        .entries()
        .map(|entry| entry == BlockEntry::Free)
        .collect();
    copy_blocks(parent, child, |block| free[block]);
}

fn copy_blocks(from: &Path, to: &Path, is_wanted: impl Fn(usize) -> bool) {
    let from = VdiImage::open(from).expect("a readable image");
    let mut to = VdiWriter::open(to).expect("a writable image");
    for (index, entry) in from.block_map().entries().enumerate() {
        if entry != BlockEntry::Free && is_wanted(index) {
            let offset_bytes = index as u64 * BLOCK_BYTES;
            let mut data = vec![0; BLOCK_BYTES as usize];
            from.read_block(index as u32, &mut data)
                .expect("a readable image");
            let left_bytes = from.header().capacity_bytes - offset_bytes;
            data.truncate(left_bytes.min(BLOCK_BYTES) as usize);
            to.write_at(offset_bytes, &data).expect("room on the disk");
        }
    }
    to.finish().expect("a durable image");
}

pub(crate) fn renew_modification(path: &Path) {
    let mut uuids = VdiHeader::read(path).expect("the image's header").uuids;
    uuids.modification = Uuid::new_v4();
    set_uuids(path, &uuids).expect("a writable image");
}

pub(crate) fn set_parent(path: &Path, parent: Uuid) {
    let mut uuids = VdiHeader::read(path).expect("the image's header").uuids;
    uuids.parent = parent;
    set_uuids(path, &uuids).expect("a writable image");
}

/// Enlarges the disk, within the block map that the file has room for.
pub(crate) fn grow(path: &Path, capacity_bytes: u64) {
    let header = VdiHeader::read(path).expect("the image's header");
    let blocks = capacity_bytes.div_ceil(BLOCK_BYTES);
    let map_offset_bytes = header.block_map_offset_bytes;
    assert!(
        map_offset_bytes + blocks * 4 <= header.data_offset_bytes,
        "room in the block map"
    );
    let mut file = open(path);
    for block in u64::from(header.blocks)..blocks {
        put(&mut file, map_offset_bytes + block * 4, &FREE.to_le_bytes());
    }
    put(&mut file, CAPACITY_FIELD, &capacity_bytes.to_le_bytes());
    put(&mut file, BLOCKS_FIELD, &(blocks as u32).to_le_bytes());
}

/// Drops blocks of zeros and closes the gaps with the blocks at the end of the file.
pub(crate) fn compact(path: &Path) {
    let image = VdiImage::open(path).expect("a readable image");
    let mut map: Vec<u32> = (0..image.block_map().len())
        .map(|block| compacted(&image, block))
        .collect();
    let kept = map.iter().filter(|position| **position < ZERO).count() as u32;
    let mut gaps: Vec<u32> = (0..kept).filter(|gap| !map.contains(gap)).collect();
    let mut file = open(path);
    let offset_bytes =
        |position: u32| image.data_offset_bytes() + u64::from(position) * BLOCK_BYTES;
    for (block, position) in map.iter_mut().enumerate() {
        if (kept..ZERO).contains(position) {
            let mut data = vec![0; BLOCK_BYTES as usize];
            image
                .read_block(block as u32, &mut data)
                .expect("a readable image");
            *position = gaps.pop().expect("as many gaps as blocks behind them");
            put(&mut file, offset_bytes(*position), &data);
        }
    }
    let map: Vec<u8> = map.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(&mut file, image.header().block_map_offset_bytes, &map);
    put(&mut file, ALLOCATED_FIELD, &kept.to_le_bytes());
    file.set_len(offset_bytes(kept)).expect("a shorter file");
}

/// The block's entry in the map, as a number, once zeros take no room any more.
fn compacted(image: &VdiImage, block: u32) -> u32 {
    let mut data = vec![0; BLOCK_BYTES as usize];
    match image
        .read_block(block, &mut data)
        .expect("a readable image")
    {
        BlockEntry::Free => FREE,
        BlockEntry::Allocated(position) if data.iter().any(|byte| *byte != 0) => position,
        BlockEntry::Zero | BlockEntry::Allocated(_) => ZERO,
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a writable image")
}

fn put(file: &mut File, offset_bytes: u64, bytes: &[u8]) {
    file.seek(SeekFrom::Start(offset_bytes)).expect("seek");
    file.write_all(bytes).expect("room for the image");
}
