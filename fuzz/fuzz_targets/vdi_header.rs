//! A header and the block map behind it, from a file of any length: parsing never panics, and what
//! it accepts keeps its promises.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vrs_vdisk::{BlockMap, ImageFormat, VdiHeader};

/// Larger maps only take time.
const MOST_BLOCKS: u32 = 1 << 12;

fuzz_target!(|input: (u64, &[u8])| {
    let (file_len_bytes, bytes) = input;
    let format = ImageFormat::recognise(bytes, bytes);
    let Ok(header) = VdiHeader::parse(bytes, file_len_bytes) else {
        return;
    };
    assert_eq!(format, ImageFormat::Vdi);
    let map_bytes = u64::from(header.blocks) * 4;
    assert!(header.block_map_offset_bytes + map_bytes <= file_len_bytes);
    assert!(header.block_map_offset_bytes + map_bytes <= header.data_offset_bytes);
    assert!(u64::from(header.blocks) * u64::from(header.block_size_bytes) >= header.capacity_bytes);
    if header.blocks <= MOST_BLOCKS {
        let map = bytes
            .get(header.block_map_offset_bytes as usize..)
            .unwrap_or_default();
        let map = BlockMap::parse(&header, map, file_len_bytes);
        let report = map.check();
        let counted = report.free_blocks + report.zero_blocks + report.allocated_blocks;
        assert_eq!((map.len(), counted), (header.blocks, header.blocks));
    }
});
