//! Keys: added, listed, removed, changed, and stock restic agrees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod common;

use std::process::Command;

use common::*;
use vrs_repository::{ErrorKind, InitOptions, Password, ResticRepository, Result};

fn open_with(sandbox: &Sandbox, text: &str) -> Result<ResticRepository> {
    ResticRepository::open(
        &sandbox.location(),
        &Password::new(text.to_owned()),
        &sandbox.options,
    )
}

fn restic_opens(sandbox: &Sandbox, text: &str) -> bool {
    let output = Command::new("restic")
        .args(["--no-cache", "snapshots", "-r"])
        .arg(sandbox.repository_folder())
        .env("RESTIC_PASSWORD", text)
        .output()
        .expect("these tests need stock restic");
    output.status.success()
}

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let sandbox = Sandbox::new();
    let repository = sandbox.open();
    let mut options = InitOptions::default();
    options.hostname = Some("host".to_owned());
    options.username = Some("me".to_owned());
    let second = Password::new("second".to_owned());
    let added = repository.add_key(&password(), &second, &options).unwrap();
    assert!(restic_opens(&sandbox, "second") && restic_opens(&sandbox, PASSWORD));
    let (keys, unreadable) = repository.keys().unwrap();
    assert_eq!((keys.len(), unreadable.len()), (2, 0));
    let listed = keys.iter().find(|key| key.id == added).unwrap();
    assert!(!listed.is_current && listed.created.is_some());
    assert_eq!(listed.hostname.as_deref(), Some("host"));
    assert_eq!(listed.username.as_deref(), Some("me"));
    let current = keys.iter().find(|key| key.is_current).unwrap();

    // Never the key in use, so never the last.
    let error = repository.remove_key(&current.id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error.to_string().contains("it is the key in use"),
        "{error}"
    );
    for wanted in ["", "zz"] {
        let error = repository.remove_key(wanted).unwrap_err();
        assert!(error.to_string().contains("names no key"), "{error}");
    }

    let mut other = open_with(&sandbox, "second").unwrap();
    let third = Password::new("third".to_owned());
    other.change_password(&second, &third, &options).unwrap();
    assert_eq!(
        open_with(&sandbox, "second").unwrap_err().kind(),
        ErrorKind::WrongPassword
    );
    assert!(restic_opens(&sandbox, "third") && !restic_opens(&sandbox, "second"));

    let other = open_with(&sandbox, "third").unwrap();
    other.remove_key(&current.id[..8]).unwrap();
    assert!(open_with(&sandbox, PASSWORD).is_err());
    assert_eq!(other.keys().unwrap().0.len(), 1);
}

#[test]
fn a_wrong_current_password_changes_nothing() {
    let sandbox = Sandbox::new();
    let mut repository = sandbox.open();
    let wrong = Password::new("wrong".to_owned());
    let new = Password::new("new".to_owned());
    let options = InitOptions::default();
    assert!(repository.change_password(&wrong, &new, &options).is_err());
    assert_eq!(sandbox.objects("keys").len(), 1);
    assert!(restic_opens(&sandbox, PASSWORD));
}
