//! A damaged image and an earlier head: whatever is left of the image, mending never panics, and what
//! it answers names only places in the file, each once, and is read back as written.

#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use vrs_vdisk::{Finding, VdiHead};

/// Images of every layout; the first byte of the input chooses the one that the head comes from.
const EARLIER: [&[u8]; 5] = [
    include_bytes!("../corpus/vdi_image/dynamic"),
    include_bytes!("../corpus/vdi_image/differencing"),
    include_bytes!("../corpus/vdi_image/extra"),
    include_bytes!("../corpus/vdi_image/first"),
    include_bytes!("../corpus/vdi_image/map-in-header-sector"),
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, damaged)) = input.split_first() else {
        return;
    };
    let earlier = head_of(EARLIER[usize::from(*choice) % EARLIER.len()]);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(damaged).expect("room for it");
    let path = file.path();
    let _ = VdiHead::of_image(path).map(VdiHead::counted);
    let Ok(mended) = earlier.mend(path) else {
        return;
    };
    mended.head.write(path).expect("it is a file of ours");
    let written = VdiHead::of_image(path).expect("a mended head can be read");
    assert!(
        written
            .block_map()
            .entries()
            .eq(mended.head.block_map().entries())
    );
    let findings = written.block_map().check().findings;
    assert!(
        findings
            .iter()
            .all(|finding| matches!(finding, Finding::Unused { .. })),
        "{findings:?}"
    );
});

fn head_of(image: &[u8]) -> VdiHead {
    let read = |offset: u64, buffer: &mut [u8]| -> Result<(), ()> {
        let from = usize::try_from(offset).map_err(drop)?;
        let bytes = image.get(from..).and_then(|rest| rest.get(..buffer.len()));
        bytes.map(|bytes| buffer.copy_from_slice(bytes)).ok_or(())
    };
    let head = VdiHead::read(image.len() as u64, read).expect("it is inside the image");
    head.expect("a sound image")
}
