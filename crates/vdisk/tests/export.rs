//! An export that does not succeed leaves nothing behind and overwrites nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::arithmetic_side_effects, missing_docs)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{MIB, create, disk, noise, write};
use vrs_progress::{Counter, NoProgress, Phase, Progress};
use vrs_vdisk::{Error, ErrorKind, ExportFormat, GuestDisk, VdiVariant, export};

const FORMATS: [ExportFormat; 2] = [ExportFormat::Raw, ExportFormat::Vdi];

/// Counts what is done and asks to stop once enough is.
#[derive(Default)]
struct Limit {
    stop_at_bytes: u64,
    scanned_bytes: AtomicU64,
}

impl Progress for Limit {
    fn phase(&self, phase: Phase) {
        assert_eq!(
            (phase.name, phase.total_bytes),
            ("exporting", Some(6 * MIB))
        );
    }
    fn add(&self, counter: Counter, bytes: u64) {
        assert_eq!(counter, Counter::Scanned);
        self.scanned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn warn(&self, warning: &str) {
        panic!("{warning}");
    }
    fn interrupted(&self) -> bool {
        self.scanned_bytes.load(Ordering::Relaxed) >= self.stop_at_bytes
    }
}

fn sample(folder: &Path) -> GuestDisk {
    let image = create(folder, "disk.vdi", VdiVariant::Dynamic, 6 * MIB);
    write(&image, MIB, &noise(1, 4 * MIB as usize));
    disk(&image)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_interrupted_export_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let disk = sample(folder.path());
    for format in FORMATS {
        let limit = Limit {
            stop_at_bytes: 3 * MIB,
            ..Limit::default()
        };
        let error = export(&disk, &folder.path().join("copy"), format, &limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(limit.scanned_bytes.into_inner(), 3 * MIB);
        assert_eq!(names(folder.path()), ["disk.vdi"]);
    }
}

#[test]
fn progress_adds_up_to_the_disks_size() {
    let folder = tempfile::tempdir().unwrap();
    let disk = sample(folder.path());
    let limit = Limit {
        stop_at_bytes: u64::MAX,
        ..Limit::default()
    };
    export(
        &disk,
        &folder.path().join("copy"),
        ExportFormat::Raw,
        &limit,
    )
    .unwrap();
    assert_eq!(limit.scanned_bytes.into_inner(), 6 * MIB);
}

#[test]
fn a_read_error_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let disk = sample(folder.path());
    let image = folder.path().join("disk.vdi");
    fs::File::options()
        .write(true)
        .open(image)
        .unwrap()
        .set_len(4 * MIB)
        .unwrap();
    for format in FORMATS {
        let error = export(&disk, &folder.path().join("copy"), format, &NoProgress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(names(folder.path()), ["disk.vdi"]);
    }
}

#[test]
fn an_existing_target_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = sample(folder.path());
    let target = folder.path().join("precious");
    fs::write(&target, "precious").unwrap();
    let error = export(&disk, &target, ExportFormat::Raw, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::Exists { path } if path == target));
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}
