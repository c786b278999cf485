//! Where a repository is, as it is typed: no text makes a panic, and what is shown is understood again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

use proptest::prelude::*;
use vrs_repository::Location;

/// Anything, and what comes close to a location.
fn typed() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec![
        "",
        "/",
        "local:",
        "local:sftp:",
        "sftp:",
        "sftp://",
        "s3:",
        "s3:https://",
        "rest:http://",
        "rest:",
        "rclone:",
    ]);
    let parts = prop::sample::select(vec![
        "me", "nas", "@", ":", "22", "99999", "/", "//", "..", "[", "::1", "]", "u:p@", "bucket",
        "%2f", "%3a", "%25", "%0a", "%20", "%2e", "%5c", "\\", "?", "#", " ", "-", ".", "a",
        "\u{e9}", "\n", "*",
    ]);
    let close = (start, prop::collection::vec(parts, 0..8))
        .prop_map(|(start, parts)| start.to_owned() + &parts.concat());
    prop_oneof![1 => any::<String>(), 4 => close]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_is_understood_again(text in typed()) {
        if let Ok(location) = Location::parse(&text) {
            let shown = location.to_string();
            prop_assert_eq!(format!("{location:?}"), format!("Location({shown})"));
            let again = Location::parse(&shown);
            let again = again.map_err(|error| TestCaseError::fail(format!("{text:?} {shown:?}: {error}")))?;
            prop_assert_eq!(again.to_string(), shown, "{:?}", text);
            // Options of rclone, which may be secrets, are not shown.
            prop_assert!(again == location || text.starts_with("rclone:"), "{:?}", text);
            let _ = (location.login_host(), location.folder());
        }
    }
}
