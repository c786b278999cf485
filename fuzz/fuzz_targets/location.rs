//! Where a repository is, as it is typed: no text makes a panic, nor does what a location is shown as.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vrs_repository::Location;

fuzz_target!(|text: &str| {
    if let Ok(location) = Location::parse(text) {
        let shown = location.to_string();
        let _ = Location::parse(&shown);
        assert_eq!(format!("{location:?}"), format!("Location({shown})"));
        let _ = (location.login_host(), location.folder());
    }
});
