//! Base images to and from raw ones, block by block and without the code under test.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::image::{BLOCK_BYTES, Block, Image};

/// Gives the base image `image` the contents of `raw`, which has its size. Only blocks that differ are written, as by a guest.
pub fn import(image: &Path, raw: &Path) {
    let mut image = Image::open(image);
    let length_bytes = fs::metadata(raw).expect("the raw image").len();
    assert_eq!(
        length_bytes,
        image.capacity_bytes(),
        "the raw image has the disk's size"
    );
    let mut raw = File::open(raw).expect("the raw image");
    for index in 0..image.blocks() {
        let mut block = Vec::new();
        (&mut raw)
            .take(BLOCK_BYTES)
            .read_to_end(&mut block)
            .expect("the raw image's contents");
        block.resize(BLOCK_BYTES as usize, 0);
        if block != contents(&mut image, index) {
            image.set_block(index, &Block::Data(block));
        }
    }
    image.save();
}

/// Writes what a guest sees of the base image `image` to the new file `raw`.
pub fn export(image: &Path, raw: &Path) {
    let mut image = Image::open(image);
    let mut raw = File::create_new(raw).expect("a new raw image");
    for index in 0..image.blocks() {
        let block = contents(&mut image, index);
        raw.write_all(&block).expect("room for the raw image");
    }
    raw.set_len(image.capacity_bytes())
        .expect("the raw image's length");
}

fn contents(image: &mut Image, index: u32) -> Vec<u8> {
    match image.block(index) {
        Block::Data(data) => data,
        Block::Free | Block::Zero => vec![0; BLOCK_BYTES as usize],
    }
}
