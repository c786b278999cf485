//! Damage of every kind, in memory.

#![allow(clippy::arithmetic_side_effects)]

use std::io::Cursor;

use proptest::prelude::*;
use vrs_progress::NoProgress;
use vrs_testkit::SavedStateFile;

use super::*;

fn sound() -> Vec<u8> {
    SavedStateFile::default().to_bytes()
}

fn verify_bytes(bytes: &[u8]) -> Result<SavedState> {
    let outcome = verify(&mut Cursor::new(bytes), &NoProgress);
    outcome.map_err(Failure::of(Path::new("a.sav")))
}

fn fault(bytes: &[u8]) -> SavedStateFault {
    match verify_bytes(bytes).unwrap_err() {
        Error::SavedState { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn a_sound_file_describes_itself() {
    let saved_state = verify_bytes(&sound()).unwrap();
    assert_eq!(saved_state.version.numbers(), (7, 2, 22));
    assert_eq!(saved_state.revision, 175_245);
    assert_eq!(saved_state.host.as_deref(), Some("linux.amd64"));
    assert_eq!(saved_state.build_type.as_deref(), Some("release"));
    assert!(!saved_state.is_live && saved_state.is_checksummed);
    let names: Vec<_> = saved_state.units.iter().map(|unit| &unit.name).collect();
    assert_eq!(names, ["SSM", "cpum", "pgm"]);
    assert_eq!(saved_state.unit("pgm").unwrap().version, 14);
    let processor = saved_state.processor.unwrap();
    assert_eq!(processor.vendor, "AuthenticAMD");
    let signature = (processor.family, processor.model, processor.stepping);
    assert_eq!(signature, (0x19, 0x11, 1));
}

#[test]
fn every_truncation_is_found() {
    let bytes = sound();
    for length in 0..bytes.len() {
        let error = verify_bytes(&bytes[..length]).unwrap_err();
        assert_eq!(
            error.kind(),
            crate::ErrorKind::SavedState,
            "{length}: {error}"
        );
    }
}

#[test]
fn every_changed_bit_is_found() {
    let mut bytes = sound();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let error = verify_bytes(&bytes).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::SavedState, "{at}: {error}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn bytes_that_are_missing_or_too_many_inside_are_found() {
    let bytes = sound();
    for at in 0..bytes.len() {
        let without = [&bytes[..at], &bytes[at + 1..]].concat();
        assert!(verify_bytes(&without).is_err(), "{at}");
        let doubled = [&bytes[..=at], &bytes[at..]].concat();
        assert!(verify_bytes(&doubled).is_err(), "{at}");
    }
}

#[test]
fn another_format_is_not_called_damaged() {
    let mut bytes = sound();
    bytes[26] = b'1';
    // The header's checksum covers the format, so a writer of that format has another one.
    bytes[60..64].fill(0);
    let error = verify_bytes(&bytes).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported, "{error}");
    insta::assert_snapshot!(error, @"the saved state 'a.sav' cannot be used: its format V2.1 is not known to this vrs; a newer vrs may read it");
}

#[test]
fn texts_say_what_is_wrong_where() {
    let bytes = sound();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        verify_bytes(&bytes).unwrap_err().to_string()
    };
    let pgm = usize::try_from(
        verify_bytes(&bytes)
            .unwrap()
            .unit("pgm")
            .unwrap()
            .offset_bytes,
    )
    .unwrap();
    insta::assert_snapshot!(with(0, b'x'), @"the saved state 'a.sav' cannot be used: it does not begin like one");
    insta::assert_snapshot!(with(33, 9), @"the saved state 'a.sav' cannot be used: its header is damaged: the checksum at byte 60 is 7b116ad2, the data has 02c9c48b");
    insta::assert_snapshot!(with(pgm + 44 + 4 + 2, b'M'), @r#"the saved state 'a.sav' cannot be used: its unit "pgm" is damaged: the checksum at byte 515 is db40925f, the data has 2236f009"#);
    insta::assert_snapshot!(with(pgm + 44 + 4, 0), @r#"the saved state 'a.sav' cannot be used: its unit "pgm" is damaged: at byte 505 there is no record"#);
    insta::assert_snapshot!(with(pgm, 0), @"the saved state 'a.sav' cannot be used: its directory is damaged: at byte 457 there should be a unit");
    insta::assert_snapshot!(with(bytes.len() - 1, 0x55), @"the saved state 'a.sav' cannot be used: its footer is damaged: the checksum at byte 665 is 55f91749, the data has 01f91749");
    insta::assert_snapshot!(fault(&bytes[..bytes.len() - 1]), @"there is no footer at byte 636; saving it was interrupted, the disk was full, or it was copied incompletely");
    insta::assert_snapshot!(fault(&bytes[..10]), @"it ends at byte 10, within its header; saving it was interrupted, the disk was full, or it was copied incompletely");
    let interrupted = Failure::of(Path::new("/vms/m/Snapshots/a.sav"))(Failure::Interrupted);
    insta::assert_snapshot!(interrupted, @"interrupted while reading '/vms/m/Snapshots/a.sav'");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>) {
        let _ = verify_bytes(&bytes);
        let _ = GuestProcessor::find(&bytes);
        let _ = HostDescription::parse(&bytes);
    }

    #[test]
    fn any_change_is_found(changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4)) {
        let original = sound();
        let mut bytes = original.clone();
        for (index, change) in changes {
            let at = index.index(bytes.len());
            bytes[at] ^= change;
        }
        prop_assert!(bytes == original || verify_bytes(&bytes).is_err());
    }
}
