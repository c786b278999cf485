//! The text of a VMDK image: the extents found are named in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vrs_vdisk::extent_names;

fuzz_target!(|bytes: &[u8]| {
    for name in extent_names(bytes).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains('\n'));
        assert!(
            bytes
                .windows(name.len())
                .any(|part| part == name.as_bytes())
        );
    }
});
