//! Saved states that the real VirtualBox wrote.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use vrs_progress::NoProgress;
use vrs_testkit::{Rig, RigMachine, SavedStateFile};
use vrs_virtualbox::{ErrorKind, SavedState};

/// A few units of a state that VirtualBox 7.2.22 saved, with the checksums computed anew.
const UNITS: &[u8] = include_bytes!("recorded/7.2.22/units-of-a-saved-state.sav");

fn verify_bytes(bytes: &[u8]) -> Result<SavedState, ErrorKind> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sav");
    fs::write(&path, bytes).unwrap();
    SavedState::verify(&path, &NoProgress).map_err(|error| error.kind())
}

#[test]
fn the_processor_and_the_host_are_read_from_real_units() {
    let saved_state = verify_bytes(UNITS).unwrap();
    assert_eq!(saved_state.host.as_deref(), Some("linux.amd64"));
    let processor = saved_state.processor.unwrap();
    assert_eq!(processor.vendor, "AuthenticAMD");
    assert_eq!(processor.brand, "AMD EPYC");
    let signature = (processor.family, processor.model, processor.stepping);
    assert_eq!(signature, (0x19, 0x11, 1));
    assert_eq!(processor.leaves.len(), 78);
    assert_eq!(processor.leaf(1).unwrap().ecx, 0x04d8_2201);
}

/// Counts what is read of a file.
struct Counted(Cursor<Vec<u8>>, usize);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1 += count;
        Ok(count)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn the_memory_is_not_read_to_know_a_state() {
    let state = SavedStateFile {
        memory: vec![7; 32 << 20],
        ..SavedStateFile::default()
    };
    let mut file = Counted(Cursor::new(state.to_bytes()), 0);
    let read = SavedState::read_from(&mut file, Path::new("a.sav")).unwrap();
    assert_eq!(read.processor.unwrap().vendor, "AuthenticAMD");
    assert!(file.1 < 1 << 20, "{} bytes were read", file.1);
}

/// Every kind of save by one machine.
fn saved_states(machine: &RigMachine<'_>) -> Vec<(PathBuf, bool)> {
    machine.start_guest();
    machine.take_virtualbox_snapshot("plain");
    machine.call("snapshot", &["take", "live", "--live"]);
    machine.save_running_state();
    let mut files: Vec<_> = fs::read_dir(machine.folder().join("Snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sav"))
        .collect();
    files.sort();
    files.into_iter().zip([false, true, false]).collect()
}

#[test]
#[ignore = "needs the VirtualBox rig; scripts/test runs it"]
fn real_saved_states_are_sound_and_describe_their_virtualbox() {
    let rig = Rig::start();
    let machine = RigMachine::create(&rig, "saved");
    machine.add_disk(0, "disk.vdi", "VDI", "Standard");
    let files = saved_states(&machine);
    assert_eq!(files.len(), 3);
    let version = rig.run(["--version"]);
    for (file, is_live) in files {
        let saved_state = SavedState::verify(&file, &NoProgress).unwrap();
        assert_eq!(saved_state, SavedState::read(&file).unwrap());
        assert_eq!(saved_state.is_live, is_live, "{}", file.display());
        let revision = format!("r{}", saved_state.revision);
        assert!(
            version.starts_with(&saved_state.version.to_string()),
            "{version}"
        );
        assert!(version.trim().ends_with(&revision), "{version}: {revision}");
        assert!(saved_state.host.unwrap().starts_with("linux."));
        assert_eq!(saved_state.processor.unwrap().vendor.len(), 12);
        for name in ["pgm", "ahci", "serial", "ConsoleData"] {
            assert!(
                saved_state.units.iter().any(|unit| unit.name == name),
                "{name}"
            );
        }
        damage_is_found(&file);
    }
}

/// Truncations and changed bits around every unit, and every so often in between.
fn damage_is_found(file: &Path) {
    let bytes = fs::read(file).unwrap();
    let units = SavedState::read(file).unwrap().units;
    let around = units.iter().flat_map(|unit| {
        let start = usize::try_from(unit.offset_bytes).unwrap();
        [start - 1, start, start + 8, start + 50, start + 70]
    });
    let ends = (0..64).chain(bytes.len() - 700..bytes.len());
    let places: Vec<_> = around
        .chain(ends)
        .chain((0..bytes.len()).step_by(4099))
        .collect();
    for place in places {
        let truncated = verify_bytes(&bytes[..place]);
        assert_eq!(truncated, Err(ErrorKind::SavedState), "{place}");
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        assert_eq!(
            verify_bytes(&changed),
            Err(ErrorKind::SavedState),
            "{place}"
        );
    }
}
