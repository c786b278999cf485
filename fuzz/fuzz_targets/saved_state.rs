//! A file that may be a saved state: looking at it and checking it never panics, and what is sound
//! describes itself without being checked, too.

#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use vrs_progress::NoProgress;
use vrs_virtualbox::SavedState;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let described = SavedState::read(file.path());
    if let Ok(verified) = SavedState::verify(file.path(), &NoProgress) {
        assert_eq!(described.expect("a sound file can be read"), verified);
    }
});
